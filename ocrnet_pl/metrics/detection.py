"""COCO mean average precision of boxes or masks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.distributed.gather import compute_on_first
from ocrnet_pl.metrics.base import Metric
from ocrnet_pl.metrics.coco_evaluation import Matched, evaluate, mean_defined, ranks_in_class
from ocrnet_pl.metrics.figures import BOXES, MASKS
from ocrnet_pl.metrics.matching import (
    AREAS,
    COCO_LIMIT,
    IOU_50,
    IOU_75,
    Pairs,
    box_areas,
    match,
    outside_areas,
)
from ocrnet_pl.metrics.runs import Overlay, Runs, flat
from ocrnet_pl.metrics.shared import OncePerBatch
from ocrnet_pl.structures import Prediction, Sample, Taxonomy


class TrueObjects(NamedTuple):
    """The objects of one image.

    Attributes:
        boxes: float64 [G, 4], xyxy.
        labels: int64 [G].
        crowd: bool [G].
        pixels: int64 [G], the number of pixels of each in the instance map; None without one.
    """

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    pixels: NDArray[np.int64] | None

    @classmethod
    def of(cls, truth: Sample) -> TrueObjects:
        """Read the objects of a sample."""
        pixels = None
        if truth.instances is not None:
            plane = flat(truth.instances)
            runs = Runs.of(plane)
            pixels = runs.pixels(plane[runs.starts], len(truth.labels) + 1)[1 : len(truth.labels) + 1]
        boxes = np.asarray(truth.boxes.as_subclass(Tensor), dtype=np.float64).reshape(-1, 4)
        return cls(boxes, truth.labels.numpy(), truth.crowd.numpy(), pixels)


class DetectionMetric(Metric):
    """Average precision as COCO computes it, equal to that of pycocotools.

    Each image's predictions are matched to its objects at once, and only what the curves are made of is kept, so that a
    validation of any length fits into memory. All predictions count: only the decoder's ``max_detections`` limits them.
    ``map_100`` and ``mar_100`` are COCO's own figures, which count the best 100 of each image and class.

    A true object's size is its area in the instance map if the sample has one, else the area of its box. Images without
    detection supervision are left out; predictions of classes that an image was not labelled for are dropped.

    Args:
        taxonomy: The categories.
        masks: Whether masks are compared instead of boxes; the keys then start with ``mask_``, and samples without an
            instance map are left out.
        per_class: Whether ``map_per_class/<name>`` is added.
        true_objects: Results of ``TrueObjects.of``, shared by metrics of the same batches; None for separate ones.
        overlays: Results of ``Overlay.of``, shared by metrics of the same predictions; None for separate ones.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        masks: bool = False,
        per_class: bool = True,
        true_objects: OncePerBatch[TrueObjects] | None = None,
        overlays: OncePerBatch[Overlay] | None = None,
    ) -> None:
        super().__init__(taxonomy)
        self.figures = MASKS if masks else BOXES
        self.masks = masks
        self.per_class = per_class
        self._true_objects = true_objects or OncePerBatch(TrueObjects.of)
        self._overlays = overlays or OncePerBatch(Overlay.of)
        self._parts: list[Matched] = []

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self._true_objects.reset()
        self._overlays.reset()
        self._parts = []

    def update(self, predictions: list[Prediction], truths: list[Sample]) -> None:
        """Take in one batch."""
        overlays: list[Overlay] | list[None] = [None] * len(truths)
        if self.masks:
            overlays = self._overlays(predictions, truths)
        rows = zip(predictions, truths, self._true_objects(truths), overlays, strict=True)
        found = [
            self._matched(prediction, truth, objects, overlay)
            for prediction, truth, objects, overlay in rows
            if truth.supervision.detection.any()
            and not (self.masks and (truth.instances is None or prediction.instances is None))
        ]
        if found:
            self._parts.append(Matched.joined(found))

    def _matched(self, prediction: Prediction, truth: Sample, objects: TrueObjects, overlay: Overlay | None) -> Matched:
        true_areas = box_areas(objects.boxes)
        # An object's range is that of its pixels; a crowd, or an object that others cover completely, has none.
        sizes = true_areas if objects.pixels is None else np.where(objects.pixels > 0, objects.pixels, true_areas)

        labels, scores = prediction.labels.numpy(), prediction.scores.float().numpy()
        known = truth.supervision.detection.numpy()[labels]
        order = np.argsort(-scores, kind="stable")
        order = order[known[order]]
        labels, scores = labels[order], scores[order]
        if overlay is None:
            boxes = prediction.boxes.double().numpy()[order]
            areas, pairs = box_areas(boxes), Pairs.of_boxes(boxes, objects.boxes)
        else:
            assert objects.pixels is not None and overlay.true_instance is not None
            true_areas = objects.pixels.astype(np.float64)
            # The rows of those that are left, by falling score, as in ``order``.
            number = np.zeros(len(known) + 1, dtype=np.int64)
            number[order + 1] = np.arange(1, len(order) + 1)
            found = number[overlay.found_instance]
            areas = overlay.runs.pixels(found, len(order) + 1)[1:].astype(np.float64)
            pairs = Pairs.of_masks(found, overlay.true_instance, overlay.runs.lengths)
        same = labels[pairs.rows] == objects.labels[pairs.columns]
        pairs = Pairs(*(each[same] for each in pairs))
        excluded = outside_areas(sizes) | objects.crowd[:, None]
        iou = pairs.ious(areas, true_areas, objects.crowd)
        hits, alarms = match(pairs.rows, pairs.columns, iou, excluded, objects.crowd, outside_areas(areas))
        places = objects.labels[:, None] * len(AREAS) + np.arange(len(AREAS))
        counts = np.bincount(places[~excluded], minlength=self.taxonomy.num_detection * len(AREAS))
        # Images rank by their ids, numbers as numbers, wherever they were evaluated.
        key = f"{type(truth.image_id).__name__} {str(truth.image_id).rjust(24)}"
        count = np.array([len(order)], dtype=np.int32)
        objects_of = counts.reshape(-1, len(AREAS))
        return Matched([key], count, labels.astype(np.uint16), ranks_in_class(labels), scores, hits, alarms, objects_of)

    def compute(self) -> dict[str, Tensor]:
        """Return the figures over all processes' images; NaN where there is nothing to measure."""
        prefix = "mask_" if self.masks else ""
        # One array of each kind takes less than many small ones, here and on the way.
        self._parts = [Matched.joined(self._parts)] if self._parts else []
        figures = compute_on_first(self._parts, self._figures)
        return {prefix + name: torch.tensor(value, dtype=torch.float64) for name, value in figures.items()}

    def _figures(self, parts: list[list[Matched]]) -> dict[str, float]:
        found = [each for part in parts for each in part] or [Matched.nothing(self.taxonomy.num_detection)]
        precision, recall = evaluate(Matched.joined(found))
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
        if self.per_class:
            for index, category in enumerate(self.taxonomy.detection_categories):
                figures[f"map_per_class/{category.name}"] = mean_defined(precision[:, :, index, 0, -1])
        return figures
