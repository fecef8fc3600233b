"""Cutting large images into overlapping tiles: the positions of the tiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def overlap_pixels(side: int, overlap: float) -> int:
    """Return the smallest number of pixels that neighbouring tiles share.

    Args:
        side: Side of a tile in pixels.
        overlap: Share of the side, from 0 to below 1.

    Raises:
        ValueError: The overlap is out of range, or the side is not positive.
    """
    if side < 1:
        raise ValueError(f"tiles: a side must be at least 1 pixel, got {side}")
    if not 0 <= overlap < 1:
        raise ValueError(f"tiles: the overlap is a share of the tile's side, from 0 to under 1, got {overlap}")
    return min(side - 1, round(side * overlap))


def tile_counts(lengths: ArrayLike, side: int, shared: int) -> NDArray[np.int64]:
    """Return how many tiles cover each length.

    Args:
        lengths: Lengths in pixels.
        side: Side of a tile in pixels.
        shared: Smallest number of pixels that neighbours share.
    """
    rest = np.maximum(np.asarray(lengths, dtype=np.int64) - side, 0)
    return np.asarray(1 + -(-rest // (side - shared)), dtype=np.int64)


def tile_starts(length: int, side: int, shared: int) -> NDArray[np.int64]:
    """Return the first pixels of the tiles that cover a length exactly; the last tile ends at its end.

    A length shorter than a tile is covered by one tile of that length.

    Args:
        length: Length in pixels.
        side: Side of a tile in pixels.
        shared: Smallest number of pixels that neighbours share.
    """
    starts = np.arange(int(tile_counts(length, side, shared)), dtype=np.int64) * (side - shared)
    return np.minimum(starts, max(0, length - side))
