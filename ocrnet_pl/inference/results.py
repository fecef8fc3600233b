"""What a prediction can be turned into: pictures, parts of the image, and the forms of other tools.

These are the methods of :class:`~ocrnet_pl.prediction.Prediction` that draw, write or convert.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from os import PathLike
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from ocrnet_pl.drawing.overlays import draw_prediction
from ocrnet_pl.imaging.images import read_image
from ocrnet_pl.imaging.run_lengths import encode_instances
from ocrnet_pl.inference.chosen_rows import with_rows, without_segments
from ocrnet_pl.runtime.cropping import crop_windows
from ocrnet_pl.runtime.picture_files import picture_format
from ocrnet_pl.runtime.plain_result import check_score, coco_results, plain_result
from ocrnet_pl.runtime.supervision_detections import supervision_detections
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
    # Before anything is drawn.
    kind = picture_format(path)
    picture = plotted(prediction, image, score, 0)
    with complete_file(path) as unfinished:
        picture.save(unfinished, format=kind)


def cropped(prediction: Prediction, image: Tensor | None, margin: float) -> list[Tensor]:
    """Return each box's part of the image: see :meth:`Prediction.crop`."""
    whole = _image(prediction, image)
    size = (int(whole.shape[-2]), int(whole.shape[-1]))
    windows = crop_windows(prediction.boxes.tolist(), size, margin)
    return [whole[:, rows, columns].clone() for rows, columns in windows]


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
    found = None
    if (instances := prediction.instances) is not None:
        texts, _ = encode_instances(instances, len(prediction.scores))
        found = [{"size": list(instances.shape), "counts": text.decode("ascii")} for text in texts]
    return coco_results(prediction, image_id, found)


def to_supervision(prediction: Prediction) -> Any:
    """Return the objects as ``supervision.Detections``: see :meth:`Prediction.to_supervision`."""
    found = (prediction.boxes, prediction.scores, prediction.labels)
    boxes, scores, labels = (each.cpu().numpy() for each in found)
    masks, tracks = (None if each is None else each.cpu().numpy() for each in (prediction.masks, prediction.tracks))
    return supervision_detections(boxes, scores, labels, prediction.names, masks, tracks)


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
