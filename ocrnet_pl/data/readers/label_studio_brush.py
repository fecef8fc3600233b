"""The run-length encoding in which Label Studio stores brush masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHANNELS = 4
_HEADER = 32 + 5 + 4 * 4


def decode_brush(values: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask of a brush, which is the opacity of an image of four channels.

    The text of bits begins with the number of values (32 bits), the bits of a value less one (5), and four lengths less
    one (4 each). Then, until all values are there: one bit that says whether a value is repeated; two that choose a
    length; a number of that length, the count less one; and the value, or as many values.

    Args:
        values: List of bytes.
        size: (height, width) of the image.

    Raises:
        ValueError: They are no such encoding, or of another size.
    """
    try:
        data = np.array(values, dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        data = np.zeros(0, dtype=np.int64)
    if data.ndim != 1 or not len(data) or data.min() < 0 or data.max() > 255:
        raise ValueError("expected a list of bytes")
    bits = np.unpackbits(data.astype(np.uint8))
    total = size[0] * size[1] * _CHANNELS
    if len(bits) < _HEADER or _number(bits, 0, 32) != total:
        raise ValueError(f"it is not of {size[1]} x {size[0]} pixels")
    width = _number(bits, 32, 5) + 1
    lengths = [_number(bits, 37 + 4 * place, 4) + 1 for place in range(4)]
    found = np.zeros(total, dtype=np.uint32)
    weights = 1 << np.arange(width - 1, -1, -1, dtype=np.int64)
    place, done = _HEADER, 0
    while done < total:
        if place + 3 > len(bits):
            raise ValueError("it ends too early")
        repeated, length = bool(bits[place]), lengths[_number(bits, place + 1, 2)]
        count = _number(bits, place + 3, length) + 1
        place += 3 + length
        stop = place + width * (1 if repeated else count)
        if stop > len(bits) or done + count > total:
            raise ValueError("a run is longer than what is left")
        found[done : done + count] = bits[place:stop].reshape(-1, width) @ weights
        place, done = stop, done + count
    return np.asarray(found.reshape(*size, _CHANNELS)[..., 3] > 0)


def _number(bits: NDArray[np.uint8], start: int, length: int) -> int:
    """Return an unsigned number of so many bits, the highest first."""
    number = 0
    for bit in bits[start : start + length].tolist():
        number = number << 1 | bit
    return number
