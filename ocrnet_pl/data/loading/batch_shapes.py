"""The sizes that training batches may have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.loading.aspect_groups import Aspects, aspect_sizes, group_by_aspect
from ocrnet_pl.data.loading.samplers import scaled_sizes
from ocrnet_pl.imaging.geometry import Size
from ocrnet_pl.imaging.images import MAX_PIXELS


class BatchShapes:
    """A base size, its scales, and the aspect ratios of groups of images.

    Args:
        size: One side for both, or (height, width).
        scales: Factors of the base size; the sides are rounded to multiples of 32.
        ratios: Width / height of each group of images; None for one shape.

    Attributes:
        base: (height, width).
        sizes: (height, width) at each scale, without repetition.

    Raises:
        ValueError: A side, a scale or a ratio is not positive, or a size has more pixels than an image may have.
    """

    def __init__(
        self, size: int | tuple[int, int], scales: Sequence[float], ratios: Sequence[float] | None = None
    ) -> None:
        sides = (size, size) if isinstance(size, int) else tuple(size)
        if len(sides) != 2 or min(sides) < 1:
            raise ValueError(f"data.size: expected one side or (height, width), both at least 1, got {size}")
        self.base: Size = (sides[0], sides[1])
        self.sizes = scaled_sizes(self.base, scales)
        if any(height * width > MAX_PIXELS for height, width in self.sizes):
            raise ValueError(f"data.size: {size} has more than {MAX_PIXELS:,} pixels, at data.scales {list(scales)}")
        self._scales = list(scales)
        self._ratios = None if ratios is None else list(ratios)
        self._groups = [] if ratios is None else aspect_sizes(self.base, scales, ratios)

    @property
    def all(self) -> list[Size]:
        """Every (height, width) that a batch may have."""
        return list(self.sizes) if self._ratios is None else [size for group in self._groups for size in group]

    def choices(self, image_sizes: NDArray[np.int32] | None) -> tuple[list[Size], Aspects | None]:
        """Return the sizes to draw from, and the groups of the images if batches are grouped.

        Args:
            image_sizes: (height, width) of each image, [N, 2]; None if they are not known, which leaves one shape.
        """
        if self._ratios is None or image_sizes is None:
            return self.sizes, None
        # One size per scale: where two scales round to the same size, it is drawn more often.
        sizes = [scaled_sizes(self.base, [scale])[0] for scale in self._scales]
        return sizes, group_by_aspect(image_sizes, self.base, self._scales, self._ratios)
