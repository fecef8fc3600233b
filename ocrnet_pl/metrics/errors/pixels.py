"""Wrong pixels: which classes are confused, along edges and inside of regions."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.metrics.runs import flat
from ocrnet_pl.structures import IGNORE_INDEX, Prediction, Sample

EDGE = 0.005
"""Width of the band on each side of an edge, as a share of the image's diagonal."""
CERTAIN = 0.9
"""Probability from which a wrong pixel is certain."""


class Edges(NamedTuple):
    """The labelled pixels of one image, and those that are near an edge of the labels.

    Attributes:
        near: bool [H * W], whether a pixel of another class, or without a label, is at most so many pixels away.
        labelled: Number of labelled pixels.
        labelled_near: Number of those that are near an edge.
    """

    near: NDArray[np.bool_]
    labelled: int
    labelled_near: int

    @classmethod
    def of(cls, truth: Sample) -> Edges | None:
        """Find the edges; None without a semantic map."""
        if truth.semantic is None:
            return None
        plane = truth.semantic.as_subclass(Tensor).numpy().astype(np.uint8, copy=False)
        pixels = max(1, round(EDGE * math.hypot(*plane.shape)))
        # Only where all pixels around one are of one class, the largest and the smallest are equal.
        around = np.pad(plane, pixels, mode="edge")
        near = (_widened(around, pixels, np.maximum) != _widened(around, pixels, np.minimum)).reshape(-1)
        labelled = plane.reshape(-1) != IGNORE_INDEX
        return cls(near, int(np.count_nonzero(labelled)), int(np.count_nonzero(near & labelled)))


def _widened(plane: NDArray[np.uint8], pixels: int, extreme: np.ufunc) -> NDArray[np.uint8]:
    """Return the extreme of the square around each pixel, so many pixels to each side, of a map with such a border."""
    for axis in (0, 1):
        plane = np.moveaxis(plane, axis, 0)
        # The window doubles with each step, up to the last one.
        window, whole = 1, 2 * pixels + 1
        while window < whole:
            step = min(window, whole - window)
            plane = extreme(plane[:-step], plane[step:])
            window += step
        plane = np.moveaxis(plane, 0, axis)
    return plane


class PixelErrors(NamedTuple):
    """The wrong pixels of some images. Pixels of classes that an image was not labelled for do not count.

    Attributes:
        inside: int64 [S, S], the wrong pixels away from edges, rows true.
        edges: int64 [S, S], those near edges.
        labelled: Number of labelled pixels.
        labelled_near: Number of labelled pixels near edges.
    """

    inside: NDArray[np.int64]
    edges: NDArray[np.int64]
    labelled: int
    labelled_near: int

    @classmethod
    def nothing(cls, classes: int) -> PixelErrors:
        """Return no image."""
        inside, edges = (np.zeros((classes, classes), np.int64) for _ in range(2))
        return cls(inside, edges, 0, 0)

    def __or__(self, other: PixelErrors) -> PixelErrors:
        """Return the wrong pixels of both."""
        return PixelErrors(
            self.inside + other.inside,
            self.edges + other.edges,
            self.labelled + other.labelled,
            self.labelled_near + other.labelled_near,
        )

    @property
    def wrong(self) -> int:
        """The number of wrong pixels."""
        return int(self.inside.sum() + self.edges.sum())


def pixel_errors(prediction: Prediction, truth: Sample, edges: Edges, classes: int) -> tuple[PixelErrors, float]:
    """Find the wrong pixels of one image.

    Args:
        prediction: The prediction, with a semantic map.
        truth: The sample, with a semantic map.
        edges: Its edges.
        classes: Number of segmentation classes S.

    Returns:
        The wrong pixels, and the share of the labelled ones that are away from edges and wrong with certainty; 0 where
        certainty is unknown.
    """
    assert prediction.semantic is not None and truth.semantic is not None
    true, found = flat(truth.semantic), flat(prediction.semantic)
    places = np.flatnonzero((true != found) & (true != IGNORE_INDEX))
    rows, columns = true[places].astype(np.int64), found[places].astype(np.int64)
    known = truth.supervision.semantic.numpy()
    if not known.all():
        counted = known[rows] & known[columns]
        places, rows, columns = places[counted], rows[counted], columns[counted]
    near = edges.near[places]
    numbers = (near * classes + rows) * classes + columns
    inside, along = np.bincount(numbers, minlength=2 * classes**2).reshape(2, classes, classes)
    sure = 0.0
    if prediction.certainty is not None and edges.labelled:
        certainty = flat(prediction.certainty)[places[~near]]
        sure = float(np.count_nonzero(certainty >= CERTAIN)) / edges.labelled
    return PixelErrors(inside, along, edges.labelled, edges.labelled_near), sure
