"""A first look at a folder: its files by kind, and what their beginnings say."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import takewhile
from os import PathLike
from typing import Any, NamedTuple
from urllib.parse import unquote

from ocrnet_pl.data.readers.file_names import folded
from ocrnet_pl.data.readers.folder_index import FolderIndex
from ocrnet_pl.data.readers.json_text import read_json_value
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.suffixes import IMAGE_SUFFIXES
from ocrnet_pl.storage.ordinary_files import PER_IMAGE, encoding_of, open_file, read_text

_MOST_JSON = 400 << 20
_HEAD = 4096
_OF_MAPS = ("mask", "semantic", "segmentation", "label", "annotation", "panoptic")
_SPLITS = {
    "train": re.compile(r"(?:^|[^a-z])(?:train|training)(?:[^a-z]|$)"),
    "val": re.compile(r"(?:^|[^a-z])(?:val|valid|validation|dev)(?:[^a-z]|$)"),
    "test": re.compile(r"(?:^|[^a-z])(?:test|testing)(?:[^a-z]|$)"),
}


class Found(NamedTuple):
    """One part of a data set.

    Attributes:
        path: File or folder by whose name its split is known.
        source: Name of the source's class.
        options: Options of the source, relative to the folder that was looked at.
    """

    path: str
    source: str
    options: dict[str, Any]


class Guess(NamedTuple):
    """The format of a folder.

    Attributes:
        page: Name of its page in ``docs/formats/``.
        reason: The files by which it was recognised.
        parts: Its parts.
        missing: What has to be added by hand; empty for nothing.
    """

    page: str
    reason: str
    parts: tuple[Found, ...]
    missing: str = ""


class FolderLook:
    """The files below a folder.

    Args:
        root: Path of the folder.

    Attributes:
        root: Path of the folder.
        names: The files, relative to it, in order.

    Raises:
        DataError: There is no such folder, or it has no files.
    """

    def __init__(self, root: str | PathLike[str]) -> None:
        index = FolderIndex(root, "data set")
        self.root = str(index.root)
        self.names = index.walk(("",))
        if not self.names:
            raise DataError.at(self.root, "the folder is empty", advice="give the folder of the data set")

    def ending(self, *endings: str) -> list[str]:
        """Return the files with one of the endings, in lower case."""
        return [name for name in self.names if name.lower().endswith(endings)]

    def named(self, *names: str) -> list[str]:
        """Return the files of one of these names, in any folder."""
        return [name for name in self.names if os.path.basename(name).lower() in names]

    def path(self, name: str) -> str:
        """Return the whole path of a file or folder."""
        return os.path.join(self.root, name)

    def head(self, name: str) -> str:
        """Return the beginning of a file as text; nothing if it is none."""
        try:
            with open_file(self.path(name)) as file:
                data = file.read(_HEAD)
            return data.decode(encoding_of(data), "replace")
        except (DataError, OSError):
            return ""

    def text(self, name: str) -> str:
        """Return a file of labels as text; nothing if it is none."""
        try:
            return read_text(self.path(name), "file", PER_IMAGE)
        except DataError:
            return ""

    def json(self, name: str) -> Any:
        """Return the content of a JSON; None for one that is broken or very large."""
        path = self.path(name)
        try:
            return None if os.path.getsize(path) > _MOST_JSON else read_json_value(path)
        except (DataError, OSError):
            return None

    @cached_property
    def images(self) -> dict[str, list[str]]:
        """The images by their folder."""
        found: dict[str, list[str]] = {}
        for name in self.ending(*IMAGE_SUFFIXES):
            folder, _, base = name.rpartition(os.sep)
            found.setdefault(folder, []).append(base)
        return found

    def folder_of(self, names: Sequence[str], near: str = "") -> str | None:
        """Return the folder from which most of these images are found.

        Args:
            names: Names of images, relative to an unknown folder.
            near: File beside or above whose folder that may be; closer folders win.
        """
        wanted: dict[str, str] = {}
        for name in names:
            plain = os.path.normpath(unquote(name).replace("\\", "/")).lstrip("/").removeprefix("../")
            wanted.setdefault(folded(os.path.basename(plain)), folded(plain))
        hits: Counter[str] = Counter()
        for folder, own in self.images.items():
            for base in own:
                named = wanted.get(folded(base))
                if named is not None:
                    whole = os.path.join(folder, base)
                    # From the folder that the names start from, if they have folders themselves.
                    is_start = folded(whole).endswith(named) and len(folded(whole)) == len(whole)
                    hits[whole[: -len(named)].rstrip(os.sep) if is_start else folder] += 1
        if not hits:
            return None
        own_split, beside = split_of(near), os.path.dirname(near)

        def rank(folder: str) -> tuple[int, bool, bool, bool, int]:
            same = len(os.path.commonpath([folder or ".", beside or "."])) if folder and beside else 0
            is_map = any(word in folder.lower() for word in _OF_MAPS)
            return hits[folder], not is_map, split_of(folder) == own_split, folder == beside, same

        return max(hits, key=rank) or os.curdir


def split_of(path: str) -> str | None:
    """Return the split that a path names: the last part of it that names one."""
    for part in reversed(path.lower().split(os.sep)):
        for split, words in _SPLITS.items():
            if words.search(part):
                return split
    return None


def alike(one: str, other: str) -> int:
    """Return how many characters two paths have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def by_folder(names: Sequence[str]) -> dict[str, list[str]]:
    """Return names by their folder."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(os.path.dirname(name), []).append(os.path.basename(name))
    return found


def split_folders(look: FolderLook, names: Sequence[str]) -> list[str]:
    """Return the highest folders of files, each of one split; one folder if the paths name no split."""
    tops: dict[str, None] = {}
    for name in names:
        parts = name.split(os.sep)[:-1]
        depth = next((place + 1 for place, part in enumerate(parts) if split_of(part)), 0)
        tops[os.sep.join(parts[:depth])] = None
    if "" in tops:
        shared = os.path.commonpath([os.path.dirname(name) or os.curdir for name in names]) if names else ""
        return [shared or os.curdir]
    return list(tops)


def is_image(name: str) -> bool:
    """Return whether a file has the ending of an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)
