"""Covering a part of the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision import tv_tensors

from ocrnet_pl.data.transforms.base import Transform, check_share, pick
from ocrnet_pl.data.transforms.occlusion import hide
from ocrnet_pl.imaging.geometry import Size
from ocrnet_pl.structures import IGNORE_INDEX, Sample


class RandomErase(Transform):
    """Covers a random rectangle with one color (Zhong et al., AAAI 2020).

    What is under it is unknown, so its pixels are ignored; objects lose what it covers, as they would behind another
    object.

    Args:
        minimum: Smallest area of the rectangle, as a fraction of the image's, above 0.
        maximum: Largest area of the rectangle, as a fraction of the image's, at most 1.
        aspect: Largest ratio between the rectangle's sides, at least 1.
        min_visible: Share of a covered object, 0 to 1, that has to remain for it to stay a target; others become
            crowds.
        p: Probability that anything is covered, 0 to 1.
    """

    def __init__(
        self,
        minimum: float = 0.02,
        maximum: float = 0.15,
        aspect: float = 3.0,
        min_visible: float = 0.2,
        p: float = 0.25,
    ) -> None:
        if not 0 < minimum <= maximum <= 1:
            raise ValueError(f"RandomErase: expected 0 < minimum <= maximum <= 1, got {minimum} and {maximum}")
        if aspect < 1:
            raise ValueError(f"RandomErase: aspect must be at least 1, got {aspect}")
        check_share(self, min_visible=min_visible, p=p)
        self.minimum = minimum
        self.maximum = maximum
        self.aspect = aspect
        self.min_visible = min_visible
        self.p = p

    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        """Cover the rectangle."""
        draws = torch.rand(5, generator=generator).tolist()
        color = torch.randint(0, 256, (len(sample.image), 1, 1), generator=generator, dtype=torch.uint8)
        if draws[0] >= self.p:
            return sample
        area = (self.minimum + (self.maximum - self.minimum) * draws[1]) * sample.size[0] * sample.size[1]
        ratio = self.aspect ** (2 * draws[2] - 1)
        height, width = (
            min(side, max(1, round(math.sqrt(area * factor))))
            for side, factor in zip(sample.size, (ratio, 1 / ratio), strict=True)
        )
        top, left = pick(draws[3], sample.size[0] - height), pick(draws[4], sample.size[1] - width)
        rectangle = (..., slice(top, top + height), slice(left, left + width))
        hidden = torch.zeros(sample.size, dtype=torch.bool)
        hidden[rectangle] = True
        image = sample.image.as_subclass(Tensor).clone()
        image[rectangle] = color
        semantic = sample.semantic
        if semantic is not None:
            plane = semantic.as_subclass(Tensor).clone()
            plane[rectangle] = IGNORE_INDEX
            semantic = tv_tensors.Mask(plane)
        covered = hide(sample, hidden, self.min_visible)
        return covered.replace(image=tv_tensors.Image(image), semantic=semantic)
