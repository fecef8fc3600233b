"""Maps of one image laid over each other, as runs of pixels that are equal in all of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.structures import Prediction, Sample


class Runs(NamedTuple):
    """The runs of some maps, row by row; whatever is counted over pixels is counted over these, many times faster.

    Attributes:
        starts: int64 [R], the first pixel of each run, ``y * width + x``.
        lengths: int64 [R], the number of pixels of each run.
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, *maps: NDArray[Any]) -> Runs:
        """Find the runs of maps that have the same number of pixels, each flat."""
        size = maps[0].size
        if not size:
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64))
        # Whether a run starts at each pixel, filled up to whole words of eight.
        starts = np.zeros(-(-size // 8) * 8, dtype=bool)
        starts[0] = True
        own = starts[1:size]
        np.not_equal(maps[0][1:], maps[0][:-1], out=own)
        differs = np.empty_like(own)
        for plane in maps[1:]:
            np.logical_or(own, np.not_equal(plane[1:], plane[:-1], out=differs), out=own)
        # Most words are without a start: leaving those out at once takes a third of the time.
        packed = starts.view(np.uint64)
        words = np.flatnonzero(packed != 0)
        found = np.flatnonzero(packed[words].view(bool))
        first = words[found >> 3] * 8 + (found & 7)
        return cls(first, np.diff(first, append=size))

    def pixels(self, values: NDArray[Any], size: int) -> NDArray[np.int64]:
        """Return the number of pixels of each value.

        Args:
            values: int [R], the value of each run, from 0 to ``size - 1``.
            size: Number of values.
        """
        # Sums of whole numbers are exact in float64.
        return np.bincount(values, self.lengths, size).astype(np.int64)


def flat(plane: Tensor) -> NDArray[Any]:
    """Return the pixels of a map on the CPU, row by row."""
    values: NDArray[Any] = plane.as_subclass(Tensor).numpy().reshape(-1)
    return values


class Overlay(NamedTuple):
    """The truth and a prediction of one image, laid over each other; the value of each run, None without such a map.

    Attributes:
        runs: The runs of all maps together.
        true_class: int64 [R], the labelled segmentation class.
        true_instance: int64 [R], the row of the labelled box plus one.
        found_class: int64 [R], the predicted segmentation class.
        found_instance: int64 [R], the row of the predicted box plus one.
        found_segment: int64 [R], the id of the predicted panoptic segment.
    """

    runs: Runs
    true_class: NDArray[np.int64] | None
    true_instance: NDArray[np.int64] | None
    found_class: NDArray[np.int64] | None
    found_instance: NDArray[np.int64] | None
    found_segment: NDArray[np.int64] | None

    @classmethod
    def of(cls, prediction: Prediction, truth: Sample) -> Overlay:
        """Lay the maps of a prediction over those of the truth; both are on the CPU."""
        planes = (truth.semantic, truth.instances, prediction.semantic, prediction.instances, prediction.panoptic)
        maps = [None if plane is None else flat(plane) for plane in planes]
        present = [plane for plane in maps if plane is not None]
        runs = Runs.of(*present) if present else Runs(np.zeros(0, np.int64), np.zeros(0, np.int64))
        return cls(runs, *(None if plane is None else plane[runs.starts].astype(np.int64) for plane in maps))
