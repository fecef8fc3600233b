"""The errors of many images, packed: 5 bytes for each prediction and 7 for each object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.metrics.errors.kinds import ImageErrors, Kind, confusion_of
from ocrnet_pl.metrics.image_match import ImageMatch
from ocrnet_pl.metrics.matching import Pairs, box_areas

NOT_FOUND = -1.0


class PackedErrors(NamedTuple):
    """The errors of some images; predictions in the order of ``Matched``, objects without the crowds.

    Attributes:
        kinds: uint8 [D], the kind of each prediction.
        corrected: int32 [D], the class of which each would be a hit without its error, or ``NO_CLASS``.
        counts: int32 [I], the number of objects of each image.
        labels: uint16 [N], the class of each object.
        found: float32 [N], the score of the prediction that finds it, or ``NOT_FOUND``.
        missed: bool [N], whether no prediction would find it, not even one without its error.
        tallies: int32 [I, 3], the numbers of hits, false alarms and misses of each image above the score.
        loudest: float32 [I], the highest score of a false alarm, 0 for none.
        confusion: int64 [K + 1, K + 1], rows true, the last class the background.
    """

    kinds: NDArray[np.uint8]
    corrected: NDArray[np.int32]
    counts: NDArray[np.int32]
    labels: NDArray[np.uint16]
    found: NDArray[np.float32]
    missed: NDArray[np.bool_]
    tallies: NDArray[np.int32]
    loudest: NDArray[np.float32]
    confusion: NDArray[np.int64]

    @classmethod
    def of(cls, match: ImageMatch, score: float, classes: int, confused: bool = True) -> PackedErrors:
        """Find the errors of one image.

        Args:
            match: The matches of the image.
            score: Smallest score of predictions that count in the confusion matrix and in the tallies.
            classes: Number of classes K.
            confused: Whether the confusion matrix is of use; otherwise it is zero.
        """
        errors = ImageErrors.of(match)
        counted = ~match.objects.crowd
        scores = np.append(match.scores, np.float32(NOT_FOUND))
        alarms = (match.alarms & np.uint64(1)).astype(bool)
        shown = match.scores >= np.float32(score)
        hits, wrong = int((shown & (errors.kinds == Kind.HIT)).sum()), int((shown & alarms).sum())
        objects = int(counted.sum())
        return cls(
            errors.kinds,
            errors.corrected,
            np.array([objects], dtype=np.int32),
            match.objects.labels[counted].astype(np.uint16),
            scores[match.finders[counted]],
            errors.missed[counted],
            np.array([[hits, wrong, objects - hits]], dtype=np.int32),
            np.array([match.scores[alarms].max(initial=0)], dtype=np.float32),
            confusion_of(match, score, classes) if confused else np.zeros((classes + 1, classes + 1), np.int64),
        )

    @classmethod
    def nothing(cls, classes: int) -> PackedErrors:
        """Return no image."""
        float_, int_ = np.zeros(0, np.float32), np.zeros(0, np.int32)
        confusion = np.zeros((classes + 1, classes + 1), np.int64)
        kinds, labels, missed = np.zeros(0, np.uint8), np.zeros(0, np.uint16), np.zeros(0, bool)
        return cls(kinds, int_, int_, labels, float_, missed, np.zeros((0, 3), np.int32), float_, confusion)

    @classmethod
    def joined(cls, parts: Sequence[PackedErrors]) -> PackedErrors:
        """Return at least one part as one, in the given order."""
        rows: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in cls._fields if name != "confusion"
        }
        return cls(**rows, confusion=np.sum([part.confusion for part in parts], axis=0))


class Surroundings(NamedTuple):
    """The size of some objects, and how crowded it is around them; crowds are left out.

    Attributes:
        sizes: float32 [N], the square root of the area, in pixels.
        overlaps: float32 [N], the highest IoU of the object's box with that of another object.
    """

    sizes: NDArray[np.float32]
    overlaps: NDArray[np.float32]

    @classmethod
    def of(cls, match: ImageMatch) -> Surroundings:
        """Measure the objects of one image."""
        counted = ~match.objects.crowd
        boxes = match.objects.boxes[counted]
        size = np.sqrt(match.sizes[counted]).astype(np.float32)
        overlaps = np.zeros(len(boxes), dtype=np.float32)
        areas, pairs = box_areas(boxes), Pairs.of_boxes(boxes, boxes)
        others = pairs.rows != pairs.columns
        pairs = Pairs(*(each[others] for each in pairs))
        iou = pairs.ious(areas, areas, np.zeros(len(boxes), dtype=bool))
        np.maximum.at(overlaps, pairs.rows, iou.astype(np.float32))
        return cls(size, overlaps)

    @classmethod
    def joined(cls, parts: Sequence[Surroundings]) -> Surroundings:
        """Return the objects of all parts, in the given order."""
        empty = np.zeros(0, np.float32)
        return (
            cls(*(np.concatenate([empty, *each]) for each in zip(*parts, strict=True))) if parts else cls(empty, empty)
        )
