"""Faults of the boxes themselves: outside, degenerate, duplicated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.records import RawBoxes
from ocrnet_pl.doctor.findings import Kind, Level

Fault = tuple[Kind, int, str, Level | None]
"""The kind, the row of the box, the details, and the level if it differs from the kind's."""

Boxes = NDArray[np.float64]

_SAME = 0.9
"""IoU above which two boxes of a class are one object, unless their masks differ."""
_SAME_MASK = 0.7
_MANY = 2000


def degenerate(boxes: Boxes) -> NDArray[np.bool_]:
    """Return which boxes have no area, or an unknown one, bool [N]."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.asarray(~np.isfinite(boxes).all(1) | ~(sides > 0).all(1))


def box_faults(raw: RawBoxes, size: tuple[int, int]) -> Iterator[Fault]:
    """Check each box.

    Args:
        raw: The stored boxes of one image.
        size: (height, width) of the image.

    Yields:
        Each fault.
    """
    boxes, (height, width) = raw.boxes, size
    empty = degenerate(boxes)
    for row, box in enumerate(boxes):
        x0, y0, x1, y1 = box
        if empty[row]:
            if np.isfinite(box).all():
                yield Kind.BOX_DEGENERATE, row, f"its sides are {x1 - x0:g} x {y1 - y0:g}", None
            else:
                yield Kind.BOX_DEGENERATE, row, f"it contains a value that is not a number: {box.tolist()}", None
            continue
        over = max(-x0, -y0, x1 - width, y1 - height)
        where = f"x {x0:g} to {x1:g}, y {y0:g} to {y1:g} in an image of {width} x {height}"
        if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
            yield Kind.BOX_OUTSIDE, row, f"completely outside: {where}", Level.ERROR
        elif over > max(1.0, 0.005 * max(size)):
            yield Kind.BOX_OUTSIDE, row, f"{over:.3g} pixels outside: {where}", None
        elif min(x1 - x0, y1 - y0) < 1:
            yield Kind.BOX_DEGENERATE, row, f"its sides are {x1 - x0:.2g} x {y1 - y0:.2g}", Level.NOTE
    for row, first in duplicates(raw):
        place = raw.field.format(raw.numbers[first])
        yield Kind.BOX_DUPLICATE, row, f"the same class and place as {place}", None


def duplicates(raw: RawBoxes) -> list[tuple[int, int]]:
    """Return the rows that repeat an earlier one, each with that one; crowds and degenerate boxes do not count."""
    rows = np.flatnonzero(~raw.crowd & ~degenerate(raw.boxes))
    found: list[tuple[int, int]] = []
    for label in np.unique(raw.labels[rows]):
        own = rows[raw.labels[rows] == label]
        if len(own) < 2:
            continue
        if len(own) > _MANY:
            # The matrix of all pairs would not fit; exact copies are found in any case.
            _, first, inverse = np.unique(raw.boxes[own].round(1), axis=0, return_index=True, return_inverse=True)
            later = first[inverse.reshape(-1)] != np.arange(len(own))
            pairs = [(int(own[i]), int(own[first[inverse.reshape(-1)[i]]])) for i in np.flatnonzero(later)]
        else:
            second, first = np.nonzero(np.tril(_iou(raw.boxes[own], raw.boxes[own]) > _SAME, -1))
            pairs = [(int(own[i]), int(own[j])) for i, j in zip(second, first, strict=True)]
        seen: set[int] = set()
        for row, earlier in pairs:
            if row not in seen and earlier not in seen and _same_mask(raw.masks, row, earlier):
                seen.add(row)
                found.append((row, earlier))
    return sorted(found)


def _same_mask(masks: tuple[dict[str, Any] | None, ...], one: int, two: int) -> bool:
    """Nested objects may share a box, but not a mask."""
    if not masks or masks[one] is None or masks[two] is None:
        return True
    from faster_coco_eval import mask as mask_api

    return float(np.ravel(mask_api.iou([masks[one]], [masks[two]], [0]))[0]) > _SAME_MASK


def _iou(one: Boxes, two: Boxes) -> Boxes:
    low = np.maximum(one[:, None, :2], two[None, :, :2])
    high = np.minimum(one[:, None, 2:], two[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (one, two)]
    return np.asarray(shared / (areas[0][:, None] + areas[1][None, :] - shared))


def paired_iou(one: Boxes, two: Boxes) -> NDArray[np.float64]:
    """Return the overlap of each box with its partner, [N]; 0 where one of them has no area."""
    low, high = np.maximum(one[:, :2], two[:, :2]), np.minimum(one[:, 2:], two[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = [np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1) for boxes in (one, two)]
    union = areas[0] + areas[1] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))
