"""Grouping images by their aspect ratio, so that less of a batch is padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.imaging.geometry import Size


class Aspects(NamedTuple):
    """The group of each image, and the sizes of each group.

    Attributes:
        groups: int64 [N], the group of each image.
        sizes: The (height, width) of each group at each scale.
    """

    groups: NDArray[np.int64]
    sizes: list[list[Size]]


def aspect_sizes(size: Size, scales: Sequence[float], ratios: Sequence[float], multiple: int = 32) -> list[list[Size]]:
    """Return sizes of about the base size's area, sides rounded to a multiple, at least one.

    Args:
        size: Base (height, width).
        scales: Factors of the base size.
        ratios: Width / height of each group.
        multiple: Number of pixels of which each side is a multiple.

    Returns:
        The (height, width) at each scale, for each ratio.

    Raises:
        ValueError: There are no ratios, or one is not positive.
    """
    if not ratios or not all(math.isfinite(ratio) and ratio > 0 for ratio in ratios):
        raise ValueError(f"data.aspect_ratios: expected positive numbers, width / height, got {list(ratios)}")

    def rounded(side: float) -> int:
        return max(multiple, round(side / multiple) * multiple)

    area = size[0] * size[1]
    return [
        [(rounded(math.sqrt(area / ratio) * scale), rounded(math.sqrt(area * ratio) * scale)) for scale in scales]
        for ratio in ratios
    ]


def group_by_aspect(
    image_sizes: NDArray[np.int32], size: Size, scales: Sequence[float], ratios: Sequence[float]
) -> Aspects:
    """Put each image into the group of the nearest ratio.

    Args:
        image_sizes: (height, width) of each image, [N, 2]; an unknown one, (0, 0), counts as the base ratio.
        size: Base (height, width).
        scales: Factors of the base size.
        ratios: Width / height of each group.
    """
    known = (image_sizes > 0).all(1)
    own = np.full(len(image_sizes), size[1] / size[0])
    own[known] = image_sizes[known, 1] / image_sizes[known, 0]
    distance = np.abs(np.log(own)[:, None] - np.log(np.array(ratios, dtype=np.float64)))
    return Aspects(distance.argmin(1), aspect_sizes(size, scales, ratios))
