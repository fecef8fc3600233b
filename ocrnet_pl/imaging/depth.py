"""From pixels of any depth to 8 bits."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.errors import DataError


def to_8_bits(values: NDArray[Any], path: str | PathLike[str]) -> NDArray[np.uint8]:
    """Scale 16 bits to 8, so that 65535 becomes 255.

    Args:
        values: Integers; values of 8 bits are not changed.
        path: Path of the image, for messages.

    Raises:
        DataError: A value is outside 0 to 65535, or has a fraction, for which no range is known.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "iu":
        raise no_range(path)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise DataError.at(path, "pixels outside 0 to 65535", advice="convert it to 8 or 16 bits")
    # 65535 / 257 is exactly 255.
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def no_range(path: str | PathLike[str]) -> DataError:
    """Return the error for an image of floating-point pixels, whose range may be 0 to 1, 0 to 255 or anything else."""
    return DataError.at(path, "floating-point pixels have no known range", advice="convert it to 8 or 16 bits")
