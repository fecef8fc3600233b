"""The input and the result of a check of the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.doctor.box_formats import Reading, Verdict
from ocrnet_pl.doctor.examine import Split
from ocrnet_pl.doctor.findings import FindingLog
from ocrnet_pl.doctor.fingerprints import SIDE
from ocrnet_pl.doctor.statistics import SplitStatistics
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.images import read_image

IMAGES_PER_WORKER = 64
"""Number of images that are examined in about the time that a loading process takes to start."""


@dataclass(frozen=True)
class Recipe:
    """How to make a source.

    Attributes:
        make: Function that makes it; keyword arguments override those of the config.
        source_class: Class of the source.
        arguments: Arguments of the config.
    """

    make: Callable[..., Source]
    source_class: type[Source]
    arguments: Mapping[str, Any]


@dataclass
class Examined:
    """A split after its images were examined.

    Attributes:
        split: The split with its source.
        statistics: Sums over the images.
        verdict: Conclusion on the box format.
        reading: The format that the boxes seem to be in; None if they are read correctly.
        indices: Indices of the examined images.
        paths: One path per examined image; the following lists have one entry per image too.
        digests: Hashes of the files.
        thumbnails: uint8 [N, 32, 32].
        modes: Kinds of pixels of the files.
        mapped: Whether each image has a map of classes.
        by_rows: Sum of the overlaps of boxes that miss their masks with masks whose runs go along the rows, and their
            number.
        edges: Sum of the contrast at the boxes' edges, for VOC.
    """

    split: Split
    statistics: SplitStatistics
    indices: NDArray[np.int64]
    verdict: Verdict = field(default_factory=Verdict)
    reading: Reading | None = None
    paths: list[str] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    thumbnails: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, SIDE, SIDE), dtype=np.uint8))
    modes: list[str] = field(default_factory=list)
    mapped: list[bool | None] = field(default_factory=list)
    by_rows: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    edges: NDArray[np.float64] = field(default_factory=lambda: np.zeros(4))

    def image(self, position: int) -> Tensor:
        """Read one of the images again."""
        try:
            image: Tensor = self.split.source[int(self.indices[position])].image.as_subclass(Tensor)
        except DataError:
            # Its labels are at fault.
            image = read_image(self.paths[position])
        return image


@dataclass
class Result:
    """The result of a check.

    Attributes:
        examined: The splits that could be opened.
        log: The findings.
        complete: Whether all images were examined.
    """

    examined: list[Examined]
    log: FindingLog
    complete: bool
