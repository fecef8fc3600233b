"""The files below a folder, listed once a folder, with names that lead out of it refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from os import PathLike

from ocrnet_pl.data.readers.file_names import NameFinder, with_nearest
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
        self._finder: NameFinder | None = None
        self._finders: dict[str, NameFinder] = {}

    @property
    def finder(self) -> NameFinder:
        """What finds a file whose name is written in another way; it lists all folders once, when it is needed."""
        if self._finder is None:
            self._finder = NameFinder(self.walk(("",)), self.root)
        return self._finder

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
        """Return a file's name in normal form, also if it is written in another way (:class:`NameFinder`).

        Args:
            name: Name relative to the folder, or absolute and below it.
            fail: Function that makes the error.

        Raises:
            DataError: The name leads out of the folder, or there is no such file.
        """
        if 0 < len(name) <= _LONGEST and "\0" not in name:
            # Names with a backslash are possible here, though rare.
            plain = os.path.normpath(name)
            below = not os.path.isabs(plain) and plain.split(os.sep, 1)[0] != os.pardir
            if below and plain in self:
                return plain
            if os.path.isabs(plain) and (relative := self._relative(plain)) is not None and relative in self:
                return relative
            found = self.finder.find(name)
            if found is not None:
                return found
        normal = self.inside(name, fail)
        problem = with_nearest(f"there is no file {normal!r:.200} in {self.root}", self.finder.nearest(normal))
        if os.path.isfile(self.root / os.pardir / normal):
            raise fail(problem, f"it is in {os.path.dirname(os.path.abspath(self.root))}, so name that folder instead")
        raise fail(problem, "add it, or remove the entry")

    def partner(self, name: str) -> str | None:
        """Return a file's name in its folder, where accents or case may differ; None if there is none.

        Args:
            name: Name in normal form.
        """
        if name in self:
            return name
        folder, _, tail = name.rpartition(os.sep)
        if folder not in self._finders:
            self._finders[folder] = NameFinder(self._folders.get(folder, ()), self.root / folder)
        found = self._finders[folder].find(tail, folders=False)
        return None if found is None else os.path.join(folder, found)

    def has(self, names: Iterable[str]) -> bool:
        """Return whether all these files exist under exactly these names; the names are in normal form."""
        return all(name in self for name in names)

    def _relative(self, path: str) -> str | None:
        relative = os.path.relpath(path, os.path.abspath(self.root))
        return None if relative.split(os.sep, 1)[0] == os.pardir else relative

    def __contains__(self, name: str) -> bool:
        """Return whether there is such a file; the name is in normal form."""
        folder, _, tail = name.rpartition(os.sep)
        names = self._folders.get(folder)
        if names is None:
            try:
                names = set(os.listdir(self.root / folder))
            except (OSError, ValueError):  # the latter for a NUL
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
        self.finder = NameFinder(self._names, self.root)

    def __getitem__(self, stem: str) -> str:
        """Return the name of a stem's file; accents or case may differ."""
        found = self.finder.find(stem, folders=False)
        if found is None:
            raise KeyError(stem)
        return self._names[found]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def path(self, stem: str) -> str:
        """Return the path of a stem's file."""
        return os.path.join(self.root, self[stem])


def _counts(name: str, endings: tuple[str, ...]) -> bool:
    """Return whether a file has one of the endings, in any case, and is not hidden."""
    return name.lower().endswith(endings) and not name.startswith(".")


def pack_names(names: list[str]) -> list[bytes]:
    """Return names as bytes, for a numpy array that workers share; :func:`os.fsdecode` turns one back."""
    return [os.fsencode(name) for name in names]
