"""Figures of many random choices of the same images, for intervals of the figures and of their differences."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.metrics.errors.image_table import ClassSums
from ocrnet_pl.report.image_file import ImageFile

FIGURES = ("map", "miou", "pq")
"""The figures that are computed, by their names in the table of figures."""

_RECALLS = np.linspace(0.0, 1.0, 101)
_TOGETHER = 2**22
"""Number of weights of predictions that are held at once."""


def random_weights(images: int, choices: int, seed: int) -> NDArray[np.float32]:
    """Return how often each image is in each random choice with repetition, float32 [B, I].

    Args:
        images: Number of images I.
        choices: Number of choices B.
        seed: Seed; the same for runs that are compared, so that their choices are the same.
    """
    random = np.random.default_rng(seed)
    return random.multinomial(images, np.full(images, 1 / images), choices).astype(np.float32)


def figures_of(file: ImageFile, weights: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Return the figures over weighted images, float64 [B] each; only those that the images have.

    With all weights 1, they are those of the evaluation.

    Args:
        file: What was found in each image.
        weights: Weight of each image, whole numbers, float32 [B, I].
    """
    found = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        if file.boxed.any():
            found["map"] = _average_precision(file, weights)
        if len(file.pixels.values):
            hit, true, predicted = _class_sums(file.pixels, weights, file.taxonomy.num_semantic)
            found["miou"] = _mean_defined(hit / (true + predicted - hit))
        if len(file.segments.values):
            iou, hits, alarms, misses = _class_sums(file.segments, weights, len(file.taxonomy.categories))
            found["pq"] = _mean_defined(iou / (hits + (alarms + misses) / 2))
    return {name: values for name, values in found.items() if np.isfinite(values).any()}


def _mean_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the last axis of the values that are defined, NaN without any."""
    defined = np.isfinite(values)
    mean: NDArray[np.float64] = np.where(defined, values, 0).sum(-1) / defined.sum(-1)
    return mean


def _class_sums(sums: ClassSums, weights: NDArray[np.float32], classes: int) -> Iterator[NDArray[np.float64]]:
    """Yield the weighted sums of each kind of value, float64 [B, classes]."""
    dense = np.zeros((weights.shape[1], classes))
    for column in range(sums.values.shape[1]):
        dense[sums.images, sums.classes] = sums.values[:, column]
        yield weights.astype(np.float64) @ dense


def _average_precision(file: ImageFile, weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return COCO's box mAP over all predictions, float64 [B]."""
    classes = file.taxonomy.num_detection
    (objects,) = _class_sums(file.objects, weights, classes)
    order = np.lexsort((np.arange(len(file.scores)), file.image, -file.scores, file.labels))
    ends = np.searchsorted(file.labels[order], np.arange(classes + 1))
    result = np.full((len(weights), classes), np.nan)
    for number in np.flatnonzero(objects.any(0)).tolist():
        own = order[ends[number] : ends[number + 1]]
        hits = file.hits[own]
        # What ranks below the last hit changes nothing.
        own = own[: int(np.flatnonzero(hits.any(1))[-1]) + 1] if hits.any() else own[:0]
        hits, alarms, image = file.hits[own], file.alarms[own], file.image[own]
        step = max(_TOGETHER // max(len(own), 1), 1)
        for start in range(0, len(weights), step):
            part = slice(start, start + step)
            weight = np.ascontiguousarray(weights[part][:, image])
            result[part, number] = _of_class(weight, hits, alarms, objects[part, number])
    return _mean_defined(result)


def _of_class(
    weight: NDArray[np.float32], hits: NDArray[np.bool_], alarms: NDArray[np.bool_], objects: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the average precision of one class, over all IoU thresholds, float64 [B]; NaN without objects.

    Args:
        weight: float32 [B, D], by falling score.
        hits: bool [D, T].
        alarms: bool [D, T].
        objects: float64 [B].
    """
    total = np.zeros(len(weight))
    thresholds = hits.shape[1]
    counted = hits | alarms
    for threshold in range(thresholds):
        # Without crowds, the same predictions count at all thresholds.
        if not threshold or (counted[:, threshold] != counted[:, threshold - 1]).any():
            seen = (weight * counted[:, threshold]).cumsum(1)
        places = np.flatnonzero(hits[:, threshold])
        if not len(places):
            continue
        # Precision is highest at hits.
        right = weight[:, places].cumsum(1, dtype=np.float64)
        precision = right / np.maximum(seen[:, places], 1)
        precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        for row in np.flatnonzero(objects).tolist():
            first = np.searchsorted(right[row] / objects[row], _RECALLS)
            total[row] += precision[row, first[first < len(places)]].sum(dtype=np.float64)
    return np.where(objects > 0, total / (thresholds * len(_RECALLS)), np.nan)
