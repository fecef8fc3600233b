"""From the network's coordinates back to the original image: the only place where that happens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ocrnet_pl.structures import Placement


def boxes_to_original(boxes: Tensor, placement: Placement) -> Tensor:
    """Map boxes from input pixels to original pixels, clipped to the image.

    Args:
        boxes: float [..., 4], xyxy in input pixels.
        placement: Position and scale of the original in the input.

    Returns:
        float [..., 4], xyxy in original pixels.
    """
    # Number by number: a tensor made of them here would make a GPU wait.
    (scale_y, scale_x), (offset_y, offset_x) = placement.scale, placement.offset
    x, y = (boxes[..., 0::2] - offset_x) / scale_x, (boxes[..., 1::2] - offset_y) / scale_y
    return clip_boxes(torch.stack((x, y), -1).flatten(-2), placement.original_size)


def have_area(boxes: Tensor) -> Tensor:
    """Return which of the boxes [..., 4], xyxy, have an area, bool [...]; one in the padding alone has none."""
    return (boxes[..., 2:] > boxes[..., :2]).all(-1)


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return boxes [..., 4], xyxy, clipped to an image of this (height, width)."""
    height, width = size
    return torch.stack((boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)), -1).flatten(-2)


def maps_to_original(maps: Tensor, stride: int, placement: Placement) -> Tensor:
    """Resample maps of the padded input to the original image's pixels, bilinearly.

    Args:
        maps: float [C, h, w] over the padded input.
        stride: Side of a cell of the maps in input pixels.
        placement: Position and scale of the original in the input.

    Returns:
        float [C, H, W] at the original size.
    """
    height, width = placement.original_size
    (scale_y, scale_x), (offset_y, offset_x) = placement.scale, placement.offset
    top, left = round(offset_y), round(offset_x)
    bottom, right = top + round(height * scale_y), left + round(width * scale_x)
    full = maps[None]
    if stride > 1:
        full = F.interpolate(full, scale_factor=float(stride), mode="bilinear", align_corners=False)
    content = full[..., top:bottom, left:right]
    if content.shape[-2:] != (height, width):
        content = F.interpolate(content, size=(height, width), mode="bilinear", align_corners=False)
    return content[0]
