"""Deriving what an annotation leaves out: boxes from an instance map, semantic maps from instances.

All functions go over the map once, by its horizontal runs of equal values, which are far fewer than its pixels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.structures import IGNORE_INDEX


class Runs(NamedTuple):
    """A map as horizontal runs of equal values, row by row.

    Attributes:
        values: [R], the value of each run.
        rows: int64 [R], the row of each run.
        starts: int64 [R], the first column of each run.
        lengths: int64 [R], the length of each run in pixels.
    """

    values: NDArray[Any]
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]


def runs(values: NDArray[Any]) -> Runs:
    """Return the runs of a map.

    Args:
        values: [H, W], of any type.
    """
    height, width = values.shape
    first = np.empty((height, width), dtype=np.bool_)
    first[:, :1] = True
    np.not_equal(values[:, 1:], values[:, :-1], out=first[:, 1:])
    places = np.flatnonzero(first)
    rows, starts = np.divmod(places, max(width, 1))
    return Runs(values[rows, starts], rows, starts, np.diff(places, append=height * width))


def renumber(ids: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Replace the ids of a map by 1, 2, ... in ascending order; 0 stays 0.

    Args:
        ids: [H, W] of integers, 0 = nothing.

    Returns:
        int32 [H, W], and the ids in order, [N].
    """
    of = runs(ids)
    values, numbers = np.unique(of.values, return_inverse=True)
    # Number 0 is for the value 0, whether or not there is any such pixel.
    numbers = numbers.reshape(-1) + 1
    zero = np.searchsorted(values, 0)
    if zero < len(values) and values[zero] == 0:
        numbers = np.where(numbers == zero + 1, 0, numbers - (numbers > zero + 1))
        values = np.delete(values, zero)
    return np.repeat(numbers.astype(np.int32), of.lengths).reshape(ids.shape), values


def boxes_from_instances(instances: NDArray[np.int32], count: int) -> NDArray[np.float32]:
    """Return the tight box of every instance.

    Args:
        instances: int32 [H, W], 1 to ``count``; 0 = none.
        count: The number of instances.

    Returns:
        float32 [count, 4], xyxy of pixel edges; zeros for an instance without pixels.
    """
    of = runs(instances)
    kept = of.values > 0
    number, rows, starts = of.values[kept] - 1, of.rows[kept], of.starts[kept]
    boxes = np.zeros((count, 4), dtype=np.float32)
    boxes[:, :2] = np.inf
    np.minimum.at(boxes[:, 0], number, starts)
    np.minimum.at(boxes[:, 1], number, rows)
    np.maximum.at(boxes[:, 2], number, starts + of.lengths[kept])
    np.maximum.at(boxes[:, 3], number, rows + 1)
    boxes[np.isinf(boxes[:, 0])] = 0
    return boxes


def classes_from_semantic(instances: NDArray[np.int32], count: int, semantic: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the segmentation class that most pixels of each instance have; on a tie, the lower one.

    Args:
        instances: int32 [H, W], 1 to ``count``; 0 = none.
        count: The number of instances.
        semantic: uint8 [H, W] of segmentation classes, 255 = ignore.

    Returns:
        int64 [count]; -1 for an instance without a pixel of a known class.
    """
    of = runs(instances.astype(np.int64) << 8 | semantic)
    votes = np.zeros((count + 1) << 8, dtype=np.int64)
    np.add.at(votes, of.values, of.lengths)
    votes = votes.reshape(-1, 256)[1:, :IGNORE_INDEX]
    return np.where(votes.any(1), votes.argmax(1), -1)


def semantic_from_instances(
    instances: NDArray[np.int32], classes: NDArray[np.integer[Any]], fill: int, boxes: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """Return the semantic map that instances imply.

    Args:
        instances: int32 [H, W], 1 to N; 0 = none.
        classes: [N], the segmentation class of each instance; 255 or below 0 = ignore.
        fill: Class of the pixels without an instance, or 255.
        boxes: [N, 4], xyxy. If an instance has a box but no pixels, the pixels of its box without an instance are
            ignored, because the object is somewhere among them.

    Returns:
        uint8 [H, W].
    """
    table = np.full(len(classes) + 1, IGNORE_INDEX, dtype=np.uint8)
    table[0] = fill
    table[1:] = np.where(np.asarray(classes) < 0, IGNORE_INDEX, classes)
    semantic: NDArray[np.uint8] = table[instances]
    if boxes is not None and len(boxes):
        hidden = np.ones(len(classes) + 1, dtype=np.bool_)
        hidden[instances] = False
        for x0, y0, x1, y1 in boxes[hidden[1:]]:
            window = (slice(max(0, int(y0)), int(np.ceil(y1))), slice(max(0, int(x0)), int(np.ceil(x1))))
            semantic[window][instances[window] == 0] = IGNORE_INDEX
    return semantic
