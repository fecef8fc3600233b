"""Whether the images of a data set have an up: photos of streets do; images of cells, or from above, do not."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.data.sources.base import Source, at_equal_distances
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import Sample

_LOOKED_AT = 64
_FEWEST_IMAGES, _FEWEST_BOXES = 30, 100
_ALIKE = 0.1
"""How far directions may differ: as the logarithm of a ratio, or as a share of an image's side or contrast."""


class _Directions(NamedTuple):
    """How the directions of an image differ.

    Attributes:
        image: float64 [3]: how much brighter the upper half is than the lower one, and the left one than the right one,
            as shares of the contrast; the logarithm of how much more the image changes downwards than sideways.
        boxes: float64 [N, 3]: the logarithm of each box's height by its width; how far its centre is from the
            image's, to the right and down, as shares of the sides.
    """

    image: NDArray[np.float64]
    boxes: NDArray[np.float64]

    @classmethod
    def of(cls, sample: Sample) -> _Directions:
        grey = sample.image.as_subclass(Tensor).numpy().mean(0, dtype=np.float64)
        height, width = grey.shape
        contrast = max(float(grey.std()), 1e-6)
        downwards, sideways = (
            np.abs(np.diff(grey, axis=axis)).mean() if grey.shape[axis] > 1 else 0 for axis in (0, 1)
        )
        image = (
            (grey[: height // 2].mean() - grey[-(height // 2) :].mean()) / contrast if height > 1 else 0.0,
            (grey[:, : width // 2].mean() - grey[:, -(width // 2) :].mean()) / contrast if width > 1 else 0.0,
            math.log((downwards + 1e-6) / (sideways + 1e-6)),
        )
        boxes = sample.boxes.as_subclass(Tensor).numpy().astype(np.float64)
        sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)
        centres = (boxes[:, 2:] + boxes[:, :2]) / 2 / np.array([width, height]) - 0.5
        return cls(np.array(image), np.column_stack((np.log(sides[:, 1] / sides[:, 0]), centres)))


def any_way_up(source: Source) -> bool:
    """Return whether nothing in the images tells up from down and from the sides.

    That is: brightness, contrast, and the shapes and places of the boxes are on average the same in all directions, and
    there are enough images and boxes to say so. Of at most 64 images at equal distances, those that cannot be read are
    left out.
    """
    found: list[_Directions] = []
    for index in at_equal_distances(len(source), _LOOKED_AT):
        try:
            found.append(_Directions.of(source[index]))
        except DataError:  # the check that follows names every one
            continue
    if len(found) < _FEWEST_IMAGES:
        return False
    images = np.stack([each.image for each in found])
    boxes = np.concatenate([each.boxes for each in found])
    if len(boxes) < _FEWEST_BOXES:
        return False
    across, down = boxes[:, 1].std(), boxes[:, 2].std()
    spread = math.log((down + 1e-6) / (across + 1e-6))
    return abs(spread) < _ALIKE and all(_small(values) for values in (*images.T, *boxes.T))


def _small(values: NDArray[np.float64]) -> bool:
    """Return whether the mean is surely small: with twice its standard error, below what counts as alike."""
    error = float(np.std(values)) / math.sqrt(len(values))
    return abs(float(np.mean(values))) + 2 * error < _ALIKE
