"""What the errors of boxes or masks amount to, over all images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.metrics.coco_evaluation import Matched, average_precision, image_places
from ocrnet_pl.metrics.errors.kinds import NO_CLASS, Kind
from ocrnet_pl.metrics.errors.packed import PackedErrors

ERRORS = (Kind.CLASS, Kind.LOCATION, Kind.BOTH, Kind.DUPLICATE, Kind.BACKGROUND, Kind.MISSED)
"""The kinds of errors, in TIDE's order."""


class Curve(NamedTuple):
    """Precision and recall of one class over the smallest score that counts, at an IoU of 0.5.

    Attributes:
        scores: float32 [T], every score that occurs, falling.
        precision: float64 [T].
        recall: float64 [T]; NaN without objects.
    """

    scores: NDArray[np.float32]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]

    @property
    def f1(self) -> NDArray[np.float64]:
        """The harmonic mean of both, float64 [T]; 0 where both are 0."""
        total = self.precision + self.recall
        f1: NDArray[np.float64] = 2 * self.precision * self.recall / np.where(total == 0, 1, total)
        return f1

    def at(self, score: float) -> tuple[float, float, float]:
        """Return precision, recall and F1 of what has at least a score; NaN where nothing has."""
        place = int(np.searchsorted(-self.scores, -np.float32(score), "right")) - 1
        if place < 0:
            return float("nan"), 0.0, 0.0
        return float(self.precision[place]), float(self.recall[place]), float(self.f1[place])

    @property
    def best(self) -> float | None:
        """The score at which F1 is highest; None where there is nothing to find, or nothing was found."""
        f1 = np.nan_to_num(self.f1)
        return float(self.scores[f1.argmax()]) if f1.any() else None


@dataclass(frozen=True)
class Costs:
    """How much higher AP 50 would be without the errors of a kind, each alone, 0 to 1.

    Attributes:
        ap: AP 50, the mean over the classes that have objects; NaN if none has.
        by_kind: The cost of each kind; not less than 0.
        alarms: The cost of all false alarms together.
        misses: The cost of all objects that are not found.
    """

    ap: float
    by_kind: dict[Kind, float]
    alarms: float
    misses: float


@dataclass(frozen=True)
class ObjectErrors:
    """The errors of boxes or masks.

    Attributes:
        matched: The predictions, matched to the objects.
        errors: Their errors.
        curves: One per class.
        costs: What each kind of error costs.
        counts: Number of errors of each kind.
    """

    matched: Matched
    errors: PackedErrors
    curves: tuple[Curve, ...]
    costs: Costs
    counts: dict[Kind, int]

    @classmethod
    def of(cls, matched: Matched, errors: PackedErrors) -> ObjectErrors:
        """Analyse the predictions of all images.

        Args:
            matched: The predictions, image by image.
            errors: Their errors, in the same order.
        """
        kinds = errors.kinds[_counted(matched) & (errors.kinds != Kind.HIT)]
        numbers = np.bincount(kinds, minlength=len(Kind))
        numbers[Kind.MISSED] = errors.missed.sum()
        counts = {kind: int(numbers[kind]) for kind in ERRORS}
        return cls(matched, errors, _curves(matched), _costs(matched, errors), counts)

    @property
    def objects(self) -> NDArray[np.int64]:
        """The number of objects of each class, int64 [K]."""
        return self.matched.objects[:, 0]


def _counted(matched: Matched) -> NDArray[np.bool_]:
    """Return whether each prediction is a hit or a false alarm at an IoU of 0.5."""
    return ((matched.hits | matched.alarms) & np.uint64(1)).astype(bool)


def _curves(matched: Matched) -> tuple[Curve, ...]:
    classes = len(matched.objects)
    order = np.lexsort((-matched.scores, matched.labels))
    order = order[_counted(matched)[order]]
    hits = (matched.hits[order] & np.uint64(1)).astype(np.int64)
    labels, scores = matched.labels[order], matched.scores[order]
    ends = np.searchsorted(labels, np.arange(classes + 1))
    curves = []
    for number in range(classes):
        own = slice(ends[number], ends[number + 1])
        score, right = scores[own], hits[own].cumsum()
        # Equal scores are above the threshold together.
        last = np.flatnonzero(np.append(score[1:] != score[:-1], True)) if len(score) else np.zeros(0, np.int64)
        objects = int(matched.objects[number, 0])
        recall = right[last] / objects if objects else np.full(len(last), np.nan)
        curves.append(Curve(score[last], right[last] / (last + 1), recall))
    return tuple(curves)


def _costs(matched: Matched, errors: PackedErrors) -> Costs:
    objects = matched.objects[:, 0]
    # As COCO ranks them; the order does not depend on the errors.
    order = np.lexsort((np.arange(len(matched.scores)), image_places(matched), -matched.scores))
    labels = matched.labels[order].astype(np.int64)
    hits = (matched.hits[order] & np.uint64(1)).astype(bool)
    alarms = (matched.alarms[order] & np.uint64(1)).astype(bool)
    kinds, corrected = errors.kinds[order], errors.corrected[order]
    classes = np.flatnonzero(objects)

    def ap(
        labels: NDArray[np.int64], hits: NDArray[np.bool_], alarms: NDArray[np.bool_], left: NDArray[np.int64]
    ) -> float:
        by_class = np.argsort(labels, kind="stable")
        ends = np.searchsorted(labels[by_class], np.arange(len(objects) + 1))
        values = []
        for number in classes.tolist():
            own = by_class[ends[number] : ends[number + 1]]
            # A class of which nothing is left to find, and nothing wrong was found, has no average precision.
            if left[number] or (hits[own] | alarms[own]).any():
                values.append(average_precision(hits[own], alarms[own], int(left[number])))
        # Where nothing is left to find, and nothing wrong was found, all is right.
        return float(np.mean(values)) if values else 1.0 if len(classes) else float("nan")

    now = ap(labels, hits, alarms, objects)
    by_kind = {}
    for kind in ERRORS[:-1]:
        wrong = kinds == kind
        fixed = wrong & (corrected != NO_CLASS)
        new = ap(np.where(fixed, corrected, labels), hits | fixed, alarms & ~wrong, objects)
        by_kind[kind] = max(new - now, 0.0)
    unreachable = np.bincount(errors.labels[errors.missed], minlength=len(objects))
    by_kind[Kind.MISSED] = max(ap(labels, hits, alarms, objects - unreachable) - now, 0.0)
    found = np.bincount(labels[hits], minlength=len(objects))
    # Without false alarms, precision is 1 as far as recall reaches.
    clean = ap(labels, hits, np.zeros_like(alarms), objects)
    return Costs(now, by_kind, clean - now, ap(labels, hits, alarms, found) - now)
