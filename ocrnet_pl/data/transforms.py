"""Augmentations: each moves image, boxes and maps together, and draws only from the generator it is given."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from ocrnet_pl.data.geometry import Size, letterbox_image, letterbox_placement, letterbox_sample, place, wrap_boxes
from ocrnet_pl.structures import Sample

__all__ = [
    "ColorJitter",
    "Compose",
    "Letterbox",
    "RandomFlip",
    "RandomRotate90",
    "RandomScaleJitter",
    "Transform",
    "default_train_transforms",
    "letterbox_image",
    "letterbox_placement",
]


class Transform(ABC):
    """Makes one sample of another, without changing the tensors of the one it is given.

    The generator is seeded from the run's seed, the epoch and the image, so a sample comes out the same whatever the
    number of workers and processes; a transform must use no other randomness.
    """

    @abstractmethod
    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        """Transform a sample.

        Args:
            sample: Of any size.
            size: (height, width) of the batch that the sample is for. Whatever size the last transform leaves is
                letterboxed to it, so most transforms need not look at it.
            generator: To draw from.
        """


class Compose(Transform):
    """Applies transforms one after the other.

    Args:
        transforms: In order.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        """Apply all."""
        for transform in self.transforms:
            sample = transform(sample, size, generator)
        return sample


class Letterbox(Transform):
    """Scales to fit, the aspect ratio kept, and pads at the bottom and right: grey, no instance, ignored pixels.

    Args:
        size: (height, width); None takes the batch's.
    """

    def __init__(self, size: Size | None = None) -> None:
        self.size = size

    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        """Letterbox the sample and note the placement."""
        return letterbox_sample(sample, self.size or size)


class RandomScaleJitter(Transform):
    """Scales by a random factor, then cuts out or pads to the batch's size at a random position.

    The placement is given up: nothing maps training images back.

    Args:
        minimum: Smallest factor; 1 fits the image to the batch's size.
        maximum: Largest factor.
        min_visible: The share of a cut object that has to stay for it to remain a target; others become crowds.
        aspect: Largest factor by which the aspect ratio may change; 1 keeps it.
    """

    def __init__(
        self, minimum: float = 0.6, maximum: float = 1.6, min_visible: float = 0.2, aspect: float = 1.0
    ) -> None:
        if not 0 < minimum <= maximum:
            raise ValueError(f"RandomScaleJitter: expected 0 < minimum <= maximum, got {minimum} and {maximum}")
        if not 0 <= min_visible <= 1:
            raise ValueError(f"RandomScaleJitter: min_visible must lie in 0 to 1, got {min_visible}")
        if aspect < 1:
            raise ValueError(f"RandomScaleJitter: aspect must be at least 1, got {aspect}")
        self.minimum = minimum
        self.maximum = maximum
        self.min_visible = min_visible
        self.aspect = aspect

    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        """Scale and cut or pad."""
        draws = torch.rand(6, generator=generator).tolist()
        fit = min(size[0] / sample.size[0], size[1] / sample.size[1])
        # Even in the logarithm: halving is as likely as doubling.
        factor = fit * self.minimum * (self.maximum / self.minimum) ** draws[0]
        stretch = self.aspect ** (draws[1] - 0.5)
        scales = (factor * stretch, factor / stretch)
        window: list[tuple[int, int]] = []
        resized: list[int] = []
        offset: list[int] = []
        for axis in range(2):
            side, target, scale = sample.size[axis], size[axis], scales[axis]
            scaled = max(1, round(side * scale))
            if scaled > target:
                # The window is cut in whole pixels of the source before scaling; the scale changes by under a pixel.
                length = min(side, max(1, round(target / scale)))
                window.append((_pick(draws[2 + axis], side - length), length))
                resized.append(target)
                offset.append(0)
            else:
                window.append((0, side))
                resized.append(scaled)
                offset.append(_pick(draws[4 + axis], target - scaled))
        (top, height), (left, width) = window
        return place(
            sample,
            (top, left, height, width),
            (resized[0], resized[1]),
            size,
            (offset[0], offset[1]),
            min_visible=self.min_visible,
        )


class RandomFlip(Transform):
    """Mirrors at random.

    Args:
        horizontal: Probability of swapping left and right.
        vertical: Probability of swapping top and bottom; for images without an up, such as microscopy or aerial.
    """

    def __init__(self, horizontal: float = 0.5, vertical: float = 0.0) -> None:
        for name, value in (("horizontal", horizontal), ("vertical", vertical)):
            if not 0 <= value <= 1:
                raise ValueError(f"RandomFlip: {name} must lie in 0 to 1, got {value}")
        self.horizontal = horizontal
        self.vertical = vertical

    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        """Mirror."""
        draws = torch.rand(2, generator=generator).tolist()
        for flip, chosen in (
            (F.horizontal_flip, draws[0] < self.horizontal),
            (F.vertical_flip, draws[1] < self.vertical),
        ):
            if chosen:
                sample = sample.replace(
                    image=flip(sample.image),
                    boxes=flip(sample.boxes),
                    semantic=None if sample.semantic is None else flip(sample.semantic),
                    instances=None if sample.instances is None else flip(sample.instances),
                    placement=None,
                )
        return sample


class RandomRotate90(Transform):
    """Turns by a random multiple of 90 degrees; for images without an up. Put it before the scaling.

    Args:
        p: Probability of drawing a turn at all.
    """

    def __init__(self, p: float = 1.0) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"RandomRotate90: p must lie in 0 to 1, got {p}")
        self.p = p

    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        """Turn."""
        draws = torch.rand(2, generator=generator).tolist()
        turns = min(3, int(draws[1] * 4)) if draws[0] < self.p else 0
        return rotate90(sample, turns) if turns else sample


def rotate90(sample: Sample, turns: int) -> Sample:
    """Turn a sample counter-clockwise by whole quarters, exactly.

    Args:
        sample: Of any size.
        turns: Quarters.
    """
    height, width = sample.size
    boxes = sample.boxes.as_subclass(Tensor)
    for _ in range(turns % 4):
        x0, y0, x1, y1 = boxes.unbind(1)
        boxes = torch.stack([y0, width - x1, y1, width - x0], 1)
        height, width = width, height

    def turn(tensor: Tensor) -> Tensor:
        return torch.rot90(tensor.as_subclass(Tensor), turns, (-2, -1)).contiguous()

    return sample.replace(
        image=tv_tensors.Image(turn(sample.image)),
        boxes=wrap_boxes(boxes, (height, width)),
        semantic=None if sample.semantic is None else tv_tensors.Mask(turn(sample.semantic)),
        instances=None if sample.instances is None else tv_tensors.Mask(turn(sample.instances)),
        placement=None,
    )


class ColorJitter(Transform):
    """Changes brightness, contrast, saturation and hue of RGB images at random.

    All four are linear in the colours, so they are joined to one matrix and applied in one pass; doing them one after
    the other takes several times as long.

    Args:
        brightness: Factors are drawn from 1 - brightness to 1 + brightness.
        contrast: Likewise, about the image's mean grey.
        saturation: Likewise, about each pixel's grey.
        hue: Largest turn of the colour circle, 0.5 being half of it.
        p: Probability of changing an image at all.
    """

    def __init__(
        self,
        brightness: float = 0.3,
        contrast: float = 0.3,
        saturation: float = 0.3,
        hue: float = 0.02,
        p: float = 0.8,
    ) -> None:
        for name, value, top in (
            ("brightness", brightness, 1.0),
            ("contrast", contrast, 1.0),
            ("saturation", saturation, 1.0),
            ("hue", hue, 0.5),
            ("p", p, 1.0),
        ):
            if not 0 <= value <= top:
                raise ValueError(f"ColorJitter: {name} must lie in 0 to {top:g}, got {value}")
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
    values = image.float()
    channels = len(image)
    if channels != 3:
        mean = values.mean()
        changed = values.mul_(brightness * contrast).add_(mean * brightness * (1 - contrast))
        return changed.round_().clamp_(0, 255).to(torch.uint8)
    angle = 2 * math.pi * hue
    turn = np.array([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]])
    matrix = np.linalg.inv(_TO_YIQ) @ turn @ _TO_YIQ if hue else np.eye(3)
    matrix = (saturation * np.eye(3) + (1 - saturation) * np.ones((3, 1)) * _GRAY) @ matrix
    flat = values.view(3, -1)
    mean_color = flat.mean(1).double().numpy()
    matrix = brightness * matrix
    mean_gray = float(_GRAY @ (matrix @ mean_color))
    weights = torch.from_numpy((contrast * matrix).astype(np.float32))
    bias = torch.full((3, 1), (1 - contrast) * mean_gray)
    return torch.addmm(bias, weights, flat).round_().clamp_(0, 255).to(torch.uint8).view_as(image)


def default_train_transforms() -> list[Transform]:
    """Return what suits most photographs: scale jitter, left-right flip, colors."""
    return [RandomScaleJitter(), RandomFlip(), ColorJitter()]


def _pick(draw: float, room: int) -> int:
    """Return a whole number from 0 to ``room``, all equally likely, from a draw in [0, 1)."""
    return min(room, int(draw * (room + 1)))
