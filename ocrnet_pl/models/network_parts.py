"""The parts of a network: their types, and how they were made, for the files from which it is built again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ocrnet_pl.models.base import DetectionDecoder, Encoder, Neck, PostProcess, SegmentationDecoder, Shapes
from ocrnet_pl.storage.recording import NotRecordedError, record_of
from ocrnet_pl.structures import Taxonomy

NeckFactory = Callable[[list[int], list[int]], Neck]
"""Makes the neck from the encoder's channels and strides."""
DetectionFactory = Callable[[list[int], list[int], Taxonomy], DetectionDecoder]
"""Makes the detection decoder from the neck's channels and strides and the taxonomy."""
SegmentationFactory = Callable[[Shapes, Taxonomy], SegmentationDecoder]
"""Makes the segmentation decoder from the shapes of the neck's and the encoder's maps and the taxonomy."""

PARTS: dict[str, Any] = {
    "encoder": Encoder,
    "neck": NeckFactory,
    "detection": DetectionFactory | None,
    "segmentation": SegmentationFactory | None,
    "postprocess": PostProcess,
}
"""The parts that a config names by class path, and their types."""


class Parts(NamedTuple):
    """The records of parts, in the form of a config.

    Attributes:
        made: The class path and arguments of each part that could be recorded, by name; None for one that is absent.
        unrecorded: Why the others could not, by name.
    """

    made: dict[str, Any]
    unrecorded: dict[str, str]

    @classmethod
    def of(cls, **parts: tuple[Any, Sequence[Any]]) -> Parts:
        """Return how parts were made.

        Args:
            parts: Each part, or None, and the arguments that its factory was called with, by name.
        """
        found = cls({}, {})
        for name, (part, passed) in parts.items():
            try:
                found.made[name] = None if part is None else record_of(part, passed)
            except NotRecordedError as error:
                found.unrecorded[name] = str(error)
        return found
