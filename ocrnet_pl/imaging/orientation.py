"""The turn that an EXIF tag asks for."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from PIL import Image

_TAG = 0x0112


def orientation_of(exif: bytes) -> int:
    """Return the orientation that a block of EXIF tags gives.

    Args:
        exif: The block, with or without the six bytes that precede it in a JPEG; may be empty or broken.

    Returns:
        The orientation, 1 to 8; 1, which is upright, if there is none.
    """
    if not exif:
        return 1
    tags = Image.Exif()
    try:
        tags.load(exif)
        orientation = tags.get(_TAG, 1)
    except Exception:  # broken tags raise almost anything, and say nothing about the orientation
        return 1
    return orientation if orientation in range(1, 9) else 1


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn and mirror an image to undo its orientation.

    Args:
        pixels: [H, W] or [H, W, C].
        orientation: EXIF orientation, 1 to 8.

    Returns:
        A view, with height and width exchanged from orientation 5 on.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
