"""How well objects are found by their size and by how crowded it is around them, and the largest confusions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.metrics.errors.packed import NOT_FOUND
from ocrnet_pl.metrics.errors.record import ErrorAnalysis

_SIZES = (0, 8, 16, 32, 64, 96, 128, 256, np.inf)
_OVERLAPS = (0, 1e-9, 0.1, 0.3, 0.5, np.inf)
_COUNTS = (1, 2, 6, 11, 21, 51, 101, np.inf)


class Group(NamedTuple):
    """Objects that have something in common.

    Attributes:
        name: What they have in common.
        found: Number of those that a prediction above the score finds.
        faint: Number of those that only a prediction below the score finds.
        missed: Number of those that none finds.
    """

    name: str
    found: int
    faint: int
    missed: int

    @property
    def objects(self) -> int:
        """The number of objects."""
        return self.found + self.faint + self.missed


def groups(analysis: ErrorAnalysis) -> dict[str, list[Group]]:
    """Return the objects by size, by overlap and by their number in the image; groups without any are left out."""
    errors = analysis.boxes[analysis.best].errors
    sizes = [f"{low:g}-{high:g}" if high < np.inf else f"from {low:g}" for low, high in pairwise(_SIZES)]
    overlaps = [
        "none",
        *(f"to {high:g}" if high < np.inf else f"above {low:g}" for low, high in pairwise(_OVERLAPS[1:])),
    ]
    counts = [
        f"from {low:g}" if high == np.inf else f"{low:g}" if high - low == 1 else f"{low:g}-{high - 1:g}"
        for low, high in pairwise(_COUNTS)
    ]
    together = np.repeat(errors.counts, errors.counts)
    return {
        "size": _grouped(analysis, analysis.surroundings.sizes, _SIZES, sizes),
        "overlap": _grouped(analysis, analysis.surroundings.overlaps, _OVERLAPS, overlaps),
        "count": _grouped(analysis, together, _COUNTS, counts),
    }


def _grouped(
    analysis: ErrorAnalysis, values: NDArray[np.generic], edges: tuple[float, ...], names: list[str]
) -> list[Group]:
    found = analysis.boxes[analysis.best].errors.found
    place = np.searchsorted(edges, values, "right") - 1
    state = np.where(found == NOT_FOUND, 2, np.where(found >= np.float32(analysis.score), 0, 1))
    counts = np.bincount(place * 3 + state, minlength=3 * len(names)).reshape(-1, 3)
    every = [Group(name, *row) for name, row in zip(names, counts.tolist(), strict=True)]
    return [group for group in every if group.objects]


@dataclass(frozen=True)
class Confusion:
    """How often one class is taken for another.

    Attributes:
        true: The true class.
        found: The predicted class.
        count: Number of objects or pixels.
        share: Their share of those of the true class.
        edges: Share of the pixels that are near edges.
    """

    true: int
    found: int
    count: int
    share: float
    edges: float = 0.0


def largest_confusions(
    wrong: NDArray[np.int64], totals: NDArray[np.int64], most: int, edges: NDArray[np.int64] | None = None
) -> list[Confusion]:
    """Return the pairs of classes that are confused most often.

    Args:
        wrong: Counts, int64 [K, K], rows true; the diagonal does not count.
        totals: int64 [K], the number of each true class.
        most: Largest number of pairs.
        edges: Those of ``wrong`` that are near edges.
    """
    counts = wrong.copy()
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:most]
    pairs = [(int(place) // len(counts), int(place) % len(counts)) for place in order]
    return [
        Confusion(
            true,
            found,
            int(counts[true, found]),
            float(counts[true, found] / max(totals[true], 1)),
            0.0 if edges is None else float(edges[true, found] / counts[true, found]),
        )
        for true, found in pairs
        if counts[true, found]
    ]
