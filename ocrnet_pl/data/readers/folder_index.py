"""The files below a folder, listed once a folder, with names that lead out of it refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from os import PathLike

from ocrnet_pl.data.readers.json_fields import existing_folder
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.folders import walk_folders
from ocrnet_pl.imaging.suffixes import IMAGE_SUFFIXES

_LONGEST = 4096
"""Largest number of characters of a path."""

Fail = Callable[[str, str], DataError]
"""Makes an error of a problem and an advice, for the place where a name is given."""


class FolderIndex:
    """Finds files below a folder; one look-up per file would take minutes on network disks.

    Args:
        root: Path of the folder.
        purpose: What the folder contains, for messages.

    Raises:
        DataError: There is no such folder.
    """

    def __init__(self, root: str | PathLike[str], purpose: str) -> None:
        self.root = existing_folder(root, purpose)
        self._folders: dict[str, set[str]] = {}

    def inside(self, name: str, fail: Fail) -> str:
        """Return a name in normal form, relative to the folder.

        Args:
            name: Name relative to the folder, or absolute and below it.
            fail: Function that makes the error.

        Raises:
            DataError: The name leads out of the folder.
        """
        if "\0" in name or len(name) > _LONGEST:
            raise fail(f"{name!r:.200} is not the name of a file", "check it")
        normal = os.path.normpath(name.replace("\\", "/"))
        if os.path.isabs(normal):
            normal = os.path.relpath(normal, os.path.abspath(self.root))
        if normal.split(os.sep, 1)[0] == os.pardir:
            raise fail(f"{name!r:.200} leads out of the folder {self.root}", "set the root to the folder of all files")
        return normal

    def find(self, name: str, fail: Fail) -> str:
        """Return a file's name in normal form.

        Args:
            name: Name relative to the folder, or absolute and below it.
            fail: Function that makes the error.

        Raises:
            DataError: The name leads out of the folder, or there is no such file.
        """
        normal = self.inside(name, fail)
        if normal not in self:
            raise fail(f"there is no file {normal!r:.200} in {self.root}", "add it, or remove the entry")
        return normal

    def __contains__(self, name: str) -> bool:
        """Return whether there is such a file; the name is in normal form."""
        folder, _, tail = name.rpartition(os.sep)
        names = self._folders.get(folder)
        if names is None:
            try:
                names = set(os.listdir(self.root / folder))
            except OSError:
                names = set()
            self._folders[folder] = names
        return tail in names

    def walk(self, endings: tuple[str, ...], folder: str = "") -> list[str]:
        """Return the files below a folder by name, without those that begin with a dot.

        Linked folders are followed; a folder that several paths lead to is walked once.

        Args:
            endings: Endings to include, in lower case.
            folder: Folder to walk, relative to the root and in normal form.
        """
        found: list[str] = []
        for place, names in walk_folders(self.root / folder):
            below = os.path.relpath(place, self.root)
            prefix = "" if below == os.curdir else below + os.sep
            self._folders[prefix.removesuffix(os.sep)] = set(names)
            found += [prefix + name for name in names if _counts(name, endings)]
        return sorted(found)

    def by_stem(self, endings: tuple[str, ...], subfolders: bool = True) -> dict[str, str]:
        """Return the files below the folder by their name without its ending, in order.

        Args:
            endings: Endings to include, in lower case.
            subfolders: Whether files in folders below the folder count.

        Raises:
            DataError: Two files differ only in their endings.
        """
        found: dict[str, str] = {}
        # A folder with the ending of a file is taken for the file, and refused where it is opened.
        if subfolders:
            names = self.walk(endings)
        else:
            names = sorted(name for name in os.listdir(self.root) if _counts(name, endings))
        for name in names:
            stem = os.path.splitext(name)[0]
            if stem in found:
                raise DataError.at(
                    self.root, f"{found[stem]!r} and {name!r} have the same stem", advice="remove one of them"
                )
            found[stem] = name
        return found


class StemIndex(Mapping[str, str]):
    """The names of a folder's files by stem, for formats that pair images with masks of the same stem.

    Args:
        folder: The folder; files in folders below it do not count.
        purpose: What it holds, for messages.
        endings: The endings that count, in lower case; files may have them in upper case.

    Attributes:
        root: The folder.

    Raises:
        DataError: There is no such folder, or two files have the same stem.
    """

    def __init__(self, folder: str | PathLike[str], purpose: str, endings: tuple[str, ...] = IMAGE_SUFFIXES) -> None:
        index = FolderIndex(folder, purpose)
        self.root = index.root
        self._names = index.by_stem(endings, subfolders=False)

    def __getitem__(self, stem: str) -> str:
        return self._names[stem]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def path(self, stem: str) -> str:
        """Return the path of a stem's file."""
        return os.path.join(self.root, self._names[stem])


def _counts(name: str, endings: tuple[str, ...]) -> bool:
    """Return whether a file has one of the endings, in any case, and is not hidden."""
    return name.lower().endswith(endings) and not name.startswith(".")


def pack_names(names: list[str]) -> list[bytes]:
    """Return names as bytes, for a numpy array that workers share; :func:`os.fsdecode` turns one back."""
    return [os.fsencode(name) for name in names]
