"""COCO's precision and recall from matched predictions, which are packed: 24 bytes for each, whatever its mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.metrics.matching import AREAS, COCO_LIMIT, THRESHOLDS, unpacked

_RECALLS = np.linspace(0.0, 1.0, 101)
"""COCO's recalls at which it reads the precision."""
_MOST = np.iinfo(np.uint16).max


class Matched(NamedTuple):
    """The predictions of some images, matched to their objects; image by image, those of an image by falling score.

    Attributes:
        keys: One per image; images rank by them where scores are equal.
        counts: int32 [I], the number of predictions of each image.
        labels: uint16 [D], the classes.
        ranks: uint16 [D], the number of better predictions of the same image and class, at most 65,535.
        scores: float32 [D].
        hits: uint64 [D], where a prediction is a hit, by the bits of ``match``.
        alarms: uint64 [D], where it is a false alarm.
        objects: int64 [K, 4], the number of objects of each class in each range of areas; crowds are not counted.
    """

    keys: list[str]
    counts: NDArray[np.int32]
    labels: NDArray[np.uint16]
    ranks: NDArray[np.uint16]
    scores: NDArray[np.float32]
    hits: NDArray[np.uint64]
    alarms: NDArray[np.uint64]
    objects: NDArray[np.int64]

    @classmethod
    def joined(cls, parts: Sequence[Matched]) -> Matched:
        """Return at least one part as one, in the given order."""
        return cls(
            [key for part in parts for key in part.keys],
            np.concatenate([part.counts for part in parts]),
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.ranks for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.hits for part in parts]),
            np.concatenate([part.alarms for part in parts]),
            np.sum([part.objects for part in parts], axis=0),
        )

    @classmethod
    def nothing(cls, classes: int) -> Matched:
        """Return no image."""
        bits, small = np.zeros(0, np.uint64), np.zeros(0, np.uint16)
        objects = np.zeros((classes, len(AREAS)), np.int64)
        return cls([], np.zeros(0, np.int32), small, small, np.zeros(0, np.float32), bits, bits, objects)


class CocoArrays(NamedTuple):
    """The arrays from which COCO computes its figures; -1 where there is nothing to measure.

    The last axis is the limit on the number of predictions per image and class: first COCO's 100, then none.

    Attributes:
        precision: float64 [T, R, K, A, M], by IoU threshold, recall, class, area and limit.
        recall: float64 [T, K, A, M], the highest recall reached.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def ranks_in_class(labels: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Return the number of predictions before each one that have its class, at most 65,535."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    ranks = np.empty(len(labels), dtype=np.int64)
    ranks[order] = np.arange(len(labels)) - np.searchsorted(ordered, ordered)
    return ranks.clip(max=_MOST).astype(np.uint16)


def image_places(matched: Matched) -> NDArray[np.uint32]:
    """Return, for each prediction, the place of its image among all, by their keys."""
    place = np.empty(len(matched.keys), dtype=np.uint32)
    place[np.argsort(np.array(matched.keys, dtype=str), kind="stable")] = np.arange(len(matched.keys))
    return np.repeat(place, matched.counts)


def evaluate(matched: Matched) -> CocoArrays:
    """Compute precision and recall of every class, as pycocotools accumulates them."""
    classes = len(matched.objects)
    shape = (classes, len(AREAS), 2)
    precision = np.full((len(THRESHOLDS), len(_RECALLS), *shape), -1.0)
    recall = np.full((len(THRESHOLDS), *shape), -1.0)

    image = image_places(matched)
    by_class = np.argsort(matched.labels, kind="stable")
    ends = np.searchsorted(matched.labels[by_class], np.arange(classes + 1))
    for number in range(classes):
        own = by_class[ends[number] : ends[number + 1]]
        own = own[np.lexsort((matched.ranks[own], image[own], -matched.scores[own]))]
        few = matched.ranks[own] < COCO_LIMIT
        for area, objects in enumerate(matched.objects[number].tolist()):
            if not objects:
                continue
            hits, alarms = unpacked(matched.hits[own], area), unpacked(matched.alarms[own], area)
            for limit in (0, 1):
                if limit and few.all():
                    precision[:, :, number, area, 1] = precision[:, :, number, area, 0]
                    recall[:, number, area, 1] = recall[:, number, area, 0]
                    continue
                kept = slice(None) if limit else few
                curve = _curve(hits[kept], alarms[kept], objects)
                precision[:, :, number, area, limit], recall[:, number, area, limit] = curve
    return CocoArrays(precision, recall)


def _curve(
    hits: NDArray[np.bool_], alarms: NDArray[np.bool_], objects: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return precision [T, R] and highest recall [T] of predictions [D, T] by falling score."""
    thresholds = hits.shape[1]
    precision = np.zeros((thresholds, len(_RECALLS)))
    recall = np.zeros(thresholds)
    for threshold in range(thresholds if len(hits) else 0):
        right, wrong = hits[:, threshold].cumsum(), alarms[:, threshold].cumsum()
        reached = right / objects
        own = right / np.maximum(right + wrong, 1)
        # The best precision at this recall or any higher one.
        own = np.maximum.accumulate(own[::-1])[::-1]
        first = np.searchsorted(reached, _RECALLS)
        within = first < len(own)
        precision[threshold, within] = own[first[within]]
        recall[threshold] = reached[-1]
    return precision, recall


def average_precision(hits: NDArray[np.bool_], alarms: NDArray[np.bool_], objects: int) -> float:
    """Return COCO's average precision at one threshold; 0 without objects.

    Args:
        hits: bool [D], whether each prediction of a class is a hit, by falling score.
        alarms: bool [D], whether it is a false alarm.
        objects: Number of objects of the class.
    """
    return float(_curve(hits[:, None], alarms[:, None], objects)[0].mean()) if objects else 0.0


def mean_defined(values: NDArray[np.float64]) -> float:
    """Return the mean of the values that COCO defined, NaN if there are none."""
    values = values[values > -1]
    return float(values.mean()) if values.size else float("nan")
