"""Finding files by their name without its ending, for formats that pair images with masks of the same name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from os import PathLike

from ocrnet_pl.data.readers.json_fields import existing_folder
from ocrnet_pl.errors import DataError

IMAGES = tuple(
    ending for lower in (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff") for ending in (lower, lower.upper())
)
"""Endings of images."""


class Stems:
    """The files of a folder by their names without ending, from one listing.

    Args:
        folder: Path of the folder; its subfolders are not searched.
        purpose: What the folder contains, for messages.
        endings: Endings to include, in lower case.

    Raises:
        DataError: There is no such folder, or two files have the same name without ending.
    """

    def __init__(self, folder: str | PathLike[str], purpose: str, endings: tuple[str, ...] = IMAGES) -> None:
        self.root = existing_folder(folder, purpose)
        self._names: dict[str, str] = {}
        with os.scandir(self.root) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        for name in names:
            stem, ending = os.path.splitext(name)
            if ending not in endings:
                continue
            if stem in self._names:
                raise DataError.at(
                    self.root, f"{self._names[stem]!r} and {name!r} are both {stem!r}", advice="remove one of them"
                )
            self._names[stem] = name

    def __contains__(self, stem: str) -> bool:
        return stem in self._names

    def __iter__(self) -> Iterator[str]:
        """Yield the stems in order."""
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, stem: str) -> str:
        """Return the file's name; the stem must be there."""
        return self._names[stem]
