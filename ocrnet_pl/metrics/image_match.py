"""What one image's predictions and objects have to do with each other, for all metrics of objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.metrics.matching import Pairs, box_areas, match, outside_areas
from ocrnet_pl.metrics.runs import Overlay, Runs, flat
from ocrnet_pl.metrics.shared import OncePerBatch
from ocrnet_pl.structures import Prediction, Sample


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


class ImageMatch(NamedTuple):
    """The predictions of one image, by falling score, matched to its objects.

    Attributes:
        key: Images rank by it where scores are equal.
        objects: The objects.
        excluded: bool [G, 4], whether each object does not count in each of COCO's ranges of areas.
        sizes: float64 [G], the area by which each object belongs to a range.
        labels: int64 [D], the classes of the predictions.
        scores: float32 [D].
        pairs: All pairs of a prediction and an object that share something, whatever their classes.
        found_areas: float64 [D], the areas of the predictions.
        true_areas: float64 [G], the areas of the objects that were compared.
        hits: uint64 [D], where a prediction is a hit, by the bits of ``match``.
        alarms: uint64 [D], where it is a false alarm.
        finders: int64 [G], the prediction that finds each object at an IoU of 0.5; -1 for none.
    """

    key: str
    objects: TrueObjects
    excluded: NDArray[np.bool_]
    sizes: NDArray[np.float64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    pairs: Pairs
    found_areas: NDArray[np.float64]
    true_areas: NDArray[np.float64]
    hits: NDArray[np.uint64]
    alarms: NDArray[np.uint64]
    finders: NDArray[np.int64]


class Matching:
    """Matches the predictions of every image of a batch, once for all metrics that ask.

    Predictions of classes that an image was not labelled for are dropped.

    Args:
        masks: Whether masks are compared instead of boxes.
        true_objects: Results of ``TrueObjects.of``, shared by several matchings of the same batches.
        overlays: Results of ``Overlay.of``, shared by metrics of the same predictions.
    """

    def __init__(
        self,
        masks: bool = False,
        true_objects: OncePerBatch[TrueObjects] | None = None,
        overlays: OncePerBatch[Overlay] | None = None,
    ) -> None:
        self.masks = masks
        self._true_objects = true_objects or OncePerBatch(TrueObjects.of)
        self._overlays = overlays or OncePerBatch(Overlay.of)
        self._matches: OncePerBatch[ImageMatch | None] = OncePerBatch(_match_masks if masks else _match_boxes)

    def __call__(self, predictions: Sequence[Prediction], truths: Sequence[Sample]) -> list[ImageMatch | None]:
        """Return the matches; None for an image without detection supervision, or without an instance map for masks."""
        overlays = [self._overlays(predictions, truths)] if self.masks else []
        return self._matches(predictions, truths, self._true_objects(truths), *overlays)

    def reset(self) -> None:
        """Forget the batch."""
        self._true_objects.reset()
        self._overlays.reset()
        self._matches.reset()


def _match_boxes(prediction: Prediction, truth: Sample, objects: TrueObjects) -> ImageMatch | None:
    if not truth.supervision.detection.any():
        return None
    order, labels, scores = known_predictions(prediction, truth)
    boxes = prediction.boxes.double().numpy()[order]
    areas = box_areas(boxes), box_areas(objects.boxes)
    return _matched(truth, objects, labels, scores, Pairs.of_boxes(boxes, objects.boxes), *areas)


def _match_masks(prediction: Prediction, truth: Sample, objects: TrueObjects, overlay: Overlay) -> ImageMatch | None:
    if not truth.supervision.detection.any() or truth.instances is None or prediction.instances is None:
        return None
    assert objects.pixels is not None and overlay.true_instance is not None and overlay.found_instance is not None
    order, labels, scores = known_predictions(prediction, truth)
    # The rows of those that are left, by falling score, as in ``order``.
    number = np.zeros(len(prediction.labels) + 1, dtype=np.int64)
    number[order + 1] = np.arange(1, len(order) + 1)
    found = number[overlay.found_instance]
    areas = overlay.runs.pixels(found, len(order) + 1)[1:].astype(np.float64)
    pairs = Pairs.of_masks(found, overlay.true_instance, overlay.runs.lengths)
    return _matched(truth, objects, labels, scores, pairs, areas, objects.pixels.astype(np.float64))


def known_predictions(
    prediction: Prediction, truth: Sample
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows of the predictions that count, by falling score, with their labels and scores."""
    labels, scores = prediction.labels.numpy(), prediction.scores.float().numpy()
    known = truth.supervision.detection.numpy()[labels]
    order = np.argsort(-scores, kind="stable")
    order = order[known[order]]
    return order, labels[order], scores[order]


def _matched(
    truth: Sample,
    objects: TrueObjects,
    labels: NDArray[np.int64],
    scores: NDArray[np.float32],
    pairs: Pairs,
    found_areas: NDArray[np.float64],
    true_areas: NDArray[np.float64],
) -> ImageMatch:
    # An object's range is that of its pixels; a crowd, or an object that others cover completely, has none.
    areas = box_areas(objects.boxes)
    sizes = areas if objects.pixels is None else np.where(objects.pixels > 0, objects.pixels, areas)
    excluded = outside_areas(sizes) | objects.crowd[:, None]
    same = labels[pairs.rows] == objects.labels[pairs.columns]
    own = Pairs(*(each[same] for each in pairs))
    iou = own.ious(found_areas, true_areas, objects.crowd)
    matches = match(own.rows, own.columns, iou, excluded, objects.crowd, outside_areas(found_areas))
    # Images rank by their ids, numbers as numbers, wherever they were evaluated.
    key = f"{type(truth.image_id).__name__} {str(truth.image_id).rjust(24)}"
    return ImageMatch(key, objects, excluded, sizes, labels, scores, pairs, found_areas, true_areas, *matches)
