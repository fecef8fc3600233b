"""What sources that change another source have in common."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.records import Blocks, Part
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import Taxonomy

_LONGEST, _MOST = 500, 50_000
"""Lengths and numbers of names beyond which comparing them takes too long."""


class Wrapped(Source):
    """The samples of another source, in their order; a subclass overrides what it changes.

    Args:
        source: Source of the samples.

    Raises:
        DataError: The source has no images.
    """

    def __init__(self, source: Source) -> None:
        if not len(source):
            raise DataError(f"{type(self).__name__}: source: it has no images")
        self.source = source

    @property
    def taxonomy(self) -> Taxonomy:
        """The categories of the source."""
        return self.source.taxonomy

    def __len__(self) -> int:
        return len(self.source)

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return the id and path from the source."""
        return self.source.identity(index)

    def image_path(self, index: int) -> str | PathLike[str] | None:
        """Return the image file from the source."""
        return self.source.image_path(index)

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the size from the source."""
        return self.source.image_size(index)

    def files(self, index: int) -> Sequence[str]:
        """Return the files from the source."""
        return self.source.files(index)

    @property
    def sizes(self) -> NDArray[np.int32] | None:
        """The sizes from the source."""
        return self.source.sizes

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the source."""
        return self.source.parts

    @property
    def blocks(self) -> Blocks | None:
        """The blocks of the source."""
        return self.source.blocks

    def expect(self, index: int) -> None:
        """Forward it to the source."""
        self.source.expect(index)


def closest(name: str, valid: Iterable[str]) -> str:
    """Return advice that names the closest valid name, or some of the valid ones if none is close."""
    names = list(valid)
    if len(name) > _LONGEST or len(names) > _MOST:
        return "check the spelling"
    lowered = {known.lower(): known for known in reversed(names)}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    if near:
        return f"did you mean {lowered[near[0]]!r}?"
    return f"there are {', '.join(map(repr, names[:8]))}{', ...' if len(names) > 8 else ''}" if names else "it has none"


def check_names(where: str, what: str, names: Sequence[str], valid: Iterable[str]) -> None:
    """Check that names are known and occur once each.

    Args:
        where: Name of the option, for messages.
        what: Kind of the names, such as ``category``.
        names: The names to check.
        valid: The known names.

    Raises:
        DataError: A name is unknown or occurs twice; the closest known one is named.
    """
    known = list(valid)
    for position, name in enumerate(names):
        if name not in known:
            raise DataError(f"{where}: there is no {what} {name!r}; {closest(name, known)}")
        if name in names[:position]:
            raise DataError(f"{where}: {what} {name!r} occurs more than once; name it once")
