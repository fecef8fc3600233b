"""What the page of ``demo`` does with an image, apart from any page."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from ocrnet_pl.errors import DataError
from ocrnet_pl.serving.served import Loaded, Result

View = Literal["fused", "boxes", "pixels"]
"""What is drawn: everything, the boxes alone, or the classes of the pixels alone."""

MAX_BYTES = 100 << 20
"""Size in bytes above which a file is refused."""


def predict_file(loaded: Loaded, path: str, max_pixels: int) -> Result:
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


def drawn(prediction: Result, view: View, score: float) -> Image.Image:
    """Return the drawn image.

    Args:
        prediction: The prediction, with its image.
        view: What is drawn.
        score: Score below which objects are left out, 0 to 1.
    """
    if view == "boxes":
        # With or without torch, it is a dataclass.
        whole: Any = prediction
        prediction = replace(whole, semantic=None, instances=None)
    elif view == "pixels":
        prediction = prediction.filter(score=math.inf)
    return prediction.plot(score=score)


def table(prediction: Result, score: float) -> list[list[Any]]:
    """Return a row of name, score and the box's four sides for each object, the best first.

    Args:
        prediction: The prediction.
        score: Score below which objects are left out, 0 to 1.
    """
    objects = prediction.filter(score=score).to_dict()["objects"]
    rows = [[each["name"], round(each["score"], 3), *(round(side, 1) for side in each["box"])] for each in objects]
    return sorted(rows, key=lambda row: -row[1])
