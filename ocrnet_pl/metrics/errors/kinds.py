"""The kinds of errors of one image's predictions."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.metrics.image_match import ImageMatch
from ocrnet_pl.metrics.matching import THRESHOLDS

MATCH = float(THRESHOLDS[0])
"""IoU from which a prediction can be right."""
TOUCH = 0.1
"""IoU up to which a prediction has nothing to do with an object."""
NO_CLASS = -1


class Kind(IntEnum):
    """What is wrong with a prediction, or with an object that nothing finds (Bolya et al., "TIDE", ECCV 2020).

    The first that applies: ``LOCATION``, an object of its class overlaps it too little; ``CLASS``, it lies on an object
    of another class; ``DUPLICATE``, a better prediction has its object; ``BACKGROUND``, there is no object; ``BOTH``,
    what is left, wrong in class and place. ``MISSED`` is an object that no corrected prediction would find.
    """

    HIT = 0
    CLASS = 1
    LOCATION = 2
    BOTH = 3
    DUPLICATE = 4
    BACKGROUND = 5
    MISSED = 6


class ImageErrors(NamedTuple):
    """The errors of one image.

    Attributes:
        kinds: uint8 [D], the kind of each prediction, by falling score.
        corrected: int32 [D], the class of which the prediction would be a hit without its error; ``NO_CLASS`` if an
            object's better prediction would.
        missed: bool [G], whether no prediction finds the object, not even one without its error; crowds are not missed.
    """

    kinds: NDArray[np.uint8]
    corrected: NDArray[np.int32]
    missed: NDArray[np.bool_]

    @classmethod
    def of(cls, found: ImageMatch) -> ImageErrors:
        """Find the errors of an image from its matches at an IoU of 0.5."""
        kinds = np.full(len(found.labels), Kind.BACKGROUND, dtype=np.uint8)
        corrected = np.full(len(found.labels), NO_CLASS, dtype=np.int32)
        crowd, finders = found.objects.crowd, found.finders
        unfound = (finders < 0) & ~crowd
        kinds[finders[finders >= 0]] = Kind.HIT
        rows, columns, shared = found.pairs
        wrong = kinds[rows] != Kind.HIT
        wrong &= ~crowd[columns]
        if not wrong.any():
            return cls(kinds, corrected, unfound)

        rows, columns, shared = rows[wrong], columns[wrong], shared[wrong]
        iou = shared / (found.found_areas[rows] + found.true_areas[columns] - shared)
        same = found.labels[rows] == found.objects.labels[columns]
        count = len(found.labels)
        of_class, class_iou = _best(rows[same], columns[same], iou[same], count)
        of_other, other_iou = _best(rows[~same], columns[~same], iou[~same], count)
        free = kinds != Kind.HIT
        location = free & (class_iou >= TOUCH) & (class_iou <= MATCH)
        other = free & ~location & (other_iou >= MATCH)
        kinds[location], kinds[other] = Kind.LOCATION, Kind.CLASS
        rest = free & ~location & ~other
        # What reaches an object of its class and is no hit was too late.
        kinds[rest & (class_iou > MATCH)] = Kind.DUPLICATE
        kinds[rest & (class_iou <= MATCH) & (np.maximum(class_iou, other_iou) > TOUCH)] = Kind.BOTH

        # Of all predictions that would find an object without their error, the best one does.
        fixable = np.flatnonzero(location | other)
        target = np.where(location, of_class, of_other)[fixable]
        useful = unfound[target]
        target, first = np.unique(target[useful], return_index=True)
        corrected[fixable[useful][first]] = found.objects.labels[target]
        unfound[target] = False
        return cls(kinds, corrected, unfound)


def _best(
    rows: NDArray[np.int64], columns: NDArray[np.int64], iou: NDArray[np.float64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the object that each prediction overlaps most, the first of equal ones, and their IoU; -1 and 0 for none.

    Args:
        rows: int64 [P], the prediction of each pair.
        columns: int64 [P], the object of each pair.
        iou: float64 [P].
        count: Number of predictions.
    """
    column, most = np.full(count, -1, dtype=np.int64), np.zeros(count)
    order = np.lexsort((-columns, iou, rows))
    # The last value that is written stays.
    column[rows[order]], most[rows[order]] = columns[order], iou[order]
    return column, most


def confusion_of(found: ImageMatch, score: float, classes: int) -> NDArray[np.int64]:
    """Return the confusion matrix of one image, int64 [K + 1, K + 1], rows true; the last class is the background.

    Predictions below the score do not count. An object that a prediction of its class finds is on the diagonal, as in
    the figures of precision and recall. Each of the others, by falling score, takes the object that it overlaps most of
    those that are left, at an IoU of at least 0.5, and otherwise lies on the background.

    Args:
        found: The matches of the image.
        score: Smallest score that counts.
        classes: Number of classes K.
    """
    crowd = found.objects.crowd
    shown = np.append(found.scores >= np.float32(score), False)
    right = shown[found.finders] & ~crowd
    left = ~right & ~crowd
    predicted, true = [found.objects.labels[right]], [found.objects.labels[right]]
    # Whatever is excused by a crowd is neither a hit nor a false alarm.
    alarm = (found.alarms & np.uint64(1)).astype(bool) & shown[:-1]
    rows, columns, shared = found.pairs
    near = alarm[rows] & left[columns]
    if near.any():
        rows, columns, shared = rows[near], columns[near], shared[near]
        iou = shared / (found.found_areas[rows] + found.true_areas[columns] - shared)
        order = np.lexsort((columns, -iou, rows))
        for place in order[iou[order] >= MATCH].tolist():
            row, column = rows[place], columns[place]
            if alarm[row] and left[column]:
                alarm[row] = left[column] = False
                predicted.append(found.labels[row : row + 1])
                true.append(found.objects.labels[column : column + 1])
    none = np.full(1, classes)
    predicted += [found.labels[alarm], none.repeat(left.sum())]
    true += [none.repeat(alarm.sum()), found.objects.labels[left]]
    places = np.concatenate(true) * (classes + 1) + np.concatenate(predicted)
    return np.bincount(places, minlength=(classes + 1) ** 2).reshape(classes + 1, classes + 1)
