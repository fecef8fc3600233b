"""What a format of a labelling tool has to provide."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ocrnet_pl.labelling.shapes import LabelledImage
from ocrnet_pl.structures import Taxonomy


class AnnotationFormat(ABC):
    """Writes predictions as annotations of a tool, in a folder of its own.

    Each process calls ``write`` for its own images; ``finish`` is called once, on the first process, with what all of
    them returned. A new format is one subclass, which the config names.

    Args:
        tolerance: Largest distance in pixels between an outline and its simplification; 0 for one that follows every
            pixel.
        masks: Whether masks and stuff are written, or only the boxes of objects.

    Raises:
        ValueError: The tolerance is negative.
    """

    folder: ClassVar[str]
    """Name of the format's folder."""
    by_stem: ClassVar[bool] = False
    """Whether each image has a file of its name without the ending, so that no two images may share that."""

    def __init__(self, tolerance: float = 1.0, masks: bool = True) -> None:
        if not tolerance >= 0:
            raise ValueError(f"{type(self).__name__}: tolerance must be at least 0, got {tolerance}")
        self.tolerance = tolerance
        self.masks = masks

    @abstractmethod
    def write(self, image: LabelledImage, taxonomy: Taxonomy, folder: Path) -> Any:
        """Write what belongs to one image alone, and return what ``finish`` needs of it, as plain JSON.

        Args:
            image: The image; without ``masks`` it has only objects, and these only their boxes.
            taxonomy: Categories of the network.
            folder: Folder of the format.
        """

    @abstractmethod
    def finish(self, entries: Sequence[Any], taxonomy: Taxonomy, folder: Path) -> None:
        """Write what belongs to all images.

        Args:
            entries: What ``write`` returned for each image, those that deserve a look first.
            taxonomy: Categories of the network.
            folder: Folder of the format.
        """


def hex_color(color: tuple[int, int, int]) -> str:
    """Return a color as tools write it, such as #ff8000."""
    return "#" + "".join(f"{value:02x}" for value in color)
