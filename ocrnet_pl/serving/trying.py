"""What the page of ``demo`` does with an image, apart from any page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from ocrnet_pl.errors import DataError
from ocrnet_pl.serving.served_network import LoadedNetwork
from ocrnet_pl.structures import Prediction

View = Literal["fused", "boxes", "pixels"]
"""What is drawn: everything, the boxes alone, or the classes of the pixels alone."""

MAX_BYTES = 100 << 20
"""Size in bytes above which a file is refused."""


def predict_file(loaded: LoadedNetwork, path: str, max_pixels: int) -> Prediction:
    """Return the prediction for a file, which may be anything.

    Args:
        loaded: The network.
        path: Path of the file.
        max_pixels: Number of pixels above which an image is refused by its header.

    Raises:
        DataError: It is not an image, or is damaged or too large.
    """
    file = Path(path)
    if file.stat().st_size > MAX_BYTES:
        raise DataError.at(file.name, f"the file is larger than {MAX_BYTES >> 20} MiB")
    return loaded.predict([loaded.read(file.read_bytes(), file.name, max_pixels)])[0]


def drawn(prediction: Prediction, view: View, score: float) -> Image.Image:
    """Return the drawn image.

    Args:
        prediction: The prediction, with its image.
        view: What is drawn.
        score: Score below which objects are left out, 0 to 1.
    """
    if view == "boxes":
        prediction = replace(prediction, semantic=None, instances=None)
    elif view == "pixels":
        none = torch.zeros(len(prediction.scores), dtype=torch.bool)
        prediction = replace(
            prediction,
            boxes=prediction.boxes[none],
            scores=prediction.scores[none],
            labels=prediction.labels[none],
            tracks=None,
            instances=None,
        )
    return prediction.plot(score=score)


def table(prediction: Prediction, score: float) -> list[list[Any]]:
    """Return a row of name, score and the box's four sides for each object, the best first.

    Args:
        prediction: The prediction.
        score: Score below which objects are left out, 0 to 1.
    """
    objects = prediction.filter(score=score).to_dict()["objects"]
    rows = [[each["name"], round(each["score"], 3), *(round(side, 1) for side in each["box"])] for each in objects]
    return sorted(rows, key=lambda row: -row[1])
