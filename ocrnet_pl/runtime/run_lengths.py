"""COCO run lengths of the masks of an instance map."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray


def instance_runs(instances: NDArray[Any], count: int) -> tuple[list[list[int]], NDArray[np.float64]]:
    """Return the run lengths and areas of the instances 1 to ``count`` of a map [H, W], in one pass over the map.

    Runs go down the columns, outside and inside in turn, the first of them outside.
    """
    height, width = instances.shape
    # COCO counts down the columns, from one column's end on at the top of the next.
    begins = np.empty((height, width), dtype=bool)
    begins[1:] = instances[1:] != instances[:-1]
    begins[0, 1:] = instances[0, 1:] != instances[-1, :-1]
    begins[0, 0] = True
    starts = np.flatnonzero(begins.T)
    ends = np.append(starts[1:], instances.size)
    values = instances[starts % height, starts // height]
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
        left = instances.size - (int(ends[end - 1]) if end > begin else 0)
        runs.append(lengths[2 * begin : 2 * end] + [left] * (left > 0))
    return runs, areas


def encoded_instances(instances: NDArray[Any], count: int) -> list[dict[str, Any]]:
    """Return the masks of the instances 1 to ``count`` of a map [H, W] as COCO's JSON has them."""
    runs, _ = instance_runs(instances, count)
    return [{"size": list(instances.shape), "counts": _text(each)} for each in runs]


def _text(runs: list[int]) -> str:
    """Return run lengths as COCO's text: five bits of a number per character, from the fourth on of differences."""
    signs = []
    for place, run in enumerate(runs):
        rest = run - runs[place - 2] if place > 2 else run
        while True:
            bits, rest = rest & 31, rest >> 5
            # The last character's highest bit is the sign.
            if rest == (-1 if bits & 16 else 0):
                signs.append(chr(bits + 48))
                break
            signs.append(chr(bits + 80))
    return "".join(signs)
