"""The pixels of an image and those of its boxes, in the form that fusion works on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ocrnet_pl.losses.assignment import resolve_conflicts

BLOCK = 2**24
"""Number of pairs of a box and a pixel that are processed together; they take about 2 GB."""


class SemanticMap(NamedTuple):
    """The class of every pixel, and its probability.

    Attributes:
        probability: float [S, H, W], summing to 1 over the classes.
        top: float [H, W], the largest probability of each pixel.
        labels: int64 [H, W], the class with that probability.
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
        """(height, width) in pixels."""
        return self.labels.shape[0], self.labels.shape[1]


class BoxPixels(NamedTuple):
    """Pixels of boxes, as one flat list of R pairs: box by box, row by row.

    Values that are equal in a whole row or column of a box are kept once per row or column, for all boxes together.

    Attributes:
        pixel: int64 [R], ``y * width + x``.
        row: int64 [R], the row of the box that the pixel is in, as an index into ``row_box``.
        column: int64 [R], the column of the box that the pixel is in, as an index into ``column_box``.
        row_box: int64 [rows], the box of each row of a box.
        column_box: int64 [columns], the box of each column of a box.
        row_offset: float [rows], distance from the box's centre in half heights, -1 to 1.
        column_offset: float [columns], distance from the box's centre in half widths, -1 to 1.
        column_shift: int64 [rows], the difference between a pixel in the row and the index of its column.
    """

    pixel: Tensor
    row: Tensor
    column: Tensor
    row_box: Tensor
    column_box: Tensor
    row_offset: Tensor
    column_offset: Tensor
    column_shift: Tensor


class BoxReach:
    """How many pixels each box has, and in which of its rows and columns. They are added part by part.

    Args:
        pixels: Any block of the boxes' pixels.
        num_boxes: Number of boxes N.
    """

    def __init__(self, pixels: BoxPixels, num_boxes: int) -> None:
        self._num_boxes = num_boxes
        self._row_box, self._column_box, self._column_shift = pixels.row_box, pixels.column_box, pixels.column_shift
        self._in_row = torch.zeros_like(pixels.row_box)
        self._in_column = torch.zeros_like(pixels.column_box)

    def add(self, pixel: Tensor, row: Tensor) -> None:
        """Add pixels, each at most once per box.

        Args:
            pixel: int64 [K], ``y * width + x``.
            row: int64 [K], the row of the box that each pixel is in, as an index into ``row_box``.
        """
        # Not bincount, which makes a GPU wait.
        self._in_row.scatter_add_(0, row, torch.ones_like(row))
        self._in_column.index_fill_(0, pixel - look_up(self._column_shift, row), 1)

    def count(self) -> Tensor:
        """Return the number of pixels of each box, int64 [N]."""
        return self._sum(self._row_box, self._in_row)

    def share(self) -> Tensor:
        """Return the share of rows times the share of columns in which each box has pixels, float [N], 0 to 1."""
        rows = self._sum(self._row_box, self._in_row.clamp(max=1))
        columns = self._sum(self._column_box, self._in_column)
        every = self._sum(self._row_box, torch.ones_like(self._row_box))
        every *= self._sum(self._column_box, torch.ones_like(self._column_box))
        return rows * columns / every.clamp(min=1)

    def _sum(self, box: Tensor, values: Tensor) -> Tensor:
        return values.new_zeros(self._num_boxes).scatter_add(0, box, values)


class BoxLines(NamedTuple):
    """The rows and columns of pixels whose centre is in each of N boxes, box by box.

    Attributes:
        first_row: int64 [N], the image's row that is each box's first.
        first_column: int64 [N], the image's column that is each box's first.
        rows: int64 [N], the number of each box's rows.
        columns: int64 [N], the number of each box's columns.
        row_box: int64 [rows], the box of each row of a box.
        column_box: int64 [columns], the box of each column of a box.
        y: int64 [rows], the row of the image.
        x: int64 [columns], the column of the image.
        row_offset: float [rows], distance from the box's centre in half heights, -1 to 1.
        column_offset: float [columns], distance from the box's centre in half widths, -1 to 1.
        pairs: Number of pairs of a box and a pixel in it.
    """

    first_row: Tensor
    first_column: Tensor
    rows: Tensor
    columns: Tensor
    row_box: Tensor
    column_box: Tensor
    y: Tensor
    x: Tensor
    row_offset: Tensor
    column_offset: Tensor
    pairs: int


def box_lines(boxes: Tensor, size: tuple[int, int]) -> BoxLines:
    """List the rows and columns of the pixels whose centre is in each box.

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
    # All sizes in one transfer.
    num_columns, num_rows, pairs = torch.stack((columns.sum(), rows.sum(), (columns * rows).sum())).tolist()
    column_box, x = _lines(columns, x1, num_columns)
    row_box, y = _lines(rows, y1, num_rows)
    center, half = (boxes[:, :2] + boxes[:, 2:]) / 2, ((boxes[:, 2:] - boxes[:, :2]) / 2).clamp(min=0.5)
    row_offset = (y + 0.5 - center[row_box, 1]) / half[row_box, 1]
    column_offset = (x + 0.5 - center[column_box, 0]) / half[column_box, 0]
    return BoxLines(y1, x1, rows, columns, row_box, column_box, y, x, row_offset, column_offset, pairs)


def _lines(counts: Tensor, first: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """List the rows (or columns) of all boxes: the box of each, and its place in the image."""
    box = torch.repeat_interleave(counts, output_size=total)
    return box, torch.arange(len(box), device=counts.device) + (first - _starts(counts))[box]


def _starts(counts: Tensor) -> Tensor:
    """Return the number of elements before each box's own."""
    return counts.cumsum(0) - counts


def box_pixels(boxes: Tensor, size: tuple[int, int], block: int = BLOCK) -> Iterator[BoxPixels]:
    """List the pixels whose centre is in each box; the work grows with the boxes' area, not with boxes x image.

    Args:
        boxes: float [N, 4], xyxy, within the image.
        size: (height, width) of the image.
        block: Number of pairs that are listed together; it may be exceeded by a row of one box.

    Yields:
        All pairs at once if they fit into one block, else block by block, in order.
    """
    lines = box_lines(boxes, size)
    row_box, num_rows = lines.row_box, len(lines.row_box)
    lengths = lines.columns[row_box]
    row_end = lengths.cumsum(0)
    row_start = row_end - lengths
    first_pixel = lines.y * size[1] + lines.first_column[row_box]
    pixel_shift, column_shift = first_pixel - row_start, first_pixel - _starts(lines.columns)[row_box]

    def pairs(first_row: int, last_row: int, count: int) -> BoxPixels:
        row = torch.repeat_interleave(lengths[first_row:last_row], output_size=count)
        place = torch.arange(len(row), device=boxes.device)
        if first_row:
            row += first_row
            place += row_start[first_row]
        pixel = place + look_up(pixel_shift, row)
        column = pixel - look_up(column_shift, row)
        return BoxPixels(
            pixel, row, column, row_box, lines.column_box, lines.row_offset, lines.column_offset, column_shift
        )

    if lines.pairs <= block:
        yield pairs(0, num_rows, lines.pairs)
        return
    # A block ends with the row in which the pairs reach a multiple of its size.
    cuts = torch.searchsorted(row_end, torch.arange(block, lines.pairs, block, device=boxes.device)) + 1
    ends = {0: 0, num_rows: lines.pairs} | dict(torch.stack((cuts, row_end[cuts - 1]), 1).tolist())
    for first_row, last_row in pairwise(sorted(ends)):
        yield pairs(first_row, last_row, ends[last_row] - ends[first_row])


def look_up(table: Tensor, index: Tensor) -> Tensor:
    """Return ``table[index]``, [N] to the shape of ``index``; several times faster than indexing on a CPU."""
    return table.index_select(0, index.flatten()).view(index.shape)


def strongest(pixel: Tensor, evidence: Tensor, size: tuple[int, int]) -> Tensor:
    """Return which claims win, int64 [W] in ascending order: each pixel goes to the claim with the most evidence.

    Args:
        pixel: int64 [K], the claimed pixels.
        evidence: float [K], not negative.
        size: (height, width) of the image.
    """
    every = torch.ones_like(pixel, dtype=torch.bool)
    return resolve_conflicts(pixel[None], every[None], evidence[None], size[0] * size[1])[0].nonzero()[:, 0]


def tight_bounds(pixel: Tensor, row: Tensor, row_box: Tensor, boxes: Tensor, width: int) -> Tensor:
    """Return the bounds, float [N, 4], of each box's own pixels; a box without pixels keeps its own sides.

    Args:
        pixel: int64 [W], the pixels that their boxes own, in the order of :class:`BoxPixels`.
        row: int64 [W], the row of a box that each pixel is in, as an index into ``row_box``.
        row_box: int64 [rows], the box of each row of a box.
        boxes: float [N, 4], xyxy.
        width: Width of the image in pixels.
    """
    if not len(pixel):
        return boxes
    # Pixels are in order: the first and last of a row are its ends.
    rows = torch.arange(len(row_box), device=row.device)
    first, end = torch.searchsorted(row, rows), torch.searchsorted(row, rows, right=True)
    empty = (end == first)[:, None]
    leftmost, rightmost = pixel[first.clamp(max=len(pixel) - 1)], pixel[(end - 1).clamp(min=0)]
    y = torch.div(leftmost, width, rounding_mode="floor")
    x1, x2 = leftmost - y * width, rightmost - y * width + 1
    low, high = torch.stack((x1, y), 1).to(boxes.dtype), torch.stack((x2, y + 1), 1).to(boxes.dtype)
    owner = row_box[:, None].expand(-1, 2)
    none = torch.full_like(boxes[:, :2], torch.inf)
    minimum = none.scatter_reduce(0, owner, low.masked_fill(empty, torch.inf), "amin")
    maximum = (-none).scatter_reduce(0, owner, high.masked_fill(empty, -torch.inf), "amax")
    bounds = torch.cat((minimum, maximum), 1)
    return torch.where(bounds.isinf(), boxes, bounds)
