"""Which of the boxes found on labelled images were hits, and the curves that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.calibration.raw_results import Collected
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.operating_points import Curve
from ocrnet_pl.metrics.image_match import Matching
from ocrnet_pl.metrics.matching import IOU_50, THRESHOLDS, unpacked
from ocrnet_pl.structures import Prediction, Sample, Taxonomy

HIT_IOU = float(THRESHOLDS[IOU_50])
"""IoU with an object of its class from which a box is a hit, if no better box has the object."""
_POINTS = 100
"""Largest number of points of a packed curve."""


class ClassOutcomes(NamedTuple):
    """The boxes of one class, by falling score; those that matched crowds are left out.

    Attributes:
        scores: float32 [D].
        hits: bool [D]; the others are false alarms.
        images: int64 [D], the image of each box, as a place among the labelled images.
        objects: int64 [I], the number of objects in each image.
        known: bool [I], whether the image is labelled for the class.
    """

    scores: NDArray[np.float32]
    hits: NDArray[np.bool_]
    images: NDArray[np.int64]
    objects: NDArray[np.int64]
    known: NDArray[np.bool_]

    def of_images(self, rows: Sequence[int] | NDArray[np.int64]) -> ClassOutcomes:
        """Return what belongs to some of the images, which are numbered anew in the given order."""
        place = np.full(len(self.objects), -1)
        place[rows] = np.arange(len(rows))
        kept = place[self.images] >= 0
        return ClassOutcomes(
            self.scores[kept], self.hits[kept], place[self.images[kept]], self.objects[rows], self.known[rows]
        )

    def curve(self) -> Curve:
        """Return precision and recall over the score, with the point of the best F1 among its points."""
        hits, alarms = np.cumsum(self.hits), np.cumsum(~self.hits)
        # Boxes of equal score pass a threshold together.
        last = np.flatnonzero(np.append(np.diff(self.scores) != 0, True)) if len(self.scores) else np.zeros(0, np.int64)
        # At a score without a new hit there are only more false alarms.
        last = last[np.diff(hits[last], prepend=0) > 0]
        objects = int(self.objects.sum())
        whole = Curve(
            tuple(self.scores[last].tolist()), tuple(hits[last].tolist()), tuple(alarms[last].tolist()), objects
        )
        if len(last) <= _POINTS:
            return whole
        some = np.unique(np.append(np.linspace(0, len(last) - 1, _POINTS - 1).round().astype(int), whole.f1.argmax()))
        columns = (whole.scores, whole.hits, whole.alarms)
        scores, own_hits, own_alarms = (tuple(column[place] for place in some.tolist()) for column in columns)
        return Curve(scores, own_hits, own_alarms, objects)


@dataclass(frozen=True)
class BoxOutcomes:
    """The boxes of all labelled images, by class.

    Attributes:
        classes: One entry per detection class.
    """

    classes: tuple[ClassOutcomes, ...]

    @classmethod
    def of(cls, predictions: Sequence[Prediction], truths: Sequence[Sample], taxonomy: Taxonomy) -> BoxOutcomes:
        """Match predictions to the labels, as COCO does.

        Args:
            predictions: One prediction per image.
            truths: The labels of each image.
            taxonomy: The categories.
        """
        matches = Matching()(predictions, truths)
        found = [each for each in matches if each is not None]
        # Without an image there is still a type to join to.
        labels = np.concatenate([np.zeros(0, np.int64), *(each.labels for each in found)])
        scores = np.concatenate([np.zeros(0, np.float32), *(each.scores for each in found)])
        none = np.zeros(0, np.uint64)
        hits = unpacked(np.concatenate([none, *(each.hits for each in found)]), 0)[:, IOU_50]
        alarms = unpacked(np.concatenate([none, *(each.alarms for each in found)]), 0)[:, IOU_50]
        images = np.repeat(np.arange(len(matches)), [0 if each is None else len(each.labels) for each in matches])
        known = np.stack([truth.supervision.detection.numpy() for truth in truths])
        objects = np.zeros(known.shape, dtype=np.int64)
        for row, each in enumerate(matches):
            if each is not None:
                own = each.objects.labels[~each.excluded[:, 0]]
                objects[row] = np.bincount(own, minlength=taxonomy.num_detection) * known[row]
        classes = []
        for number in range(taxonomy.num_detection):
            own = np.flatnonzero((labels == number) & (hits | alarms))
            own = own[np.argsort(-scores[own], kind="stable")]
            classes.append(ClassOutcomes(scores[own], hits[own], images[own], objects[:, number], known[:, number]))
        return cls(tuple(classes))

    def curves(self, taxonomy: Taxonomy) -> dict[str, Curve]:
        """Return the curve of each class of which there are objects, by name."""
        return {
            category.name: own.curve()
            for category, own in zip(taxonomy.detection_categories, self.classes, strict=True)
            if own.objects.sum()
        }


def outcomes_of(taxonomy: Taxonomy, fusion: FusionPostProcess, items: Sequence[Collected]) -> dict[str, BoxOutcomes]:
    """Return the boxes before and, of networks with both tasks, after fusion, by way (``raw``, ``fused``).

    Args:
        taxonomy: The categories.
        fusion: Fuses with its settings.
        items: The images' results.
    """
    truths = [item.truth for item in items]
    found = {"raw": [Prediction(*item.detections) for item in items]}
    if items[0].logits is not None:
        heat = fusion.settings.temperature
        found["fused"] = [fusion.correct(item.detections, item.semantic(heat), taxonomy).prediction for item in items]
    return {way: BoxOutcomes.of(own, truths, taxonomy) for way, own in found.items()}
