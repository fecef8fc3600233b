"""The content of a split, summed up in one pass with a fixed amount of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.doctor.agreement import map_agreement
from ocrnet_pl.imaging.geometry import Size, letterbox_placement
from ocrnet_pl.metrics.object_limit import OverLimit
from ocrnet_pl.structures import IGNORE_INDEX, Sample, Taxonomy

BOX_EDGES = 2.0 ** np.arange(0, 12.5, 0.5)
"""Edges of the histogram of box sizes, the square root of the area in pixels."""
COUNT_EDGES = np.array([0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 256, 512, 1e9])
"""Edges of the histogram of boxes per image."""
IMAGE_EDGES = np.array([0, 64, 128, 192, 256, 384, 512, 640, 768, 1024, 1536, 2048, 3072, 4096, 8192, 1e9])
"""Edges of the histogram of the images' longer sides, in pixels."""
TINY = 4.0
"""Boxes with a shorter side below this at the input size, in pixels, are counted as tiny."""


class Measures(NamedTuple):
    """The measures of one image.

    Attributes:
        size: (height, width) in pixels.
        boxes: int64 [D], number of boxes by class, without crowds.
        crowds: int64 [D], number of crowds by class.
        sizes: int64 [D, bins of ``BOX_EDGES``], histogram of box sizes by class.
        tiny: Number of boxes that are tiny at the input size.
        longer: float [boxes], the longer side of each box at the input size in pixels, without crowds.
        pixels: int64 [S + 1], number of pixels by class, the ignored ones last; None without a map.
        boxed: Whether the image was labelled for boxes.
        agreement: [D, 3], the result of :func:`~ocrnet_pl.doctor.agreement.map_agreement`.
    """

    size: Size
    boxes: NDArray[np.int64]
    crowds: NDArray[np.int64]
    sizes: NDArray[np.int64]
    tiny: int
    longer: NDArray[np.float64]
    pixels: NDArray[np.int64] | None
    boxed: bool
    agreement: NDArray[np.float64]


def measure(sample: Sample, taxonomy: Taxonomy, input_size: Size) -> Measures:
    """Measure one image.

    Args:
        sample: The sample, as the source returns it.
        taxonomy: Categories of the source.
        input_size: (height, width) of the network's input.
    """
    classes = taxonomy.num_detection
    labels, crowd = sample.labels.numpy(), sample.crowd.numpy()
    boxes = sample.boxes.numpy().astype(np.float64)[~crowd]
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    bins = np.clip(np.digitize(np.sqrt(sides.prod(1)), BOX_EDGES) - 1, 0, len(BOX_EDGES) - 2)
    sizes = np.zeros((classes, len(BOX_EDGES) - 1), dtype=np.int64)
    np.add.at(sizes, (labels[~crowd], bins), 1)
    scale = letterbox_placement(sample.size, input_size).scale
    scaled = sides * [scale[1], scale[0]]
    pixels = None
    if sample.semantic is not None:
        counts = np.bincount(sample.semantic.numpy().reshape(-1), minlength=256)
        pixels = np.append(counts[: taxonomy.num_semantic], counts[IGNORE_INDEX])
    return Measures(
        sample.size,
        np.bincount(labels[~crowd], minlength=classes),
        np.bincount(labels[crowd], minlength=classes),
        sizes,
        int((scaled < TINY).any(1).sum()),
        scaled.max(1),
        pixels,
        bool(sample.supervision.detection.any()),
        map_agreement(sample, taxonomy),
    )


class SplitStatistics:
    """The sums of one split.

    Args:
        name: Name of the split.
        taxonomy: Categories of its source.
        limit: Returns the largest number of boxes that the network returns for an image of a given (height, width);
            None for any number.
        widest: The longest side at the input size, in pixels, that the network can give a box; None for any.

    Attributes:
        images: Number of readable images.
        unreadable: Number of unreadable images.
        boxes: int64 [D], number of boxes by class, without crowds.
        box_images: int64 [D], number of images with a box of the class.
        crowds: int64 [D], number of crowds by class.
        sizes: int64 [D, bins of ``BOX_EDGES``], histogram of box sizes by class.
        tiny: Number of boxes that are tiny at the input size.
        widest: The longest side at the input size, in pixels, that the network can give a box.
        wide: Number of boxes with a longer side than that.
        pixels: int64 [S + 1], number of pixels by class, the ignored ones last.
        pixel_images: int64 [S], number of images with a pixel of the class.
        maps: Number of images with a map of classes.
        boxed: Number of images labelled for boxes.
        agreement: [D, 3], sums of the images' agreement between instance masks and the map of classes.
        counts: int64, histogram of boxes per image over ``COUNT_EDGES``.
        sides: int64, histogram of the longer sides over ``IMAGE_EDGES``.
        over_limit: Number of images with more boxes than the network may return.
        smallest: (height, width) of the image with the fewest pixels.
        largest: (height, width) of the image with the most pixels.
    """

    def __init__(
        self,
        name: str,
        taxonomy: Taxonomy,
        limit: Callable[[Size], int] | None = None,
        widest: float | None = None,
    ) -> None:
        self.name = name
        self.taxonomy = taxonomy
        self.images = self.unreadable = self.tiny = self.wide = self.maps = self.boxed = 0
        self.boxes = np.zeros(taxonomy.num_detection, dtype=np.int64)
        self.box_images = np.zeros_like(self.boxes)
        self.crowds = np.zeros_like(self.boxes)
        self.sizes = np.zeros((taxonomy.num_detection, len(BOX_EDGES) - 1), dtype=np.int64)
        self.pixels = np.zeros(taxonomy.num_semantic + 1, dtype=np.int64)
        self.pixel_images = np.zeros(taxonomy.num_semantic, dtype=np.int64)
        self.agreement = np.zeros((taxonomy.num_detection, 3))
        self.counts = np.zeros(len(COUNT_EDGES) - 1, dtype=np.int64)
        self.sides = np.zeros(len(IMAGE_EDGES) - 1, dtype=np.int64)
        self._limit = limit
        self.widest = np.inf if widest is None else widest
        self.over_limit = OverLimit()
        self.smallest: Size = (0, 0)
        self.largest: Size = (0, 0)

    def add(self, measures: Measures | None) -> None:
        """Add an image; None for one that could not be read."""
        if measures is None:
            self.unreadable += 1
            return
        self.images += 1
        self.boxes += measures.boxes
        self.box_images += measures.boxes > 0
        self.crowds += measures.crowds
        self.sizes += measures.sizes
        self.tiny += measures.tiny
        self.wide += int((measures.longer > self.widest).sum())
        self.agreement += measures.agreement
        self.sides += np.histogram(max(measures.size), IMAGE_EDGES)[0]
        if measures.boxed:
            self.boxed += 1
            self.counts += np.histogram(measures.boxes.sum(), COUNT_EDGES)[0]
        if self._limit is not None:
            own = OverLimit.of(int(measures.boxes.sum()), self._limit(measures.size))
            self.over_limit = OverLimit.joined([self.over_limit, own])
        if measures.pixels is not None:
            self.maps += 1
            self.pixels += measures.pixels
            self.pixel_images += measures.pixels[:-1] > 0
        area = measures.size[0] * measures.size[1]
        if self.images == 1 or area < self.smallest[0] * self.smallest[1]:
            self.smallest = measures.size
        if area > self.largest[0] * self.largest[1]:
            self.largest = measures.size
