"""What a check of the data is given and what it finds."""

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
"""A loading process takes about as long to start as to look at so many images."""


@dataclass(frozen=True)
class Recipe:
    """How to make a source.

    Attributes:
        make: Makes it; keyword arguments override those of the config.
        source_class: Its class.
        arguments: Those of the config.
    """

    make: Callable[..., Source]
    source_class: type[Source]
    arguments: Mapping[str, Any]


@dataclass
class Examined:
    """A split after its images were looked at.

    Attributes:
        split: With its source.
        statistics: The sums.
        verdict: On the box format.
        reading: The format that the boxes seem to be in.
        indices: The images that were looked at.
        paths: One an image looked at; so are the following.
        digests: Of the files.
        thumbnails: uint8 [N, 32, 32].
        modes: Kinds of pixels.
        mapped: Whether there is a map of classes.
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
    """What the check found.

    Attributes:
        examined: The splits that could be opened.
        log: The findings.
        complete: Whether all images were looked at.
    """

    examined: list[Examined]
    log: FindingLog
    complete: bool
