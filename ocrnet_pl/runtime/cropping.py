"""Which pixels of an image belong to a box."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real


def crop_windows(
    boxes: Iterable[tuple[float, float, float, float]], size: tuple[int, int], margin: float
) -> list[tuple[slice, slice]]:
    """Return each box's rows and columns of an image; pixels that a box covers in part belong to it.

    Args:
        boxes: xyxy in pixels.
        size: (height, width) of the image.
        margin: Width of what is added around each box, as a share of its sides, at least 0.

    Raises:
        ValueError: The margin is negative or infinite.
    """
    if not isinstance(margin, Real) or not (math.isfinite(margin) and margin >= 0):
        raise ValueError(f"margin: expected a share of the box's sides, at least 0, got {margin!r}")
    height, width = size
    windows = []
    for x1, y1, x2, y2 in boxes:
        more_x, more_y = margin * (x2 - x1), margin * (y2 - y1)
        left, top = min(math.floor(max(x1 - more_x, 0)), width - 1), min(math.floor(max(y1 - more_y, 0)), height - 1)
        right, bottom = math.ceil(min(x2 + more_x, width)), math.ceil(min(y2 + more_y, height))
        # A box without area still has one pixel.
        windows.append((slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))))
    return windows
