"""Changes of color that do not change the geometry."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors

from ocrnet_pl.data.transforms.base import Transform, check_share
from ocrnet_pl.imaging.geometry import Size
from ocrnet_pl.imaging.opencv import opencv
from ocrnet_pl.structures import Sample


class ColorJitter(Transform):
    """Changes brightness, contrast, saturation and hue of RGB images at random.

    All four are linear in the colours, so they are combined to one matrix and applied in one pass; applying them one
    after the other takes several times as long.

    Args:
        brightness: Largest change of brightness: factors are drawn from 1 - brightness to 1 + brightness; 0 for none.
        contrast: Largest change of contrast about the image's mean grey: factors are drawn from 1 - contrast to 1 +
            contrast; 0 for none.
        saturation: Largest change of saturation about each pixel's grey: factors are drawn from 1 - saturation to 1 +
            saturation; 0 for none.
        hue: Largest turn of the colour circle, from 0 for none to 0.5 for half of it.
        p: Probability that an image is changed, 0 to 1.
    """

    def __init__(
        self,
        brightness: float = 0.3,
        contrast: float = 0.3,
        saturation: float = 0.3,
        hue: float = 0.02,
        p: float = 0.8,
    ) -> None:
        check_share(self, brightness=brightness, contrast=contrast, saturation=saturation, p=p)
        if not 0 <= hue <= 0.5:
            raise ValueError(f"ColorJitter: hue must be from 0 to 0.5, got {hue}")
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue
        self.p = p

    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        """Change the colours."""
        draws = torch.rand(5, generator=generator).tolist()
        if draws[0] >= self.p:
            return sample
        brightness, contrast, saturation, hue = (
            (2 * draw - 1) * spread
            for draw, spread in zip(draws[1:], (self.brightness, self.contrast, self.saturation, self.hue), strict=True)
        )
        image = adjust_colors(sample.image.as_subclass(Tensor), 1 + brightness, 1 + contrast, 1 + saturation, hue)
        return sample.replace(image=tv_tensors.Image(image))


_GRAY = np.array([0.2989, 0.587, 0.114])
"""The weights of torchvision's grey."""

_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


def adjust_colors(image: Tensor, brightness: float, contrast: float, saturation: float, hue: float) -> Tensor:
    """Change an image's colours by one matrix.

    Args:
        image: uint8 [3, H, W]; images of other channel counts get brightness and contrast only.
        brightness: Factor of all values.
        contrast: Factor of the distance to the image's mean grey.
        saturation: Factor of the distance to each pixel's grey.
        hue: Turn of the colour circle in the YIQ space, 0.5 being half of it.

    Returns:
        uint8, of the same shape.
    """
    cv = opencv()
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    mean = np.array(cv.mean(pixels)[: len(image)] if len(image) <= 4 else pixels.mean((0, 1)))
    if len(image) != 3:
        table = np.arange(256) * brightness * contrast + float(mean.mean()) * brightness * (1 - contrast)
        changed: NDArray[np.uint8] = np.take(table.round().clip(0, 255).astype(np.uint8), pixels)
    else:
        angle = 2 * math.pi * hue
        turn = np.array([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]])
        matrix = _FROM_YIQ @ turn @ _TO_YIQ if hue else np.eye(3)
        matrix = (saturation * np.eye(3) + (1 - saturation) * np.ones((3, 1)) * _GRAY) @ matrix
        matrix = brightness * matrix
        offset = (1 - contrast) * float(_GRAY @ (matrix @ mean))
        changed = cv.transform(pixels, np.column_stack([contrast * matrix, np.full(3, offset)]))
    return torch.from_numpy(changed).permute(2, 0, 1)


class RandomGamma(Transform):
    """Brightens or darkens the middle tones by a power, like under- and overexposure; black and white do not change.

    Args:
        maximum: Largest exponent, at least 1; its inverse is the smallest.
        p: Probability that an image is changed, 0 to 1.
    """

    def __init__(self, maximum: float = 1.5, p: float = 0.3) -> None:
        if maximum < 1:
            raise ValueError(f"RandomGamma: maximum must be at least 1, got {maximum}")
        check_share(self, p=p)
        self.maximum = maximum
        self.p = p

    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        """Change the exposure."""
        draws = torch.rand(2, generator=generator).tolist()
        if draws[0] >= self.p:
            return sample
        gamma = self.maximum ** (2 * draws[1] - 1)
        table = np.round(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
        changed = torch.from_numpy(np.take(table, sample.image.as_subclass(Tensor).numpy()))
        return sample.replace(image=tv_tensors.Image(changed))


class RandomGrayscale(Transform):
    """Removes the color of RGB images, so that shape has to be learnt; other numbers of channels are not changed.

    Args:
        p: Probability that the color of an image is removed, 0 to 1.
    """

    def __init__(self, p: float = 0.1) -> None:
        check_share(self, p=p)
        self.p = p

    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        """Remove the color."""
        if float(torch.rand(1, generator=generator)) >= self.p or len(sample.image) != 3:
            return sample
        gray = adjust_colors(sample.image.as_subclass(Tensor), 1.0, 1.0, 0.0, 0.0)
        return sample.replace(image=tv_tensors.Image(gray))
