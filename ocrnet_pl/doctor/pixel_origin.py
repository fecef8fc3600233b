"""Whether boxes of VOC's XML are a pixel off, because they count from 0 or from 1: the image shows it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.doctor.boxes import Boxes, degenerate

_LEAST_BOXES = 20
_CLEAR = 1.4
"""Required ratio of the contrast between two places of the edges; drawn by hand, edges are rarely exact."""


def edge_contrast(image: Tensor, boxes: Boxes) -> NDArray[np.float64]:
    """Return the contrast at the left and upper edges of boxes, moved by -1, 0 and 1 pixels.

    Args:
        image: uint8 [C, H, W].
        boxes: xyxy of pixel edges, [N, 4].

    Returns:
        [4]: the sums of the contrast at the three places, and the number of boxes.
    """
    grey = image.as_subclass(Tensor).float().mean(0).numpy()
    height, width = grey.shape
    sums = np.zeros(4)
    for x0, y0, x1, y1 in boxes[~degenerate(boxes)].round().astype(np.int64):
        # The outer edge of the image is no edge of an object.
        if x0 < 3 or y0 < 3 or x1 > width or y1 > height or x1 - x0 < 4 or y1 - y0 < 4:
            continue
        for place in range(3):
            x, y = x0 + place - 1, y0 + place - 1
            sums[place] += np.abs(grey[y0 + 2 : y1 - 2, x] - grey[y0 + 2 : y1 - 2, x - 1]).mean() if y1 - y0 > 4 else 0
            sums[place] += np.abs(grey[y, x0 + 2 : x1 - 2] - grey[y - 1, x0 + 2 : x1 - 2]).mean() if x1 - x0 > 4 else 0
        sums[3] += 1
    return sums


def better_origin(sums: NDArray[np.float64], first_pixel: int) -> str | None:
    """Return what to say if another ``first_pixel`` fits the images clearly better; None if it does not.

    Args:
        sums: Sum of :func:`edge_contrast` over the images.
        first_pixel: The number that the source reads the boxes with.
    """
    if sums[3] < _LEAST_BOXES:
        return None
    # With one less, the edges would be one pixel further to the right and below.
    other = sums[2] if first_pixel == 1 else sums[0]
    if other < _CLEAR * sums[1]:
        return None
    return (
        f"the left and upper edges of {int(sums[3])} boxes have {other / max(sums[1], 1e-9):.1f} times as much "
        f"contrast with `first_pixel: {1 - first_pixel}` as with {first_pixel}, with which they are read"
    )
