"""The only place where samples and predictions become overlays of Weights & Biases.

The checks of Weights & Biases miss much, so this module passes only plain Python numbers and 2-D masks of the image's
size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ocrnet_pl.structures import IGNORE_INDEX, Prediction, Sample, Taxonomy

if TYPE_CHECKING:
    import wandb

Overlays = dict[str, dict[str, Any]]


def overlay_data(
    size: tuple[int, int], truth: Sample, predictions: Mapping[str, Prediction], taxonomy: Taxonomy
) -> tuple[Overlays, Overlays]:
    """Return what ``wandb.Image`` accepts as ``boxes`` and ``masks``, under "truth" and the predictions' names.

    A class has the same id in boxes and masks, its segmentation index, because the dashboard keeps one table of names
    per image. Classes that have only boxes come after 255, the id of pixels without a label.

    Args:
        size: (height, width) of the image.
        truth: The labels, in the image's frame.
        predictions: The predictions of the image, by their names.
        taxonomy: The categories with their names.

    Returns:
        Boxes and masks, as plain Python types and numpy masks; a map that is missing has no key.

    Raises:
        ValueError: A map's size is not the image's.
    """
    ids = [
        IGNORE_INDEX + 1 + index if category.semantic is None else category.semantic
        for index, category in enumerate(taxonomy.detection_categories)
    ]
    names = {index: category.name for index, category in enumerate(taxonomy.semantic_categories)}
    box_names = {id_: category.name for id_, category in zip(ids, taxonomy.detection_categories, strict=True)}
    mask_names = {**names, IGNORE_INDEX: "unlabeled"}

    boxes: Overlays = {
        "truth": {"box_data": _boxes(truth.boxes, truth.labels, None, ids, box_names), "class_labels": box_names}
    }
    masks: Overlays = {}
    for key, prediction in predictions.items():
        data = _boxes(prediction.boxes, prediction.labels, prediction.scores, ids, box_names)
        boxes[key] = {"box_data": data, "class_labels": box_names}
    for key, semantic in {"truth": truth.semantic, **{k: p.semantic for k, p in predictions.items()}}.items():
        if semantic is not None:
            masks[key] = {"mask_data": _mask(semantic, size, key), "class_labels": mask_names}
    return boxes, masks


def to_wandb_image(
    sample_image: Tensor, truth: Sample, predictions: Mapping[str, Prediction], taxonomy: Taxonomy
) -> wandb.Image:
    """Return an image with the labels and predictions as overlays to switch on and off.

    Args:
        sample_image: uint8 [C, H, W].
        truth: The labels, in the image's frame.
        predictions: The predictions of the image, by their names.
        taxonomy: The categories with their names.

    Raises:
        ValueError: A map's size is not the image's.
    """
    import wandb

    size = int(sample_image.shape[-2]), int(sample_image.shape[-1])
    boxes, masks = overlay_data(size, truth, predictions, taxonomy)
    image = sample_image.detach().as_subclass(Tensor).cpu()
    rgb = image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
    pixels = rgb.permute(1, 2, 0).contiguous().numpy()
    return wandb.Image(pixels, boxes=boxes, masks=masks, caption=str(truth.image_id))


def _boxes(
    boxes: Tensor, labels: Tensor, scores: Tensor | None, ids: list[int], names: dict[int, str]
) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = []
    values = [None] * len(labels) if scores is None else scores.detach().float().cpu().tolist()
    for box, label, score in zip(boxes.detach().float().cpu().tolist(), labels.tolist(), values, strict=True):
        class_id = ids[label]
        entry: dict[str, Any] = {
            "position": dict(zip(("minX", "minY", "maxX", "maxY"), box, strict=True)),
            "domain": "pixel",
            "class_id": class_id,
            "box_caption": names[class_id] if score is None else f"{names[class_id]} {score:.2f}",
        }
        if score is not None:
            entry["scores"] = {"score": score}
        data.append(entry)
    return data


def _mask(semantic: Tensor, size: tuple[int, int], key: str) -> np.ndarray:
    if tuple(semantic.shape) != size:
        raise ValueError(f"the {key} mask is {list(semantic.shape)}, the image {list(size)}")
    mask: np.ndarray = semantic.detach().as_subclass(Tensor).cpu().numpy().astype(np.uint8)
    return mask
