"""Faults of cameras: blur and noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors

from ocrnet_pl.data.transforms.base import Transform, check_share
from ocrnet_pl.imaging.geometry import Size
from ocrnet_pl.structures import Sample


class RandomBlur(Transform):
    """Blurs by a Gaussian of random width.

    Args:
        minimum: Smallest standard deviation in pixels, above 0.
        maximum: Largest standard deviation in pixels.
        p: Probability that an image is blurred, 0 to 1.
    """

    def __init__(self, minimum: float = 0.3, maximum: float = 1.5, p: float = 0.1) -> None:
        if not 0 < minimum <= maximum:
            raise ValueError(f"RandomBlur: expected 0 < minimum <= maximum, got {minimum} and {maximum}")
        check_share(self, p=p)
        self.minimum = minimum
        self.maximum = maximum
        self.p = p

    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        """Blur the image."""
        draws = torch.rand(2, generator=generator).tolist()
        if draws[0] >= self.p:
            return sample
        sigma = self.minimum + (self.maximum - self.minimum) * draws[1]
        return sample.replace(image=tv_tensors.Image(blur(sample.image.as_subclass(Tensor), sigma)))


def blur(image: Tensor, sigma: float) -> Tensor:
    """Blur an image with a Gaussian that is cut off at three standard deviations; the edge pixels are repeated.

    Args:
        image: uint8 [C, H, W].
        sigma: Standard deviation in pixels.

    Returns:
        uint8, of the same shape.
    """
    radius = max(1, math.ceil(3 * sigma))
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    weights = weights / weights.sum()
    height, width = image.shape[-2:]
    values = functional.pad(image[:, None].float(), [radius] * 4, mode="replicate")[:, 0]
    # Sums of shifted images: for kernels this small they take a tenth of the time of a convolution.
    rows = torch.zeros(len(image), height, width + 2 * radius)
    for k, weight in enumerate(weights.tolist()):
        rows.add_(values[:, k : k + height], alpha=weight)
    blurred = torch.zeros(len(image), height, width)
    for k, weight in enumerate(weights.tolist()):
        blurred.add_(rows[:, :, k : k + width], alpha=weight)
    return blurred.round_().clamp_(0, 255).to(torch.uint8)


class RandomNoise(Transform):
    """Adds Gaussian noise of random strength, drawn separately for each value.

    Args:
        maximum: Largest standard deviation in grey levels, above 0 and at most 255.
        p: Probability that noise is added, 0 to 1.
    """

    def __init__(self, maximum: float = 10.0, p: float = 0.1) -> None:
        if not 0 < maximum <= 255:
            raise ValueError(f"RandomNoise: maximum must be above 0 and at most 255, got {maximum}")
        check_share(self, p=p)
        self.maximum = maximum
        self.p = p

    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        """Add noise."""
        draws = torch.rand(2, generator=generator).tolist()
        if draws[0] >= self.p:
            return sample
        image = sample.image.as_subclass(Tensor)
        noise = torch.randn(image.shape, generator=generator).mul_(self.maximum * draws[1])
        return sample.replace(image=tv_tensors.Image(noise.add_(image).round_().clamp_(0, 255).to(torch.uint8)))
