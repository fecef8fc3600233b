"""Turning a whole sample by any angle: image, boxes, instance map and semantic map by the same numbers."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors

from ocrnet_pl.imaging.geometry import FILL, TIGHT, Size, object_bounds, with_rows
from ocrnet_pl.structures import IGNORE_INDEX, Sample


def rotate(sample: Sample, degrees: float, min_visible: float) -> Sample:
    """Turn a sample about its middle on a canvas of the same size.

    An object gets the box of its turned pixels. One without pixels in the instance map, or whose box was not tight
    around them, gets the box of the ellipse that filled its box: the corners of a box are seldom part of the object,
    and boxes around turned boxes grow with every degree. A crowd gets the box around its turned box.

    Args:
        sample: A sample of any size.
        degrees: Angle in degrees, counter-clockwise.
        min_visible: Share of an object, 0 to 1, that has to remain inside for it to stay a target; others become
            crowds.

    Returns:
        The new sample, without a placement.
    """
    height, width = sample.size
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    # The position of each new pixel before, in halves of the image's sides from its middle.
    back = torch.tensor([[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]])
    grid = functional.affine_grid(back[None], [1, 1, height, width], align_corners=False)
    # The grey outside is the zero of the sampling.
    values = sample.image.as_subclass(Tensor).float().sub_(FILL)
    turned = functional.grid_sample(values[None], grid, "bilinear", "zeros", align_corners=False)[0]
    image = turned.add_(FILL).round_().clamp_(0, 255).to(torch.uint8)

    def turn(mask: Tensor, fill: int) -> Tensor:
        # Pillow takes the nearest pixel in a twentieth of the time.
        plane = Image.fromarray(mask.as_subclass(Tensor).contiguous().numpy())
        return torch.from_numpy(np.array(plane.rotate(degrees, Image.Resampling.NEAREST, fillcolor=fill)))

    semantic = None if sample.semantic is None else tv_tensors.Mask(turn(sample.semantic, IGNORE_INDEX))
    instances = None if sample.instances is None else turn(sample.instances, 0)
    boxes, keep, demote = _turn_boxes(sample, instances, cos, sin, min_visible)
    return with_rows(sample.replace(image=tv_tensors.Image(image), semantic=semantic), boxes, keep, demote, instances)


def _turn_boxes(
    sample: Sample, instances: Tensor | None, cos: float, sin: float, min_visible: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the turned boxes inside the image, a mask of those to keep, and a mask of those that become crowds."""
    height, width = sample.size
    before = sample.boxes.as_subclass(Tensor).numpy().astype(np.float64)
    crowd = sample.crowd.numpy()
    middle, half = (before[:, :2] + before[:, 2:]) / 2 - [width / 2, height / 2], (before[:, 2:] - before[:, :2]) / 2
    # Coordinates grow downwards, so a counter-clockwise turn maps x to x cos + y sin.
    turned = middle @ np.array([[cos, -sin], [sin, cos]]) + [width / 2, height / 2]
    matrix = np.array([[cos, sin], [sin, cos]])
    hull = half @ np.abs(matrix).T
    ellipse = np.sqrt(half**2 @ (matrix**2).T)
    reach = np.where(crowd[:, None], hull, ellipse)
    whole = np.concatenate([turned - reach, turned + reach], 1)
    boxes = _clip(whole, sample.size)
    keep = np.asarray((boxes[:, 2:] > boxes[:, :2]).all(1))
    visible = np.where(keep, _areas(boxes) / np.maximum(_areas(whole), 1e-9), 0.0)
    if instances is not None and sample.instances is not None:
        old, new = sample.instances.as_subclass(Tensor).numpy(), instances.numpy()
        counts = np.bincount(old.reshape(-1), minlength=len(before) + 1)[1:]
        left = np.bincount(new.reshape(-1), minlength=len(before) + 1)[1:]
        outer = np.concatenate([turned - hull, turned + hull], 1)
        for i in np.flatnonzero(~crowd & (counts > 0)):
            visible[i] = min(1.0, left[i] / counts[i])
            keep[i] = left[i] > 0
            tight = object_bounds(old, int(i) + 1, before[i])
            own = object_bounds(new, int(i) + 1, outer[i])
            if own is not None and (
                (tight is not None and np.abs(tight - before[i]).max() <= TIGHT) or not _real(boxes[i])
            ):
                boxes[i] = own
    return boxes, keep, keep & ~crowd & (visible < min_visible)


def _clip(boxes: NDArray[np.float64], size: Size) -> NDArray[np.float64]:
    return np.clip(boxes, 0, [size[1], size[0]] * 2)


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    return areas


def _real(box: NDArray[np.float64]) -> bool:
    return bool((box[2:] > box[:2]).all())
