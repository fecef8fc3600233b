"""What a prediction can be turned into: pictures, parts of the image, and the forms of other tools.

These are the methods of :class:`~ocrnet_pl.prediction.Prediction` that draw, write or convert.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from ocrnet_pl.drawing.overlays import draw_prediction
from ocrnet_pl.imaging.images import read_image
from ocrnet_pl.imaging.run_lengths import encode_instances
from ocrnet_pl.inference.chosen_rows import with_rows, without_segments
from ocrnet_pl.runtime.plain_result import check_score, plain_result
from ocrnet_pl.storage.files import complete_file
from ocrnet_pl.structures import IGNORE_INDEX, Prediction, Taxonomy


def filtered(prediction: Prediction, classes: str | Iterable[str] | None, score: float) -> Prediction:
    """Return a prediction with some of the objects: see :meth:`Prediction.filter`."""
    check_score(score)
    kept = prediction.scores >= score
    if classes is None:
        return with_rows(prediction, kept.nonzero()[:, 0])
    chosen = _taxonomy(prediction).choose(classes)
    kept &= torch.tensor(chosen.detection).to(kept.device)[prediction.labels] if chosen.detection else False
    semantic = prediction.semantic
    if semantic is not None:
        values = torch.arange(IGNORE_INDEX + 1, dtype=semantic.dtype)
        values[: len(chosen.semantic)][~torch.tensor(chosen.semantic, dtype=torch.bool)] = IGNORE_INDEX
        semantic = values.to(semantic.device)[semantic.long()]
    changed = with_rows(replace(prediction, semantic=semantic), kept.nonzero()[:, 0])
    return without_segments(changed, {each.id for each in changed.segments if each.category not in chosen.positions})


def plotted(prediction: Prediction, image: Tensor | None, score: float, min_side: int) -> Image.Image:
    """Return the drawn image: see :meth:`Prediction.plot`."""
    check_score(score)
    taxonomy = _taxonomy(prediction)
    drawn = draw_prediction(_image(prediction, image), prediction, taxonomy, threshold=score, min_side=min_side)
    picture: Image.Image = to_pil_image(drawn)
    return picture


def save(prediction: Prediction, path: str | PathLike[str], image: Tensor | None, score: float) -> None:
    """Write the drawn image: see :meth:`Prediction.save`."""
    suffix = Path(path).suffix.lower()
    Image.init()
    kind = Image.registered_extensions().get(suffix)
    try:
        # Some formats have a name to write them by, but nothing that does, or no colors.
        Image.new("RGB", (1, 1)).save(io.BytesIO(), format=kind)
    except (KeyError, OSError, ValueError) as error:
        advice = "use .png or .jpg"
        raise ValueError(f"{path}: no pictures are written with the ending {suffix!r}; {advice}") from error
    picture = plotted(prediction, image, score, 0)
    with complete_file(path) as unfinished:
        picture.save(unfinished, format=kind)


def cropped(prediction: Prediction, image: Tensor | None, margin: float) -> list[Tensor]:
    """Return each box's part of the image: see :meth:`Prediction.crop`."""
    if not isinstance(margin, Real) or not (math.isfinite(margin) and margin >= 0):
        raise ValueError(f"margin: expected a share of the box's sides, at least 0, got {margin!r}")
    whole = _image(prediction, image)
    height, width = int(whole.shape[-2]), int(whole.shape[-1])
    parts = []
    for x1, y1, x2, y2 in prediction.boxes.tolist():
        more_x, more_y = margin * (x2 - x1), margin * (y2 - y1)
        left, top = min(math.floor(max(x1 - more_x, 0)), width - 1), min(math.floor(max(y1 - more_y, 0)), height - 1)
        right, bottom = math.ceil(min(x2 + more_x, width)), math.ceil(min(y2 + more_y, height))
        # A box without area still has one pixel.
        parts.append(whole[:, top : max(bottom, top + 1), left : max(right, left + 1)].clone())
    return parts


def to_dict(prediction: Prediction, masks: bool) -> dict[str, Any]:
    """Return plain values: see :meth:`Prediction.to_dict`."""
    counts = None
    if prediction.semantic is not None:
        counts = torch.bincount(prediction.semantic.reshape(-1).long(), minlength=IGNORE_INDEX + 1).tolist()
    of_objects = None
    if masks and prediction.instances is not None:
        of_objects = [each["segmentation"] for each in to_coco(prediction)]
    plain = plain_result(prediction, _taxonomy(prediction), counts, of_objects)
    if prediction.tracks is not None:
        for entry, track in zip(plain["objects"], prediction.tracks.tolist(), strict=True):
            entry["track"] = track
    return plain


def to_coco(prediction: Prediction, image_id: int | str | None = None) -> list[dict[str, Any]]:
    """Return the objects in COCO's results format: see :meth:`Prediction.to_coco`."""
    masks: Sequence[bytes | None] = [None] * len(prediction.scores)
    if prediction.instances is not None:
        masks, _ = encode_instances(prediction.instances, len(prediction.scores))
    results = []
    rows = zip(prediction.boxes.tolist(), prediction.scores.tolist(), prediction.labels.tolist(), masks, strict=True)
    for (x1, y1, x2, y2), score, label, mask in rows:
        entry: dict[str, Any] = {
            "image_id": prediction.image_id if image_id is None else image_id,
            "category_id": label + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        if mask is not None and prediction.instances is not None:
            entry["segmentation"] = {"size": list(prediction.instances.shape), "counts": mask.decode("ascii")}
        results.append(entry)
    return results


def to_supervision(prediction: Prediction) -> Any:
    """Return the objects as ``supervision.Detections``: see :meth:`Prediction.to_supervision`."""
    try:
        from supervision import Detections
    except ImportError as error:
        raise ImportError("to_supervision needs the package supervision: pip install 'ocrnet-pl[video]'") from error
    masks = prediction.masks
    return Detections(
        xyxy=prediction.boxes.cpu().numpy(),
        mask=None if masks is None else masks.cpu().numpy(),
        confidence=prediction.scores.cpu().numpy(),
        class_id=prediction.labels.cpu().numpy().astype(int),
        tracker_id=None if prediction.tracks is None else prediction.tracks.cpu().numpy().astype(int),
        data={"class_name": np.array(prediction.names, dtype=str)},
    )


def _taxonomy(prediction: Prediction) -> Taxonomy:
    if prediction.taxonomy is None:
        raise ValueError("prediction: its taxonomy is not known; set prediction.taxonomy to that of the network")
    return prediction.taxonomy


def _image(prediction: Prediction, given: Tensor | None) -> Tensor:
    """Return the image of a prediction, uint8 [C, H, W]."""
    image = prediction.image if given is None else given
    if image is None:
        if not prediction.path:
            raise ValueError("prediction: its image is not known; give it as an argument")
        image = read_image(prediction.path)
    if not isinstance(image, Tensor) or image.dtype != torch.uint8 or image.ndim != 3:
        shown = f"{image.dtype} {list(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(f"image: expected a tensor uint8 [C, H, W], found {shown}")
    found = (int(image.shape[-2]), int(image.shape[-1]))
    if prediction.size is not None and found != prediction.size:
        expected = f"{prediction.size[1]} x {prediction.size[0]}"
        raise ValueError(f"image: it is {found[1]} x {found[0]}, the prediction is of one of {expected}")
    return image
