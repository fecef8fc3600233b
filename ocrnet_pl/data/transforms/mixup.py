"""Two images blended."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from ocrnet_pl.data.transforms.base import MixingTransform, Transform, check_channels, check_share, fit_partner
from ocrnet_pl.data.transforms.sample_mixing import agree, instance_maps, join_rows, semantic_maps
from ocrnet_pl.data.transforms.scaling import RandomScaleJitter
from ocrnet_pl.data.transforms.turning import RandomFlip
from ocrnet_pl.imaging.geometry import Size
from ocrnet_pl.structures import IGNORE_INDEX, Sample


class MixUp(MixingTransform):
    """Blends two images and keeps the boxes of both (Zhang et al., ICLR 2018; Zhang et al., 2019, for detection).

    Both images are visible everywhere, so a pixel keeps its class only where both have the same one and is ignored
    elsewhere. An object that shares pixels with an object of the other image loses its pixels in the instance map,
    while its box remains. The result has the sample's own size: put this transform after the scaling.

    The result is labelled for the classes that both images are labelled for.

    Args:
        minimum: Smallest weight of an image, above 0 and at most 0.5, which blends half and half. The weight is drawn
            uniformly up to 1 minus this.
        partner_transforms: Transforms that bring the partner to the sample's size; null for scale jitter and left-right
            flip.
        p: Probability that images are mixed, 0 to 1.
    """

    partners = 1

    def __init__(
        self, minimum: float = 0.35, partner_transforms: list[Transform] | None = None, p: float = 0.15
    ) -> None:
        if not 0 < minimum <= 0.5:
            raise ValueError(f"MixUp: minimum must be above 0 and at most 0.5, got {minimum}")
        check_share(self, p=p)
        self.minimum = minimum
        self.partner_transforms = (
            [RandomScaleJitter(), RandomFlip()] if partner_transforms is None else partner_transforms
        )
        self.p = p

    def __call__(
        self, sample: Sample, size: Size, generator: torch.Generator, partners: Sequence[Sample] = ()
    ) -> Sample:
        """Blend the images."""
        draws = torch.rand(2, generator=generator).tolist()
        if not len(partners) or draws[0] >= self.p:
            return sample
        partner = fit_partner(partners[0], sample.size, generator, self.partner_transforms)
        check_channels([sample, partner])
        weight = self.minimum + (1 - 2 * self.minimum) * draws[1]
        first, second = sample.image.as_subclass(Tensor).float(), partner.image.as_subclass(Tensor).float()
        image = second.lerp_(first, weight).round_().to(torch.uint8)
        parts = agree([sample, partner])
        semantic = semantic_maps(parts)
        instances = instance_maps(parts)
        return join_rows(parts, [(0, 0)] * 2, sample.size).replace(
            image=tv_tensors.Image(image),
            semantic=None
            if semantic is None
            else tv_tensors.Mask(torch.where(semantic[0] == semantic[1], semantic[0], IGNORE_INDEX)),
            instances=None if instances is None else tv_tensors.Mask(_lay_over(*instances)),
        )


def _lay_over(first: Tensor, second: Tensor) -> Tensor:
    """Join two instance maps with different numbers, without objects that share pixels with others."""
    one, two = first.numpy(), second.numpy()
    both = (one > 0) & (two > 0)
    joined = np.maximum(one, two)
    if both.any():
        numbers = np.arange(joined.max() + 1, dtype=np.int32)
        numbers[one[both]] = 0
        numbers[two[both]] = 0
        joined = np.take(numbers, joined)
    return torch.from_numpy(joined)
