"""Classes of pixels, and the pixels of boxes, as operators; :mod:`ocrnet_pl.inference.pixels` has the originals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ocrnet_pl.export.graph import Graph, Value
from ocrnet_pl.export.letterbox import Frame


class ClassMap(NamedTuple):
    """The class of every pixel of a batch, and its probability, in the order of the pixels: image, y, x.

    Attributes:
        relative: float32 [B * S * H * W], each class's probability as a share of the pixel's largest, in the order
            image, class, y, x.
        top: float32 [B * H * W], the largest probability of each pixel.
        labels: int64 [B * H * W], the class with that probability.
        classes: S.
    """

    relative: Value
    top: Value
    labels: Value
    classes: int


def class_map(graph: Graph, logits: Value, stride: int, classes: int, frame: Frame) -> ClassMap:
    """Scale logits to the images' size, and find each pixel's best class.

    Args:
        graph: The graph.
        logits: float32 [B, S, h, w], over the network's input.
        stride: Side of a cell of the logits in pixels of the input.
        classes: S.
        frame: Where the images lie in the input.
    """
    if stride > 1:
        scales = graph.constant(np.array([1, 1, stride, stride], np.float32))
        logits = graph.op("Resize", logits, None, scales, mode="linear")
    ends, axes = graph.concat(frame.inner_height, frame.inner_width), graph.constant(np.array([2, 3], np.int64))
    content = graph.op("Slice", logits, ends.filled(0), ends, axes)
    sizes = graph.join(frame.batch, classes, frame.height, frame.width)
    resized = graph.op("Resize", content, None, None, sizes, mode="linear")
    # Not Softmax, which turns the axes around and back, and takes ten times as long. Of its division, which most pixels
    # have no use for, only the largest is made: 1 divided by the sum.
    relative = graph.op("Exp", resized - resized.largest(1, keep=True))
    top = 1.0 / relative.total(1)
    # Not ArgMax, which takes three times as long: the first class of those whose share is 1.
    left = graph.constant(np.arange(classes, 0, -1, dtype=np.float32).reshape(-1, 1, 1))
    labels = (float(classes) - ((relative >= 1.0).to(np.float32) * left).largest(1)).to(np.int64)
    return ClassMap(relative.reshape(-1), top.reshape(-1), labels.reshape(-1), classes)


class BoxPixels(NamedTuple):
    """The pixels whose centre is in each of M boxes, as one flat list of R pairs: box by box, row by row.

    Attributes:
        pixel: int64 [R], the place of the pixel in :class:`ClassMap`.
        row: int64 [R], the row of the box that the pixel is in, as an index into ``row_box``.
        row_box: int64 [rows], the box of each row of a box.
        column_box: int64 [columns], the box of each column of a box.
        row_offset: float32 [rows], distance from the box's centre in half heights, -1 to 1.
        column_offset: float32 [columns], distance from the box's centre in half widths, -1 to 1.
        column_shift: int64 [rows], the difference between a pixel in the row and the index of its column.
        y: int64 [rows], the row of the image.
        x: int64 [columns], the column of the image.
        none: int64 [M], zeros.
    """

    pixel: Value
    row: Value
    row_box: Value
    column_box: Value
    row_offset: Value
    column_offset: Value
    column_shift: Value
    y: Value
    x: Value
    none: Value


def box_pixels(graph: Graph, boxes: Value, image: Value, frame: Frame) -> BoxPixels:
    """List the pixels whose centre is in each box.

    Args:
        graph: The graph.
        boxes: float32 [M, 4], within their images.
        image: int64 [M], the image of each box.
        frame: The size of the images.
    """
    first = graph.op("Ceil", boxes - 0.5).to(np.int64).at_least(0)
    x1, x2 = (first.column(side).at_most(frame.width) for side in (0, 2))
    y1, y2 = (first.column(side).at_most(frame.height) for side in (1, 3))
    columns, rows = (x2 - x1).at_least(0), (y2 - y1).at_least(0)
    column_box, x, column_start = _lines(graph, columns, x1)
    row_box, y, _ = _lines(graph, rows, y1)
    lengths = columns.at(row_box)
    row_start = lengths.running_total() - lengths
    first_pixel = image.at(row_box) * frame.pixels + y * frame.width + x1.at(row_box)
    pixel_shift, column_shift = first_pixel - row_start, first_pixel - column_start.at(row_box)
    row = _repeated(graph, lengths)
    pixel = graph.numbers(row.length(0)) + pixel_shift.at(row)
    center_x, half_x = _middle(boxes.column(0), boxes.column(2))
    center_y, half_y = _middle(boxes.column(1), boxes.column(3))
    return BoxPixels(
        pixel,
        row,
        row_box,
        column_box,
        (y.to(np.float32) + 0.5 - center_y.at(row_box)) / half_y.at(row_box),
        (x.to(np.float32) + 0.5 - center_x.at(column_box)) / half_x.at(column_box),
        column_shift,
        y,
        x,
        columns.filled(0),
    )


def _middle(low: Value, high: Value) -> tuple[Value, Value]:
    return (low + high) / 2.0, ((high - low) / 2.0).at_least(0.5)


def _lines(graph: Graph, counts: Value, first: Value) -> tuple[Value, Value, Value]:
    """List the rows (or columns) of all boxes: the box of each, its place in the image, and each box's first one."""
    start = counts.running_total() - counts
    box = _repeated(graph, counts)
    return box, graph.numbers(box.length(0)) + (first - start).at(box), start


def _repeated(graph: Graph, counts: Value) -> Value:
    """Return 0, 1, 2, ..., each as often as ``counts`` says."""
    total = counts.total(0, keep=True)
    # One step up where each number ends.
    steps = graph.full(total + 1, 0, np.int64).scatter(counts.running_total(), counts.filled(1), "add")
    return steps.running_total().part(0, total, 0)


class BoxReach(NamedTuple):
    """How many pixels each of M boxes has, and in which of its rows and columns.

    Attributes:
        pixels: The boxes.
        in_row: int64 [rows], the number of pixels in each row.
        in_column: int64 [columns], 1 if there is a pixel in the column.
    """

    pixels: BoxPixels
    in_row: Value
    in_column: Value

    @classmethod
    def of(cls, pixels: BoxPixels, pixel: Value, row: Value) -> BoxReach:
        """Count pixels, each at most once per box."""
        column = pixel - pixels.column_shift.at(row)
        return cls(
            pixels,
            pixels.row_box.filled(0).scatter(row, row.filled(1), "add"),
            pixels.column_box.filled(0).scatter(column, column.filled(1)),
        )

    def number(self) -> Value:
        """Return the number of pixels of each box, int64 [M]."""
        return self._sum(self.pixels.row_box, self.in_row)

    def share(self) -> Value:
        """Return the share of rows times the share of columns in which each box has pixels, float32 [M]."""
        row_box, column_box = self.pixels.row_box, self.pixels.column_box
        reached = self._sum(row_box, self.in_row.at_most(1)) * self._sum(column_box, self.in_column)
        every = self._sum(row_box, row_box.filled(1)) * self._sum(column_box, column_box.filled(1))
        return reached.to(np.float32) / every.at_least(1).to(np.float32)

    def bounds(self, boxes: Value) -> Value:
        """Return the bounds, float32 [M, 4], of each box's pixels; a box without pixels keeps its own sides."""
        graph, found = boxes.graph, []
        for box, place, there in (
            (self.pixels.column_box, self.pixels.x, self.in_column),
            (self.pixels.row_box, self.pixels.y, self.in_row),
        ):
            inside, at = there > 0, place.to(np.float32)
            far = self.pixels.none.filled(np.inf, np.float32)
            low = far.scatter(box, graph.where(inside, at, np.inf), "min")
            high = self.pixels.none.filled(-np.inf, np.float32).scatter(
                box, graph.where(inside, at + 1.0, -np.inf), "max"
            )
            found.append((low, high))
        (left, right), (top, bottom) = found
        bounds = graph.stack(left, top, right, bottom)
        return graph.where(graph.op("IsInf", bounds, kind=bool), boxes, bounds)

    def _sum(self, box: Value, values: Value) -> Value:
        return self.pixels.none.scatter(box, values, "add")
