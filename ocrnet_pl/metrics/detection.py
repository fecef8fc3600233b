"""COCO mean average precision of boxes or masks."""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.distributed.gather import compute_on_first
from ocrnet_pl.metrics.base import Metric
from ocrnet_pl.metrics.coco_evaluation import AREAS, COCO_LIMIT, IOU_50, IOU_75, evaluate, mean_defined
from ocrnet_pl.metrics.figures import BOXES, MASKS
from ocrnet_pl.metrics.shared import OncePerBatch
from ocrnet_pl.structures import Prediction, Sample, Taxonomy


class _Image(NamedTuple):
    """One image's boxes, packed for the exchange; masks are run lengths, empty for boxes."""

    key: tuple[str, str]
    size: tuple[int, int]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    masks: list[bytes]
    predicted_boxes: NDArray[np.float64]
    predicted_labels: NDArray[np.int64]
    predicted_scores: NDArray[np.float64]
    predicted_areas: NDArray[np.float64]
    predicted_masks: list[bytes]


def encode_instances(instances: Tensor, count: int) -> tuple[list[bytes], NDArray[np.float64]]:
    """Return COCO run lengths and areas of the instances 1 to ``count`` of a map [H, W], in one pass over the map."""
    from faster_coco_eval.core import mask as rle

    height, width = instances.shape
    plane = instances.as_subclass(Tensor).cpu().numpy()
    # COCO counts down the columns, from one column's end on at the top of the next.
    begins = np.empty((height, width), dtype=bool)
    begins[1:] = plane[1:] != plane[:-1]
    begins[0, 1:] = plane[0, 1:] != plane[-1, :-1]
    begins[0, 0] = True
    starts = np.flatnonzero(begins.T)
    ends = np.append(starts[1:], plane.size)
    values = plane[starts % height, starts // height]
    order = np.argsort(values, kind="stable")
    values, starts, ends = values[order], starts[order], ends[order]
    first = np.searchsorted(values, np.arange(1, count + 2))
    # Where the run before ended: of the same instance, else at the beginning.
    before = np.where(np.diff(values, prepend=-1) == 0, np.roll(ends, 1), 0)
    # Outside and inside alternate; the rest at the end is outside.
    lengths = np.stack((starts - before, ends - starts), 1).ravel().tolist()
    areas = np.bincount(values, ends - starts, count + 1)[1 : count + 1].astype(np.float64)
    runs = []
    for begin, end in itertools.pairwise(first.tolist()):
        left = plane.size - (int(ends[end - 1]) if end > begin else 0)
        runs.append({"size": [height, width], "counts": lengths[2 * begin : 2 * end] + [left] * (left > 0)})
    return ([encoded["counts"] for encoded in rle.frPyObjects(runs, height, width)] if runs else []), areas


class TrueInstances(NamedTuple):
    """The objects of an instance map: their areas and, if requested, their run lengths."""

    areas: NDArray[np.float64]
    masks: list[bytes]


def encoded_truth(truth: Sample) -> TrueInstances | None:
    """Return areas and run lengths of a sample's instances, None without an instance map."""
    if truth.instances is None:
        return None
    masks, areas = encode_instances(truth.instances, len(truth.labels))
    return TrueInstances(areas, masks)


def measured_truth(truth: Sample) -> TrueInstances | None:
    """Return only the areas of a sample's instances, None without an instance map."""
    if truth.instances is None:
        return None
    pixels = torch.bincount(truth.instances.as_subclass(Tensor).flatten(), minlength=len(truth.labels) + 1)
    return TrueInstances(pixels[1 : len(truth.labels) + 1].double().numpy(), [])


class DetectionMetric(Metric):
    """Average precision as COCO computes it, by faster-coco-eval, which equals pycocotools.

    All predictions count: only the decoder's ``max_detections`` limits them. ``map_100`` and ``mar_100`` are COCO's own
    figures, which count the best 100 of each image and class.

    A true object's size is its area in the instance map if the sample has one, else the area of its box. Images without
    detection supervision are left out; predictions of classes that an image was not labelled for are dropped.

    Args:
        taxonomy: The categories.
        masks: Whether masks are compared instead of boxes; the keys then start with ``mask_``, and samples without an
            instance map are left out.
        per_class: Whether ``map_per_class/<name>`` is added.
        true_instances: Results of ``encoded_truth`` (or ``measured_truth``, for boxes), shared by metrics of the same
            batches; None for separate ones.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        masks: bool = False,
        per_class: bool = True,
        true_instances: OncePerBatch[TrueInstances | None] | None = None,
    ) -> None:
        super().__init__(taxonomy)
        self.figures = MASKS if masks else BOXES
        self.masks = masks
        self.per_class = per_class
        self._true_instances = true_instances or OncePerBatch(encoded_truth if masks else measured_truth)
        self._images: list[_Image] = []

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self._true_instances.reset()
        self._images = []

    def update(self, predictions: list[Prediction], truths: list[Sample]) -> None:
        """Take in one batch."""
        for prediction, truth, drawn in zip(predictions, truths, self._true_instances(truths), strict=True):
            known = truth.supervision.detection
            if known.any() and not (self.masks and (drawn is None or prediction.instances is None)):
                self._images.append(self._pack(prediction, truth, drawn))

    def _pack(self, prediction: Prediction, truth: Sample, drawn: TrueInstances | None) -> _Image:
        boxes = np.asarray(truth.boxes, dtype=np.float64).reshape(-1, 4)
        areas = _box_areas(boxes)
        if drawn is not None:
            # A crowd, or an object that others cover completely, has no pixels in the map.
            areas = np.where(drawn.areas > 0, drawn.areas, areas)
        labels = prediction.labels.cpu()
        kept = truth.supervision.detection[labels].nonzero()[:, 0]
        predicted_boxes = prediction.boxes.double().cpu()[kept].numpy()
        predicted_areas = _box_areas(predicted_boxes)
        masks: list[bytes] = []
        predicted_masks: list[bytes] = []
        if self.masks:
            assert drawn is not None and prediction.instances is not None
            masks = drawn.masks
            encoded, all_areas = encode_instances(prediction.instances, len(labels))
            predicted_masks, predicted_areas = [encoded[row] for row in kept.tolist()], all_areas[kept.numpy()]
        return _Image(
            (type(truth.image_id).__name__, str(truth.image_id).rjust(24)),
            truth.size,
            boxes,
            truth.labels.numpy(),
            truth.crowd.numpy(),
            areas,
            masks,
            predicted_boxes,
            labels[kept].numpy(),
            prediction.scores.double().cpu()[kept].numpy(),
            predicted_areas,
            predicted_masks,
        )

    def compute(self) -> dict[str, Tensor]:
        """Return the figures over all processes' images; NaN where there is nothing to measure."""
        prefix = "mask_" if self.masks else ""
        with _no_garbage_collection():
            figures = compute_on_first(self._images, self._evaluate)
        return {prefix + name: torch.tensor(value, dtype=torch.float64) for name, value in figures.items()}

    def _evaluate(self, parts: list[list[_Image]]) -> dict[str, float]:
        # Equal scores rank by the images' order, which must not depend on the number of processes.
        images = sorted((image for part in parts for image in part), key=lambda image: image.key)
        names = [category.name for category in self.taxonomy.detection_categories]
        truth, found = self._as_coco(images, len(names))
        if truth["annotations"] and found["annotations"]:
            precision, recall = evaluate(truth, found, self.masks)
            parts_of = {
                "map": precision[..., 0, -1],
                "map_50": precision[IOU_50, ..., 0, -1],
                "map_75": precision[IOU_75, ..., 0, -1],
                **{f"map_{area}": precision[..., index, -1] for index, area in enumerate(AREAS) if index},
                f"map_{COCO_LIMIT}": precision[..., 0, 0],
                "mar": recall[..., 0, -1],
                f"mar_{COCO_LIMIT}": recall[..., 0, 0],
            }
            figures = {name: mean_defined(part) for name, part in parts_of.items()}
            per_class = [mean_defined(precision[:, :, index, 0, -1]) for index in range(len(names))]
        else:
            # The library cannot compare with an empty set.
            present = {annotation["category_id"] for annotation in truth["annotations"] if not annotation["iscrowd"]}
            worst = 0.0 if present else math.nan
            figures = dict.fromkeys(("map", "map_50", "map_75"), worst)
            figures |= dict.fromkeys((f"map_{area}" for area in AREAS[1:]), math.nan)
            figures |= dict.fromkeys((f"map_{COCO_LIMIT}", "mar", f"mar_{COCO_LIMIT}"), worst)
            per_class = [0.0 if number in present else math.nan for number in range(1, len(names) + 1)]
        if self.per_class:
            figures |= {f"map_per_class/{name}": value for name, value in zip(names, per_class, strict=True)}
        return figures

    def _as_coco(self, images: list[_Image], num_classes: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return truth and predictions, each as the content of an annotation file."""
        common = {
            "images": [{"id": n, "height": i.size[0], "width": i.size[1]} for n, i in enumerate(images, 1)],
            "categories": [{"id": number + 1, "name": str(number)} for number in range(num_classes)],
        }
        true: list[dict[str, Any]] = []
        found: list[dict[str, Any]] = []
        for number, image in enumerate(images, 1):
            crowd = [{"iscrowd": int(each)} for each in image.crowd]
            self._annotate(true, number, image.size, image.boxes, image.labels, image.areas, image.masks, crowd)
            scores = [{"iscrowd": 0, "score": score} for score in image.predicted_scores.tolist()]
            boxes, labels, areas = image.predicted_boxes, image.predicted_labels, image.predicted_areas
            self._annotate(found, number, image.size, boxes, labels, areas, image.predicted_masks, scores)
        return common | {"annotations": true}, common | {"annotations": found}

    def _annotate(
        self,
        annotations: list[dict[str, Any]],
        image: int,
        size: tuple[int, int],
        boxes: NDArray[np.float64],
        labels: NDArray[np.int64],
        areas: NDArray[np.float64],
        masks: list[bytes],
        more: list[dict[str, Any]],
    ) -> None:
        """Append an image's annotations; ``more`` contains further fields of each."""
        rows = zip(boxes.tolist(), labels.tolist(), areas.tolist(), more, strict=True)
        for row, ((x1, y1, x2, y2), label, area, fields) in enumerate(rows):
            entry = {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": label + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": area,
                **fields,
            }
            if self.masks:
                entry["segmentation"] = {"size": size, "counts": masks[row]}
            annotations.append(entry)


def _box_areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Stop Python's search for garbage among a million objects in use: it takes a third of an evaluation's time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
