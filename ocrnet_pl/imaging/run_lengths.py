"""COCO run lengths of the masks of an instance map."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def encode_instances(instances: Tensor, count: int) -> tuple[list[bytes], NDArray[np.float64]]:
    """Return COCO run lengths and areas of the instances 1 to ``count`` of a map [H, W], in one pass over the map."""
    from faster_coco_eval.core import mask as rle

    height, width = instances.shape
    plane = instances.as_subclass(Tensor).cpu().numpy()
    # COCO counts down the columns, from one column's end on at the top of the next.
    begins = np.empty((height, width), dtype=bool)
    begins[1:] = plane[1:] != plane[:-1]
    begins[0, 1:] = plane[0, 1:] != plane[-1, :-1]
    begins[0, 0] = True
    starts = np.flatnonzero(begins.T)
    ends = np.append(starts[1:], plane.size)
    values = plane[starts % height, starts // height]
    order = np.argsort(values, kind="stable")
    values, starts, ends = values[order], starts[order], ends[order]
    first = np.searchsorted(values, np.arange(1, count + 2))
    # Where the run before ended: of the same instance, else at the beginning.
    before = np.where(np.diff(values, prepend=-1) == 0, np.roll(ends, 1), 0)
    # Outside and inside alternate; the rest at the end is outside.
    lengths = np.stack((starts - before, ends - starts), 1).ravel().tolist()
    areas = np.bincount(values, ends - starts, count + 1)[1 : count + 1].astype(np.float64)
    runs = []
    for begin, end in itertools.pairwise(first.tolist()):
        left = plane.size - (int(ends[end - 1]) if end > begin else 0)
        runs.append({"size": [height, width], "counts": lengths[2 * begin : 2 * end] + [left] * (left > 0)})
    return ([encoded["counts"] for encoded in rle.frPyObjects(runs, height, width)] if runs else []), areas
