"""Mirroring and turning."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from ocrnet_pl.data.transforms.base import Transform, check_share
from ocrnet_pl.data.transforms.rotation import rotate
from ocrnet_pl.imaging.geometry import Size, wrap_boxes
from ocrnet_pl.imaging.opencv import opencv
from ocrnet_pl.structures import Sample


class RandomFlip(Transform):
    """Mirrors at random.

    Args:
        horizontal: Probability of swapping left and right, 0 to 1.
        vertical: Probability of swapping top and bottom, 0 to 1; for images without an up, such as microscopy or aerial
            images.
    """

    def __init__(self, horizontal: float = 0.5, vertical: float = 0.0) -> None:
        check_share(self, horizontal=horizontal, vertical=vertical)
        self.horizontal = horizontal
        self.vertical = vertical

    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        """Mirror the sample."""
        draws = torch.rand(2, generator=generator).tolist()
        for axis, share in ((1, self.horizontal), (0, self.vertical)):
            if draws[1 - axis] < share:
                sample = mirror(sample, axis)
        return sample


def mirror(sample: Sample, axis: int) -> Sample:
    """Swap left and right, or top and bottom.

    Args:
        sample: A sample of any size.
        axis: 1 for left and right, 0 for top and bottom.
    """

    def flip(pixels: Tensor) -> Tensor:
        array = pixels.as_subclass(Tensor).numpy()
        if array.ndim == 2:
            return torch.from_numpy(opencv().flip(array, axis))
        flipped = opencv().flip(np.ascontiguousarray(array.transpose(1, 2, 0)), axis)
        return torch.from_numpy(flipped.reshape(*sample.size, -1)).permute(2, 0, 1)

    boxes = sample.boxes.as_subclass(Tensor).clone()
    low, high = (0, 2) if axis else (1, 3)
    boxes[:, [low, high]] = sample.size[axis] - boxes[:, [high, low]]
    return sample.replace(
        image=tv_tensors.Image(flip(sample.image)),
        boxes=wrap_boxes(boxes, sample.size),
        semantic=None if sample.semantic is None else tv_tensors.Mask(flip(sample.semantic)),
        instances=None if sample.instances is None else tv_tensors.Mask(flip(sample.instances)),
        placement=None,
    )


class RandomRotate90(Transform):
    """Turns by a random multiple of 90 degrees; for images without an up. Put this transform before the scaling.

    Args:
        p: Probability that a turn is drawn, 0 to 1.
    """

    def __init__(self, p: float = 1.0) -> None:
        check_share(self, p=p)
        self.p = p

    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        """Turn the sample."""
        draws = torch.rand(2, generator=generator).tolist()
        turns = min(3, int(draws[1] * 4)) if draws[0] < self.p else 0
        return rotate90(sample, turns) if turns else sample


def rotate90(sample: Sample, turns: int) -> Sample:
    """Turn a sample counter-clockwise by whole quarters, exactly.

    Args:
        sample: A sample of any size.
        turns: Number of quarter turns.
    """
    height, width = sample.size
    boxes = sample.boxes.as_subclass(Tensor)
    for _ in range(turns % 4):
        x0, y0, x1, y1 = boxes.unbind(1)
        boxes = torch.stack([y0, width - x1, y1, width - x0], 1)
        height, width = width, height

    def turn(tensor: Tensor) -> Tensor:
        planes = tensor.as_subclass(Tensor)
        if planes.ndim == 2:
            return torch.rot90(planes, turns, (0, 1)).contiguous()
        return torch.rot90(planes.permute(1, 2, 0), turns, (0, 1)).contiguous().permute(2, 0, 1)

    return sample.replace(
        image=tv_tensors.Image(turn(sample.image)),
        boxes=wrap_boxes(boxes, (height, width)),
        semantic=None if sample.semantic is None else tv_tensors.Mask(turn(sample.semantic)),
        instances=None if sample.instances is None else tv_tensors.Mask(turn(sample.instances)),
        placement=None,
    )


class RandomRotate(Transform):
    """Turns by a small random angle about the middle; the corners are filled with grey and ignored.

    Args:
        degrees: Largest angle to either side in degrees, between 0 and 90.
        min_visible: Share of an object, 0 to 1, that has to remain inside for it to stay a target; others become
            crowds.
        p: Probability that the sample is turned, 0 to 1.
    """

    def __init__(self, degrees: float = 10.0, min_visible: float = 0.2, p: float = 0.5) -> None:
        if not 0 < degrees < 90:
            raise ValueError(f"RandomRotate: degrees must be between 0 and 90, got {degrees}")
        check_share(self, min_visible=min_visible, p=p)
        self.degrees = degrees
        self.min_visible = min_visible
        self.p = p

    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        """Turn the sample."""
        draws = torch.rand(2, generator=generator).tolist()
        if draws[0] >= self.p:
            return sample
        return rotate(sample, (2 * draws[1] - 1) * self.degrees, self.min_visible)
