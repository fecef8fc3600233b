"""The letterbox as operators of a graph; :mod:`ocrnet_pl.imaging.geometry` has the original."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ocrnet_pl.export.graph import Graph, Value
from ocrnet_pl.imaging.geometry import FILL

_OPENCV_CHANNELS = 4
"""Number of channels up to which images are scaled up by OpenCV, and not by torch."""


class Frame(NamedTuple):
    """Where the images lie in the network's input; everything is one number, [1].

    Attributes:
        batch: Number of images, int64.
        height: Height of the images, int64.
        width: Width of the images, int64.
        inner_height: Height of the scaled images, int64.
        inner_width: Width of the scaled images, int64.
    """

    batch: Value
    height: Value
    width: Value
    inner_height: Value
    inner_width: Value

    @property
    def pixels(self) -> Value:
        """The number of pixels of an image."""
        return self.height * self.width

    @property
    def scale_x(self) -> Value:
        """Scaled width divided by width, float32."""
        return (self.inner_width.to(np.float64) / self.width.to(np.float64)).to(np.float32)

    @property
    def scale_y(self) -> Value:
        """Scaled height divided by height, float32."""
        return (self.inner_height.to(np.float64) / self.height.to(np.float64)).to(np.float32)


def letterbox(graph: Graph, images: Value, size: tuple[int, int], channels: int) -> tuple[Value, Frame]:
    """Scale images to fit, with their aspect ratio kept, and pad them at the bottom and right with grey.

    The scaling gives the very pixels of the original, whose arithmetic in whole numbers is followed here: some networks
    answer to a difference of one grey level. The operator Resize has other roundings in each runtime.

    Args:
        graph: The graph.
        images: uint8 [B, H, W, C].
        size: (height, width) of the result.
        channels: C.

    Returns:
        uint8 [B, C, height, width], and where the images lie in it.
    """
    batch, height, width = (images.length(axis) for axis in range(3))
    exact = height.to(np.float64), width.to(np.float64)
    factor = (float(size[0]) / exact[0]).at_most(float(size[1]) / exact[1])
    inner = [
        graph.op("Round", side * factor).to(np.int64).at_least(1).at_most(limit)
        for side, limit in zip(exact, size, strict=True)
    ]
    frame = Frame(batch, height, width, *inner)
    planes = graph.op("Transpose", images, perm=[0, 3, 1, 2])

    def scaled() -> Value:
        pixels = planes.to(np.float32)
        if channels > _OPENCV_CHANNELS:
            return _averaged(graph, pixels, frame).to(np.uint8)
        grows = (frame.inner_height >= height) & (frame.inner_width >= width)
        return graph.choose(
            grows, lambda: _interpolated(graph, pixels, frame), lambda: _averaged(graph, pixels, frame)
        ).to(np.uint8)

    # To scale images to their own size would change nothing, and take as long as a small network.
    same = frame.inner_height.equals(height) & frame.inner_width.equals(width)
    content = graph.shortcut(same, lambda: planes, scaled)
    missing = [limit - side for side, limit in zip(inner, size, strict=True)]
    pads = graph.join(0, 0, 0, 0, 0, 0, *missing)
    padded = graph.op("Pad", content, pads, graph.constant(np.array(FILL, np.uint8)))
    return padded.reshape(0, channels, *size), frame


def _averaged(graph: Graph, pixels: Value, frame: Frame) -> Value:
    """Scale [B, C, H, W] down, each pixel the mean of those that it covers; rows first, each rounded, as torch does."""
    along, bits = _averages(graph, frame.width, frame.inner_width)
    rows = _rounded(graph, graph.op("MatMul", pixels, graph.op("Transpose", along, perm=[1, 0])), bits)
    along, bits = _averages(graph, frame.height, frame.inner_height)
    return _rounded(graph, graph.op("MatMul", along, rows), bits)


def _averages(graph: Graph, before: Value, after: Value) -> tuple[Value, Value]:
    """Return whole weights, float32 [after, before], and what a weight of 1 is among them, float32 [1]."""
    # Twice the product of both sides is the unit, so that all but the division is in whole numbers.
    many, few = before.to(np.float64), after.to(np.float64)
    center = (graph.numbers(after).to(np.float64) * 2.0 + 1.0) * many
    place = (graph.numbers(before).to(np.float64) * 2.0 + 1.0) * few
    distance = graph.op("Abs", place.expand(0) - center.expand(1))
    weights = (many.at_least(few) * 2.0 - distance).at_least(0.0)
    weights = weights / weights.total(1, keep=True)
    # As many bits as fit into 16 with a sign.
    powers = graph.constant(2.0 ** np.arange(1, 23))
    fits = (weights.largest(0).largest(0, keep=True) * powers + 0.5 < 32768.0).to(np.float64)
    one = graph.op("Pow", graph.constant(np.array([2.0])), fits.total(0, keep=True))
    return graph.op("Floor", weights * one + 0.5).to(np.float32), one.to(np.float32)


def _rounded(graph: Graph, sums: Value, one: Value) -> Value:
    return graph.op("Floor", (sums + one / 2.0) / one).at_least(0.0).at_most(255.0)


def _interpolated(graph: Graph, pixels: Value, frame: Frame) -> Value:
    """Scale [B, C, H, W] up, with weights in 256 parts and one rounding at the end, as OpenCV does."""
    across = _neighbours(graph, frame.width, frame.inner_width)
    rows = graph.op("MatMul", pixels, graph.op("Transpose", across, perm=[1, 0]))
    sums = graph.op("MatMul", _neighbours(graph, frame.height, frame.inner_height), rows)
    return graph.op("Floor", sums / 65536.0 + 0.5)


def _neighbours(graph: Graph, before: Value, after: Value) -> Value:
    """Return the weights of the two nearest pixels in 256 parts, float32 [after, before]."""
    few, many = before.to(np.float64), after.to(np.float64)
    # In units of half a pixel of the larger image.
    place = ((graph.numbers(after).to(np.float64) * 2.0 + 1.0) * few - many).at_least(0.0)
    place = place.at_most((few - 1.0) * many * 2.0)
    first = graph.op("Floor", place / (many * 2.0))
    rest = place - first * many * 2.0
    second = graph.op("Round", rest * 256.0 / (many * 2.0)).to(np.float32).expand(1)
    offset = (graph.numbers(before).expand(0) - first.to(np.int64).expand(1)).to(np.float32)
    return graph.where(offset.equals(0.0), 256.0 - second, graph.where(offset.equals(1.0), second, 0.0))
