"""How many images have more objects than the network may return."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ocrnet_pl.distributed.gather import compute_on_first
from ocrnet_pl.structures import Sample

LIMIT_KEY = "model.postprocess.init_args.decode.init_args.max_detections"
"""The option that sets the limit."""


class OverLimit(NamedTuple):
    """The images that have more objects than the network may return.

    Attributes:
        images: Number of such images.
        objects: Number of objects of the fullest one.
        limit: Limit of the fullest one.
    """

    images: int = 0
    objects: int = 0
    limit: int = 0

    @classmethod
    def of(cls, objects: int, limit: int) -> OverLimit:
        """Return the count of one image."""
        return cls(1, objects, limit) if objects > limit else cls()

    @classmethod
    def joined(cls, parts: Iterable[OverLimit]) -> OverLimit:
        """Return the count of all parts' images."""
        parts = list(parts)
        fullest = max(parts, key=lambda part: part.objects)
        return cls(sum(part.images for part in parts), fullest.objects, fullest.limit)

    def __str__(self) -> str:
        """Return a message of one line."""
        count = "1 image has" if self.images == 1 else f"{self.images:,} images have"
        return (
            f"{count} more objects than the network may return (the fullest has {self.objects:,}, and its limit is "
            f"{self.limit:,}); the others are always missed. Raise {LIMIT_KEY}"
        )


class ObjectLimit:
    """Counts the images of an evaluation that have more objects than the network may return."""

    def __init__(self) -> None:
        self._found = OverLimit()

    def update(self, truths: Sequence[Sample], limits: Sequence[int]) -> None:
        """Add one batch, with the limit of each image."""
        found = [OverLimit.of(int((~t.crowd).sum()), limit) for t, limit in zip(truths, limits, strict=True)]
        self._found = OverLimit.joined([self._found, *found])

    def compute(self) -> OverLimit:
        """Return the count over all processes' images, and start again."""
        found = compute_on_first(self._found, OverLimit.joined)
        self._found = OverLimit()
        return found
