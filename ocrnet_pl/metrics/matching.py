"""COCO's matching of the predictions of one image to its objects, for all thresholds and areas at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

COCO_LIMIT = 100
"""Number of predictions per image and class that COCO's own figures count."""
AREAS = ("all", "small", "medium", "large")
"""COCO's ranges of the objects' areas."""
_LIMITS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])
"""The smallest and the largest area of each range, in pixels."""
THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's IoU thresholds."""
IOU_50, IOU_75 = 0, 5
"""Positions of the IoU thresholds 0.5 and 0.75 in ``THRESHOLDS``."""

_TOGETHER = 2**20
"""Number of pairs of a prediction and an object that a table may have."""
_EVERY_AREA = sum(1 << (area * len(THRESHOLDS)) for area in range(len(AREAS)))
"""The bit of the lowest threshold, in every range of areas."""
_LOWEST = np.uint64(1)
"""The bit of the lowest threshold, in the range of all areas."""
_ALL = ((1 << len(THRESHOLDS)) - 1) * _EVERY_AREA
_REACHED = np.array([((1 << count) - 1) * _EVERY_AREA for count in range(len(THRESHOLDS) + 1)], np.uint64)
"""The bits of the lowest thresholds, by their number."""
_IN_AREA = np.array([((1 << len(THRESHOLDS)) - 1) << (area * len(THRESHOLDS)) for area in range(len(AREAS))], np.uint64)


def outside_areas(areas: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return, bool [N, 4], whether areas [N] are outside each of COCO's ranges."""
    return (areas[:, None] < _LIMITS[:, 0]) | (areas[:, None] > _LIMITS[:, 1])


def box_areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the areas [N] of boxes [N, 4], xyxy."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


class Pairs(NamedTuple):
    """Pairs of a prediction and an object that share something.

    Attributes:
        rows: int64 [P], the prediction of each.
        columns: int64 [P], the object of each.
        shared: float64 [P], the area that both have.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    shared: NDArray[np.float64]

    @classmethod
    def of_boxes(cls, found: NDArray[np.float64], true: NDArray[np.float64]) -> Pairs:
        """Compare predicted boxes [D, 4] with true ones [G, 4], xyxy, some at a time."""
        # COCO keeps width and height, which are rounded, instead of the right and lower sides.
        found_end, true_end = (each[:, :2] + (each[:, 2:] - each[:, :2]) for each in (found, true))
        parts = []
        step = max(_TOGETHER // max(len(true), 1), 1)
        for start in range(0, len(found), step):
            own = slice(start, start + step)
            # One axis after the other, as arrays whose last axis is two long are slow.
            x, y = (
                (
                    np.minimum(found_end[own, None, axis], true_end[:, axis])
                    - np.maximum(found[own, None, axis], true[:, axis])
                ).clip(min=0)
                for axis in (0, 1)
            )
            shared = x * y
            row, column = shared.nonzero()
            parts.append(cls(row + start, column, shared[row, column]))
        if not parts:
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        return cls(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    @classmethod
    def of_masks(cls, found: NDArray[np.int64], true: NDArray[np.int64], pixels: NDArray[np.int64]) -> Pairs:
        """Compare predicted masks with true ones.

        Args:
            found: int64 [R], the prediction of each run of pixels, plus one; 0 where there is none.
            true: int64 [R], the object of each run, plus one; 0 where there is none.
            pixels: int64 [R], the number of pixels of each run.
        """
        both = np.flatnonzero((found > 0) & (true > 0))
        width = int(true.max(initial=0)) + 1
        values = found[both] * width + true[both]
        if values.max(initial=0) < _TOGETHER:
            table = np.bincount(values, pixels[both])
            pairs = np.flatnonzero(table)
            shared = table[pairs]
        else:
            pairs, place = np.unique(values, return_inverse=True)
            shared = np.bincount(place, pixels[both], len(pairs))
        return cls(pairs // width - 1, pairs % width - 1, shared.astype(np.float64))

    def ious(
        self, found: NDArray[np.float64], true: NDArray[np.float64], crowd: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Return the IoUs [P] by COCO's rule, for which a crowd's union with a prediction is the prediction alone.

        Args:
            found: Areas [D] of the predictions.
            true: Areas [G] of the objects.
            crowd: bool [G], whether the object is a crowd.
        """
        own = found[self.rows]
        iou: NDArray[np.float64] = self.shared / np.where(
            crowd[self.columns], own, own + true[self.columns] - self.shared
        )
        return iou


def match(
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    iou: NDArray[np.float64],
    excluded: NDArray[np.bool_],
    crowd: NDArray[np.bool_],
    outside: NDArray[np.bool_],
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]:
    """Match predictions to objects: the best first, each with the free object that it overlaps most.

    An object that does not count in a range of areas takes a prediction that no counted object can have, which is then
    neither a hit nor a false alarm, and so is an unmatched prediction outside the range. Most predictions overlap no
    object or one, so that going through these few pairs, with all thresholds and areas in the bits of one number, costs
    less than a table of all.

    Args:
        rows: int64 [P], the prediction of each pair of one class; predictions are numbered by falling score.
        columns: int64 [P], the object of each pair.
        iou: float64 [P].
        excluded: bool [G, 4], whether the object does not count in each range of areas.
        crowd: bool [G], whether the object is a crowd, which takes any number of predictions.
        outside: bool [D, 4], whether the prediction is outside each range of areas.

    Returns:
        uint64 [D] each: where a prediction is a hit, and where it is a false alarm, with bit ``10 * area + threshold``.
        int64 [G]: the prediction that finds each object at the lowest threshold, whatever its area; -1 for none.
    """
    near = np.flatnonzero(iou >= THRESHOLDS[0])
    rows, columns = rows[near], columns[near]
    reached = _REACHED[np.searchsorted(THRESHOLDS, iou[near], "right")]
    counted = ~excluded @ _IN_AREA
    hits = np.zeros(len(outside), dtype=np.uint64)
    alarms = ~outside @ _IN_AREA
    finders = np.full(len(crowd), -1, dtype=np.int64)

    # Nothing competes for the two of most pairs: the prediction is a hit where the object counts, else excused.
    alone = (np.bincount(rows, minlength=len(outside))[rows] == 1) & (
        np.bincount(columns, minlength=len(crowd))[columns] == 1
    )
    row, bits = rows[alone], reached[alone]
    hits[row] = bits & counted[columns[alone]]
    alarms[row] &= ~bits
    finds = (hits[row] & _LOWEST) > 0
    finders[columns[alone][finds]] = row[finds]
    if alone.all():
        return hits, alarms, finders

    # The best object of each prediction first; of equal ones the last, as COCO takes it.
    rest = np.flatnonzero(~alone)
    order = rest[np.lexsort((-columns[rest], -iou[near[rest]], rows[rest]))]
    matched, hit_bits, other_bits, finds_of = _match_in_turn(
        rows[order].tolist(), columns[order].tolist(), reached[order].tolist(), counted.tolist(), crowd.tolist()
    )
    hits[matched] = np.array(hit_bits, dtype=np.uint64)
    alarms[matched] &= np.array(other_bits, dtype=np.uint64)
    finders[list(finds_of)] = list(finds_of.values())
    return hits, alarms, finders


def _match_in_turn(
    rows: list[int], columns: list[int], reached: list[int], counted: list[int], crowd: list[bool]
) -> tuple[list[int], list[int], list[int], dict[int, int]]:
    """Match the predictions of some pairs one after the other.

    Args:
        rows: The prediction of each pair, rising.
        columns: The object of each pair; of a prediction, the one that it overlaps most comes first.
        reached: The bits of the thresholds that each pair reaches.
        counted: The bits of the areas in which each object counts.
        crowd: Whether each object is a crowd.

    Returns:
        The predictions, the bits where each is a hit, and those where it is neither a hit nor excused by an object that
        does not count; and the prediction of each object that is found at the lowest threshold, in the range of all
        areas.
    """
    pairs = list(zip(columns, reached, strict=True))
    free = [_ALL] * len(counted)
    matched, hit_bits, other_bits = [], [], []
    finders: dict[int, int] = {}
    first = 0
    while first < len(pairs):
        row, end = rows[first], first + 1
        while end < len(pairs) and rows[end] == row:
            end += 1
        left, hit = _ALL, 0
        for column, bits in pairs[first:end]:
            taken = left & bits & free[column] & counted[column]
            hit |= taken
            left ^= taken
            free[column] ^= taken
            if taken & 1:
                finders[column] = row
        for column, bits in pairs[first:end]:
            taken = left & bits & free[column] & ~counted[column]
            left ^= taken
            if not crowd[column]:
                free[column] ^= taken
        matched.append(row)
        hit_bits.append(hit)
        other_bits.append(left)
        first = end
    return matched, hit_bits, other_bits, finders


def unpacked(bits: NDArray[np.uint64], area: int) -> NDArray[np.bool_]:
    """Return the bits of one range of areas, bool [D, T]."""
    shifts = np.arange(len(THRESHOLDS), dtype=np.uint64) + np.uint64(area * len(THRESHOLDS))
    return (bits[:, None] >> shifts & np.uint64(1)).astype(bool)
