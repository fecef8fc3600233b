"""Wrong pixels: which classes are confused, along edges and inside of regions."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.metrics.runs import Overlay, flat
from ocrnet_pl.structures import IGNORE_INDEX, Prediction, Sample

EDGE = 0.005
"""Width of the band on each side of an edge, as a share of the image's diagonal."""
CERTAIN = 0.9
"""Probability from which a wrong pixel is certain."""


class Edges(NamedTuple):
    """The pixels of one image that are near an edge of the labels.

    Attributes:
        near: bool [H * W], whether a pixel of another class, or without a label, is at most so many pixels away.
        before: int32 [H * W + 1], the number of such pixels before each.
    """

    near: NDArray[np.bool_]
    before: NDArray[np.int32]

    @classmethod
    def of(cls, truth: Sample) -> Edges | None:
        """Find the edges; None without a semantic map."""
        if truth.semantic is None:
            return None
        plane = truth.semantic.as_subclass(Tensor).numpy()
        near = _near_edges(plane, max(1, round(EDGE * math.hypot(*plane.shape)))).reshape(-1)
        before = np.zeros(near.size + 1, dtype=np.int32)
        np.cumsum(near, dtype=np.int32, out=before[1:])
        return cls(near, before)


def _near_edges(plane: NDArray[np.generic], pixels: int) -> NDArray[np.bool_]:
    """Return where another value is at most so many pixels away, along both axes and the diagonals alike."""
    height, width = plane.shape
    reach = 2 * pixels
    # Squares of two by two pixels that are not of one value, with a border of those that are, so that each pixel has a
    # square window of them around it.
    squares = np.zeros((height + reach - 1, width + reach - 1), dtype=bool)
    own = squares[pixels : pixels + height - 1, pixels : pixels + width - 1]
    if own.size:
        across, down = plane[:, 1:] != plane[:, :-1], plane[1:] != plane[:-1]
        np.logical_or(across[1:], across[:-1], out=own)
        own |= down[:, 1:]
        own |= down[:, :-1]
    else:
        # A single row or column has no squares; each of its pixels stands for two.
        doubled = plane.repeat(2 if height == 1 else 1, 0).repeat(2 if width == 1 else 1, 1)
        return _near_edges(doubled, pixels)[:height, :width]
    for axis in (0, 1):
        # The window doubles with each step, up to the last one.
        window = 1
        while window < reach:
            step = min(window, reach - window)
            low, high = (squares[:-step], squares[step:]) if axis == 0 else (squares[:, :-step], squares[:, step:])
            squares = low | high
            window += step
    return squares


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


def pixel_errors(overlay: Overlay, truth: Sample, edges: Edges, classes: int) -> PixelErrors:
    """Find the wrong pixels of one image.

    Args:
        overlay: Prediction and truth laid over each other, both with a semantic map.
        truth: The sample.
        edges: Its edges.
        classes: Number of segmentation classes S.
    """
    assert overlay.true_class is not None and overlay.found_class is not None
    starts, lengths = overlay.runs
    near = edges.before[starts + lengths] - edges.before[starts]
    labelled = overlay.true_class != IGNORE_INDEX
    wrong = _wrong(overlay, truth)
    numbers = overlay.true_class[wrong] * classes + overlay.found_class[wrong]
    along = np.bincount(numbers, near[wrong], classes**2).astype(np.int64).reshape(classes, classes)
    every = np.bincount(numbers, lengths[wrong], classes**2).astype(np.int64).reshape(classes, classes)
    return PixelErrors(every - along, along, int(lengths[labelled].sum()), int(near[labelled].sum()))


def certain_share(prediction: Prediction, overlay: Overlay, truth: Sample, edges: Edges) -> float:
    """Return the share of an image's pixels that are away from edges and wrong with certainty.

    Args:
        prediction: The prediction; 0 is returned if it does not know how certain its pixels are.
        overlay: Prediction and truth laid over each other, both with a semantic map.
        truth: The sample.
        edges: Its edges.
    """
    if prediction.certainty is None:
        return 0.0
    wrong = _wrong(overlay, truth)
    lengths = overlay.runs.lengths[wrong]
    # All pixels of the runs, one run after the other.
    first = overlay.runs.starts[wrong] - (lengths.cumsum() - lengths)
    places = np.repeat(first, lengths) + np.arange(lengths.sum())
    certain = flat(prediction.certainty)[places] >= CERTAIN
    return float(np.count_nonzero(certain & ~edges.near[places])) / max(edges.near.size, 1)


def _wrong(overlay: Overlay, truth: Sample) -> NDArray[np.int64]:
    """Return the runs of pixels that are wrong, of classes that the image was labelled for."""
    true, found = overlay.true_class, overlay.found_class
    assert true is not None and found is not None
    wrong = np.flatnonzero((true != found) & (true != IGNORE_INDEX))
    known = truth.supervision.semantic.numpy()
    return wrong if known.all() else wrong[known[true[wrong]] & known[found[wrong]]]
