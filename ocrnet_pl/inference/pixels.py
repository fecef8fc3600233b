"""The pixels of an image and those of its boxes, as fusion works on them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ocrnet_pl.losses.assignment import resolve_conflicts


class SemanticMap(NamedTuple):
    """The class of every pixel, and how sure it is.

    Attributes:
        probability: float [S, H, W], summing to 1 over the classes.
        top: float [H, W], the largest of them.
        labels: int64 [H, W], its class.
    """

    probability: Tensor
    top: Tensor
    labels: Tensor

    @classmethod
    def of(cls, probability: Tensor) -> SemanticMap:
        """Find each pixel's best class."""
        # Not argmax: along the first axis it takes six times as long on a CPU.
        top, labels = probability.max(0)
        return cls(probability, top, labels)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.labels.shape[0], self.labels.shape[1]


class BoxPixels(NamedTuple):
    """Every pixel of every box, as one flat list of R pairs.

    Attributes:
        box: int64 [R], rows of the boxes.
        pixel: int64 [R], ``y * width + x``.
        offset_x: float [R], from the box's centre in half widths, -1 to 1.
        offset_y: float [R], likewise in half heights.
    """

    box: Tensor
    pixel: Tensor
    offset_x: Tensor
    offset_y: Tensor


def box_pixels(boxes: Tensor, size: tuple[int, int]) -> BoxPixels:
    """List the pixels whose centre lies in each box; the work grows with the boxes' area, not with boxes x image.

    Args:
        boxes: float [N, 4], xyxy, within the image.
        size: (height, width) of the image.
    """
    height, width = size
    # A pixel's centre is at its index plus a half.
    first = (boxes - 0.5).ceil().long()
    x1, x2 = first[:, 0].clamp(0, width), first[:, 2].clamp(0, width)
    y1, y2 = first[:, 1].clamp(0, height), first[:, 3].clamp(0, height)
    columns, rows = (x2 - x1).clamp(min=0), (y2 - y1).clamp(min=0)
    counts = columns * rows
    box = torch.repeat_interleave(torch.arange(len(boxes), device=boxes.device), counts)
    place = torch.arange(len(box), device=boxes.device) - look_up(counts.cumsum(0) - counts, box)
    row = torch.div(place, look_up(columns, box), rounding_mode="floor")
    column = place - row * look_up(columns, box)
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    scale = 1 / ((boxes[:, 2:] - boxes[:, :2]) / 2).clamp(min=0.5)
    # Offsets are linear in the row and the column.
    start_x, start_y = (x1 + 0.5 - center[:, 0]) * scale[:, 0], (y1 + 0.5 - center[:, 1]) * scale[:, 1]
    return BoxPixels(
        box,
        look_up(y1 * width + x1, box) + row * width + column,
        look_up(start_x, box) + column * look_up(scale[:, 0], box),
        look_up(start_y, box) + row * look_up(scale[:, 1], box),
    )


def look_up(table: Tensor, index: Tensor) -> Tensor:
    """Return ``table[index]``, [N] to the shape of ``index``; several times faster than indexing on a CPU."""
    return table.index_select(0, index.flatten()).view(index.shape)


def paint(pixels: BoxPixels, claims: Tensor, evidence: Tensor, size: tuple[int, int]) -> Tensor:
    """Give each pixel to the box with the most evidence among those that claim it.

    Args:
        pixels: The boxes' pixels.
        claims: bool [R].
        evidence: float [R], not negative.
        size: (height, width) of the image.

    Returns:
        int32 [H, W], the row of a box plus one, 0 = none.
    """
    height, width = size
    owner = torch.zeros(height * width, dtype=torch.int32, device=evidence.device)
    winner = resolve_conflicts(pixels.pixel[None], claims[None], evidence[None], height * width)[0].nonzero()[:, 0]
    owner[look_up(pixels.pixel, winner)] = (look_up(pixels.box, winner) + 1).to(torch.int32)
    return owner.view(height, width)


def tight_bounds(pixels: BoxPixels, mine: Tensor, boxes: Tensor, width: int) -> Tensor:
    """Return the bounds, float [N, 4], of each box's own pixels; boxes without any keep theirs."""
    inside = mine.nonzero()[:, 0]
    owner, pixel = look_up(pixels.box, inside), look_up(pixels.pixel, inside)
    row = torch.div(pixel, width, rounding_mode="floor")
    x, y = (pixel - row * width).to(boxes.dtype), row.to(boxes.dtype)
    low, high = torch.stack((x, y), 1), torch.stack((x + 1, y + 1), 1)
    rows = owner[:, None].expand(-1, 2)
    minimum = boxes[:, :2].scatter_reduce(0, rows, low, "amin", include_self=False)
    maximum = boxes[:, 2:].scatter_reduce(0, rows, high, "amax", include_self=False)
    return torch.cat((minimum, maximum), 1)
