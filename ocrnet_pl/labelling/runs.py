"""Run-length encodings of masks, as the tools store them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SIZES = (3, 4, 8, 16)
"""Numbers of bits that Label Studio may use for the length of a run."""
_WORD = 8


def run_lengths(values: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the lengths of the runs of a flat mask, alternately of False and True, beginning with False."""
    flat = np.concatenate([[False], values.reshape(-1)])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], changes, [values.size]]))


def brush_runs(mask: NDArray[np.bool_]) -> list[int]:
    """Return Label Studio's encoding of a brush: the bytes of an RGBA image, all four channels 255 or 0.

    The bits are 32 of the number of values, 5 of the size of a value less one, four times 4 of the sizes of lengths
    less one, and for each run a 1, 2 of the chosen size, the length less one, and the value.

    Args:
        mask: bool [H, W].
    """
    lengths = 4 * run_lengths(mask)
    painted = np.arange(len(lengths)) % 2 == 1
    longest = 1 << _SIZES[-1]
    # A run that is too long is several.
    pieces = np.maximum(1, -(-lengths // longest))
    painted = painted.repeat(pieces)
    last = np.cumsum(pieces) - 1
    parts = np.full(int(pieces.sum()), longest, dtype=np.int64)
    parts[last] = lengths - (pieces - 1) * longest
    painted, parts = painted[parts > 0], parts[parts > 0]
    kind = np.searchsorted(np.array([1 << size for size in _SIZES]), parts)
    width = np.array(_SIZES)[kind]
    words = (((1 << 2 | kind) << width) | (parts - 1)) << _WORD | np.where(painted, 255, 0)
    header = [(4 * mask.size, 32), (_WORD - 1, 5), *((size - 1, 4) for size in _SIZES)]
    values = np.concatenate([np.array([value for value, _ in header], dtype=np.int64), words])
    widths = np.concatenate([np.array([bits for _, bits in header]), 3 + width + _WORD])
    longest_word = int(widths.max())
    places = np.arange(longest_word - 1, -1, -1)
    bits = (values[:, None] >> places & 1).astype(np.uint8)
    return np.packbits(bits[places[None] < widths[:, None]]).tolist()
