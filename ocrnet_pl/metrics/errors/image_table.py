"""What is kept of each image, so that images can be ranked and runs be compared over the same images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class ClassSums(NamedTuple):
    """Sums over the pixels or segments of each image and class that is in it.

    Attributes:
        images: int32 [R], the place of the image.
        classes: int32 [R].
        values: float64 [R, V], V sums.
    """

    images: NDArray[np.int32]
    classes: NDArray[np.int32]
    values: NDArray[np.float64]

    @classmethod
    def of(cls, images: Sequence[NDArray[np.float64] | None], width: int) -> ClassSums:
        """Pack the sums of some images.

        Args:
            images: float64 [V, classes] of each, or None for one that does not count.
            width: V.
        """
        rows, classes, values = [], [], []
        for place, sums in enumerate(images):
            if sums is not None:
                present = np.flatnonzero(sums.any(0))
                rows.append(np.full(len(present), place))
                classes.append(present)
                values.append(sums[:, present].T)
        empty = np.zeros(0)
        return cls(
            np.concatenate([empty, *rows]).astype(np.int32),
            np.concatenate([empty, *classes]).astype(np.int32),
            np.concatenate([np.zeros((0, width)), *values]),
        )

    @classmethod
    def joined(cls, parts: Sequence[tuple[ClassSums, int]]) -> ClassSums:
        """Return at least one part as one.

        Args:
            parts: The sums of each, and the number of its images.
        """
        first = np.cumsum([0, *(count for _, count in parts[:-1])])
        return cls(
            np.concatenate([part.images + np.int32(start) for (part, _), start in zip(parts, first, strict=True)]),
            np.concatenate([part.classes for part, _ in parts]),
            np.concatenate([part.values for part, _ in parts]),
        )


class ImageTable(NamedTuple):
    """What is kept of some images.

    Attributes:
        ids: The id of each, with its type.
        names: The path of each, or a description of it.
        boxed: bool [I], whether its boxes were compared.
        quality: float32 [I], the mean of its F1 of boxes and its mIoU, 0 to 1; NaN if it has neither.
        sure: float32 [I], the share of its pixels that are wrong with certainty away from edges.
        pixels: Per segmentation class the right, the true and the predicted pixels.
        segments: Per category the sum of IoUs, and the numbers of hits, false alarms and misses.
    """

    ids: list[str]
    names: list[str]
    boxed: NDArray[np.bool_]
    quality: NDArray[np.float32]
    sure: NDArray[np.float32]
    pixels: ClassSums
    segments: ClassSums

    @classmethod
    def nothing(cls) -> ImageTable:
        """Return no image."""
        floats = np.zeros(0, np.float32)
        return cls([], [], np.zeros(0, bool), floats, floats, ClassSums.of([], 3), ClassSums.of([], 4))

    @classmethod
    def joined(cls, parts: Sequence[ImageTable]) -> ImageTable:
        """Return at least one part as one, in the given order."""
        counts = [len(part.ids) for part in parts]
        return cls(
            [each for part in parts for each in part.ids],
            [each for part in parts for each in part.names],
            np.concatenate([part.boxed for part in parts]),
            np.concatenate([part.quality for part in parts]),
            np.concatenate([part.sure for part in parts]),
            ClassSums.joined([(part.pixels, count) for part, count in zip(parts, counts, strict=True)]),
            ClassSums.joined([(part.segments, count) for part, count in zip(parts, counts, strict=True)]),
        )


def quality(tally: NDArray[np.int32] | None, confusion: NDArray[np.int64] | None) -> float:
    """Return the quality of one image: the mean of the F1 of its boxes and its mIoU, or the one that it has.

    Args:
        tally: Numbers of hits, false alarms and misses; None without boxes.
        confusion: Confusion matrix of the pixels; None without a map.
    """
    parts = []
    if tally is not None and tally.any():
        hits, alarms, misses = tally.tolist()
        parts.append(2 * hits / (2 * hits + alarms + misses))
    if confusion is not None:
        hit = confusion.diagonal()
        union = confusion.sum(0) + confusion.sum(1) - hit
        present = union > 0
        if present.any():
            parts.append(float((hit[present] / union[present]).mean()))
    return float(np.mean(parts)) if parts else float("nan")
