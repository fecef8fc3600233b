"""Masks: images whose pixels or colors are numbers, which must be read exactly as stored."""

from __future__ import annotations

from os import PathLike
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.imaging.decoding import Decoded, decode
from ocrnet_pl.imaging.image_files import check_size, open_with_pillow, opened

MAX_MAP_PIXELS = 200_000_000
"""Number of pixels above which maps are refused: a broken header must not exhaust the machine's memory."""


def read_map(path: str | PathLike[str]) -> Decoded:
    """Read a mask as it is stored: palettes as indices, and never turned.

    Args:
        path: Path of the mask.

    Returns:
        The pixels: bool for one bit, and int32 or uint16 for more than eight bits in one channel. Colors of 16 bits are
        reduced to 8. The mode is Pillow's.

    Raises:
        DataError: The mask is missing, broken, too large, or has floating-point pixels.
    """
    with opened(path, "mask") as file:
        found = decode(file, path, max_pixels=MAX_MAP_PIXELS) or _with_pillow(file, path)
    pixels: NDArray[Any] = found.pixels
    if found.mode == "1":
        pixels = pixels > 0
    elif pixels.dtype == np.uint16 and pixels.ndim == 3:
        pixels = (pixels >> 8).astype(np.uint8)
    return found._replace(pixels=pixels, mode="I;16" if pixels.dtype == np.uint16 else found.mode)


def _with_pillow(file: BinaryIO, path: str | PathLike[str]) -> Decoded:
    with open_with_pillow(file) as image:
        check_size(path, (image.height, image.width), MAX_MAP_PIXELS)
        palette = None
        if image.mode in ("P", "PA"):
            palette = np.zeros((256, 3), np.uint8)
            colors = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
            palette[: len(colors)] = colors
        return Decoded(np.array(image), image.mode, palette, 1)
