"""Guessing from the numbers that boxes are stored in another format than they are read in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.doctor.boxes import Boxes, paired_iou

_LEAST = 4
"""Smallest number of boxes from which a conclusion is drawn."""


LOOSE = 0.5
"""Overlap of a box with the bounds of its mask below which the one does not fit the other."""


class _Way(NamedTuple):
    text: str
    convert: Callable[[Boxes, int, int], Boxes]


def _as_corner_and_size(boxes: Boxes, width: int, height: int) -> Boxes:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _as_corners(boxes: Boxes, width: int, height: int) -> Boxes:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _as_center(boxes: Boxes, width: int, height: int) -> Boxes:
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    return np.asarray(boxes - np.concatenate([half, half], axis=1))


def _as_not_center(boxes: Boxes, width: int, height: int) -> Boxes:
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    return np.asarray(boxes + np.concatenate([half, half], axis=1))


def _as_normalized(boxes: Boxes, width: int, height: int) -> Boxes:
    return np.asarray(boxes * np.array([width, height, width, height]))


def _as_pixels(boxes: Boxes, width: int, height: int) -> Boxes:
    return np.asarray(boxes / np.array([width, height, width, height]))


def _as_swapped(boxes: Boxes, width: int, height: int) -> Boxes:
    return boxes[:, [1, 0, 3, 2]]


class Reading(Enum):
    """A way to misread boxes; converting undoes it."""

    NORMALIZED = _Way("they are normalized (0 to 1), but read as pixels", _as_normalized)
    PIXELS = _Way("they are in pixels, but read as normalized (0 to 1)", _as_pixels)
    CORNERS = _Way("they are two corners (xyxy), but read as corner and size (xywh)", _as_corners)
    CORNER_AND_SIZE = _Way("they are corner and size (xywh), but read as two corners (xyxy)", _as_corner_and_size)
    CENTER = _Way("they are center and size (cxcywh), but read as corner and size (xywh)", _as_center)
    NOT_CENTER = _Way("they are corner and size (xywh), but read as center and size (cxcywh)", _as_not_center)
    SWAPPED = _Way("x and y are swapped", _as_swapped)

    def convert(self, boxes: Boxes, size: tuple[int, int]) -> Boxes:
        """Return the boxes as they would be in this format.

        Args:
            boxes: The boxes as read, xyxy, [N, 4].
            size: (height, width) of the image.
        """
        return self.value.convert(boxes, size[1], size[0])


class Evidence(NamedTuple):
    """The evidence of one image's boxes, as read and under each :class:`Reading`; each [1 + readings].

    Attributes:
        boxes: Number of boxes.
        sound: Number of boxes that are inside the image and have an area.
        masks: Number of boxes with a mask.
        overlap: Sum of the overlaps of these boxes with the bounds of their masks.
        loose: Number of boxes that overlap the bounds of their masks by less than half.
    """

    boxes: int
    sound: NDArray[np.int64]
    masks: int
    overlap: NDArray[np.float64]
    loose: int


def weigh(boxes: Boxes, size: tuple[int, int], bounds: Boxes) -> Evidence:
    """Examine the boxes of one image under every reading.

    Args:
        boxes: The boxes as read, xyxy, [N, 4].
        size: (height, width) of the image.
        bounds: Bounds of the masks, [N, 4]; NaN for a box without one.
    """
    boxes, bounds = boxes[(finite := np.isfinite(boxes).all(1))], bounds[finite]
    candidates = [boxes, *(reading.convert(boxes, size) for reading in Reading)]
    masked = np.isfinite(bounds).all(1)
    return Evidence(
        len(boxes),
        np.array([_sound(candidate, size).sum() for candidate in candidates]),
        int(masked.sum()),
        np.array([paired_iou(candidate[masked], bounds[masked]).sum() for candidate in candidates]),
        int((paired_iou(boxes[masked], bounds[masked]) < LOOSE).sum()),
    )


def _sound(boxes: Boxes, size: tuple[int, int]) -> NDArray[np.bool_]:
    """A box with a side under a pixel and a half, or a pixel over the edge, was not drawn by a person."""
    inside = (boxes[:, :2] > -1.5).all(1) & (boxes[:, 2] < size[1] + 1.5) & (boxes[:, 3] < size[0] + 1.5)
    return np.asarray(inside & (boxes[:, 2:] - boxes[:, :2] > 1.5).all(1))


@dataclass
class Verdict:
    """Sums up the evidence of a split."""

    boxes: int = 0
    masks: int = 0
    loose: int = 0
    sound: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1 + len(Reading), dtype=np.int64))
    overlap: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1 + len(Reading)))

    def add(self, evidence: Evidence) -> None:
        """Add the evidence of one image."""
        self.boxes += evidence.boxes
        self.masks += evidence.masks
        self.loose += evidence.loose
        self.sound += evidence.sound
        self.overlap += evidence.overlap

    @property
    def misses(self) -> bool:
        """Whether most boxes do not fit their masks, in whatever format they are."""
        return self.masks >= _LEAST and self.loose > self.masks / 2

    def guess(self) -> tuple[Reading, str] | None:
        """Return the format that the boxes are in, and why; None if they are fine, or if no format makes sense."""
        readings = list(Reading)
        if self.masks >= _LEAST:
            fit = self.overlap / self.masks
            best = int(fit.argmax())
            if best and fit[0] < 0.5 and fit[best] > 0.75:
                why = f"so read, they fit the masks by {fit[best]:.0%} instead of {fit[0]:.0%}"
                return readings[best - 1], why
        elif self.boxes >= _LEAST:
            fit = self.sound / self.boxes
            best = int(fit.argmax())
            if best and fit[0] < 0.8 and fit[best] > 0.97:
                why = f"so read, {fit[best]:.0%} are inside their images instead of {fit[0]:.0%}"
                return readings[best - 1], why
        return None
