"""Classes of pixels, and the pixels of boxes, as operators; :mod:`ocrnet_pl.inference.pixels` has the originals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ocrnet_pl.export.graph import Graph, Value
from ocrnet_pl.export.letterbox import Frame

_FAR = 40.0
"""Size of a logit beyond which exponentials, or products with them, may leave the range of float32."""
_FEW = 6
"""Number of classes below which onnxruntime is faster with one map for each class than with all classes of a pixel side
by side."""


class ClassMap(NamedTuple):
    """The class of every pixel of a batch, and its probability, in the order of the pixels: image, y, x.

    Attributes:
        share: float32, each class's probability times a number above 0 of the pixel's own: [B, S, H, W] where there are
            few classes, otherwise [B, H, W, S].
        most: float32 [B * H * W], the largest share of each pixel.
        every: float32 [B * H * W], the sum of the pixel's shares.
        labels: int32 [B * H * W], the class with the largest share.
        classes: S.
    """

    share: Value
    most: Value
    every: Value
    labels: Value
    classes: int

    @property
    def class_axis(self) -> int:
        """The axis of ``share`` that stands for the classes."""
        return _class_axis(self.classes)

    def own_share(self, listed: BoxPixels, of_class: Value, image: Value, frame: Frame) -> Value:
        """Return for each pair of a box and a pixel the share of the box's class, float32 [R].

        Args:
            listed: The pairs.
            of_class: int64 [M], the class of each box.
            image: int64 [M], the image of each box.
            frame: The size of the images.
        """
        shares = self.share.reshape(-1)
        if self.class_axis == 3:
            return shares.at(listed.pixel * self.classes + listed.of_row(of_class))
        maps_before = image * (self.classes - 1) + of_class
        return shares.at(listed.pixel + listed.of_row(maps_before * frame.pixels))


def _class_axis(classes: int) -> int:
    """Return the axis on which so many classes are fastest: onnxruntime's maxima and sums over many want the last."""
    return 1 if classes < _FEW else 3


def class_map(graph: Graph, logits: Value, stride: int, classes: int, frame: Frame) -> ClassMap:
    """Scale logits to the images' size, and find each pixel's best class.

    Args:
        graph: The graph.
        logits: float32 [B, S, h, w], over the network's input.
        stride: Side of a cell of the logits in pixels of the input.
        classes: S.
        frame: Where the images lie in the input.
    """
    ends = graph.op("ReduceMin", logits, keepdims=0), graph.op("ReduceMax", logits, keepdims=0)
    near = ((ends[0] > -_FAR) & (ends[1] < _FAR)).reshape(1)
    axis = _class_axis(classes)
    if axis == 3:
        logits = graph.op("Transpose", logits, perm=[0, 2, 3, 1])
    down, across = (2, 3) if axis == 1 else (1, 2)

    def shares(scaled: Value) -> Value:
        return graph.shortcut(
            near,
            lambda: graph.op("Exp", scaled),
            lambda: graph.op("Exp", scaled - scaled.largest(axis, keep=True)),
        )

    def in_input() -> Value:
        if stride == 1:
            return logits
        scales = np.ones(4, np.float32)
        scales[[down, across]] = stride
        return graph.op("Resize", logits, None, graph.constant(scales), mode="linear")

    def in_images() -> Value:
        ends, axes = graph.concat(frame.inner_height, frame.inner_width), graph.constant(np.array([down, across]))
        content = graph.op("Slice", in_input(), ends.filled(0), ends, axes)
        sides = frame.height, frame.width
        sizes = graph.join(frame.batch, classes, *sides) if axis == 1 else graph.join(frame.batch, *sides, classes)
        return graph.op("Resize", content, None, None, sizes, mode="linear")

    # Images of the size of the input are in it pixel by pixel.
    fills = [own.equals(logits.length(along) * stride) for own, along in ((frame.height, down), (frame.width, across))]
    same = frame.inner_height.equals(frame.height) & frame.inner_width.equals(frame.width) & fills[0] & fills[1]
    share = graph.shortcut(same, lambda: shares(in_input()), lambda: shares(in_images()))
    if axis == 1:
        most, every, labels = _over_maps(share, classes)
    else:
        labels = graph.op("ArgMax", share, kind=np.int64, axis=3, keepdims=0)
        most, every = share.largest(-1), share.total(-1)
    return ClassMap(share, most.reshape(-1), every.reshape(-1), labels.to(np.int32).reshape(-1), classes)


def _over_maps(share: Value, classes: int) -> tuple[Value, Value, Value]:
    """Return maximum, sum, and the index of the first maximum of the maps of the classes, [B, S, H, W]."""
    maps = [share.column(index, axis=1) for index in range(classes)]
    most = every = maps[0]
    labels: Value | None = None
    for index, own in enumerate(maps[1:], 1):
        ahead = own > most
        # What is false is class 0: a choice from two classes of whole numbers takes five times as long.
        labels = ahead.to(np.int32) if labels is None else share.graph.where(ahead, index, labels)
        most, every = own.at_least(most), every + own
    return most, every, most.filled(0, np.int32) if labels is None else labels


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
        row_end: int64 [rows], the index after the last pair of each row.
        row_length: int64 [rows], the number of pairs of each row.
        box_end: int64 [M], the index after the last pair of each box.
        box_length: int64 [M], the number of pairs of each box.
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
    row_end: Value
    row_length: Value
    box_end: Value
    box_length: Value

    @property
    def column(self) -> Value:
        """The column of a box that each pixel is in, int64 [R], as an index into ``column_box``."""
        return self.pixel - self.column_shift.at(self.row)

    def of_row(self, values: Value) -> Value:
        """Return the values of boxes, [M], for the box of each pair, [R]."""
        return values.at(self.row_box).at(self.row)


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
    row_end = lengths.running_total()
    row_start = row_end - lengths
    pairs = columns * rows
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
        row_end,
        lengths,
        pairs.running_total(),
        pairs,
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
        sums: int32 [R + 1], how many of the pairs before each one count.
        in_column: float32 [columns], 1 if there is a pixel in the column.
    """

    pixels: BoxPixels
    sums: Value
    in_column: Value

    @classmethod
    def of(cls, pixels: BoxPixels, column: Value, counting: Value) -> BoxReach:
        """Count pixels.

        Args:
            pixels: The boxes.
            column: The column of each pair, from ``pixels``.
            counting: float32 [R], 1 for the pairs that count, else 0.
        """
        return cls(pixels, sums_before(counting), pixels.x.filled(0.0, np.float32).scatter(column, counting, "max"))

    def number(self) -> Value:
        """Return the number of pixels of each box, int32 [M]."""
        return sums_within(self.sums, self.pixels.box_end, self.pixels.box_length)

    def share(self) -> Value:
        """Return the share of rows times the share of columns in which each box has pixels, float32 [M]."""
        row_box, column_box = self.pixels.row_box, self.pixels.column_box
        reached = self._sum(row_box, self._in_row()) * self._sum(column_box, self.in_column)
        every = self._sum(row_box, row_box.filled(1.0, np.float32))
        every *= self._sum(column_box, column_box.filled(1.0, np.float32))
        return reached / every.at_least(1.0)

    def bounds(self, boxes: Value) -> Value:
        """Return the bounds, float32 [M, 4], of each box's pixels; a box without pixels keeps its own sides."""
        graph, found = boxes.graph, []
        for box, place, there in (
            (self.pixels.column_box, self.pixels.x, self.in_column),
            (self.pixels.row_box, self.pixels.y, self._in_row()),
        ):
            inside, at = there > 0.0, place.to(np.float32)
            far = self.pixels.box_end.filled(np.inf, np.float32)
            low = far.scatter(box, graph.where(inside, at, np.inf), "min")
            high = self.pixels.box_end.filled(-np.inf, np.float32).scatter(
                box, graph.where(inside, at + 1.0, -np.inf), "max"
            )
            found.append((low, high))
        (left, right), (top, bottom) = found
        bounds = graph.stack(left, top, right, bottom)
        return graph.where(graph.op("IsInf", bounds, kind=bool), boxes, bounds)

    def _in_row(self) -> Value:
        """Return 1, float32 [rows], for rows with pixels, else 0."""
        return sums_within(self.sums, self.pixels.row_end, self.pixels.row_length).to(np.float32).at_most(1.0)

    def _sum(self, box: Value, values: Value) -> Value:
        return self.pixels.box_end.filled(0.0, np.float32).scatter(box, values, "add")


def sums_before(counting: Value) -> Value:
    """Return how many of the elements before each one, and of all, count.

    Not a scatter of single elements, which takes three times as long.

    Args:
        counting: [R], 1 for those that count, else 0.

    Returns:
        int32 [R + 1].
    """
    graph = counting.graph
    return graph.concat(graph.constant(np.zeros(1, np.int32)), counting.to(np.int32).running_total())


def sums_within(sums: Value, end: Value, length: Value) -> Value:
    """Return how many elements count within stretches that have an end and a length, both int64 [K]."""
    return sums.at(end) - sums.at(end - length)
