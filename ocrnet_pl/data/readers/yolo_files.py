"""The files of a YOLO data set: its data.yaml, its lists of images, and its label rows."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import Any

from ocrnet_pl.data.readers import yaml_text
from ocrnet_pl.data.readers.folder_index import Fail, FolderIndex
from ocrnet_pl.data.readers.values import as_flag, is_text, is_whole, shown
from ocrnet_pl.data.readers.yolo_names import is_plain, read_plain
from ocrnet_pl.data.readers.yolo_rows import KeyPoints
from ocrnet_pl.data.split_keys import SPLITS
from ocrnet_pl.distributed.first_process import tell
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.suffixes import IMAGE_SUFFIXES
from ocrnet_pl.storage.ordinary_files import read_text

_PLAIN_NAMES = ("classes.txt", "obj.data", "obj.names")
"""Files that tools write instead of a data.yaml."""

_MOST_CLASSES = 100_000
"""Largest number of classes: no network could have more, and `nc` alone is easily mistyped."""


class YoloData:
    """A ``data.yaml``, or what stands for one (:func:`~ocrnet_pl.data.readers.yolo_names.read_plain`).

    Args:
        path: Path of the file.

    Attributes:
        base: Folder that the entries start from.
        names: Class names, in ascending order of their ids.
        label_of: Index among the names, by id.
        key_points: What ``kpt_shape`` says about the rows.
        skip_missing: What ``skip_if_label_file_missing`` says.

    Raises:
        DataError: The file is missing or malformed, or its ``path`` does not exist or climbs out of its folder.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = os.fspath(path)
        if not os.path.exists(self.path):
            for name in _PLAIN_NAMES:
                if os.path.exists(os.path.join(os.path.dirname(self.path), name)):
                    raise self.error("", f"there is no such file, but {name!r} is beside it", f"set `data: {name}`")
        try:
            is_yaml = not is_plain(self.path)
            content = (
                yaml_text.load(read_text(self.path, most=yaml_text.MOST_BYTES)) if is_yaml else read_plain(self.path)
            )
        except yaml_text.YamlError as error:
            field = "" if error.line is None else f"line {error.line}"
            raise self.error(field, str(error), "correct it") from error
        if not isinstance(content, dict):
            raise self.error("", "expected keys such as `train` and `names`", "write a data.yaml")
        self._content: dict[str, Any] = content
        self.base = self._find_base()
        by_id = self._read_names()
        self.names = [by_id[number] for number in sorted(by_id)]
        self.label_of = {number: label for label, number in enumerate(sorted(by_id))}
        skip = as_flag(content.get("skip_if_label_file_missing"))
        if skip is None:
            text = f"expected true or false, found {shown(content.get('skip_if_label_file_missing'))}"
            raise self.error("skip_if_label_file_missing", text, "leave it out")
        self.skip_missing = skip
        self.key_points = self._read_key_points()

    def error(self, field: str, problem: str, advice: str) -> DataError:
        """Return an error that names the file and the key."""
        return DataError.at(self.path, problem, field=field, advice=advice)

    def images(self, split: str, listing: FolderIndex) -> list[tuple[str, str]]:
        """Return the images of a split.

        Args:
            split: A key of the file: ``train``, ``val`` or ``test``.
            listing: The files below the base.

        Returns:
            For each image, its name below the base, and below the folder that lists it.

        Raises:
            DataError: The split is missing or empty, or an entry does not exist or leads out of the base.
        """
        entries = self._content.get(split)
        if isinstance(entries, str):
            entries = [entries]
        others = [name for name in SPLITS if self._content.get(name) is not None]
        if entries is None and others:
            text = f"there is no such entry, but {', '.join(map(repr, others))}"
            raise self.error(str(split), text, "set `split` to the one that names the images")
        if not isinstance(entries, list) or not entries or not all(map(is_text, entries)):
            raise self.error(
                split, f"expected a folder or a list file, found {shown(entries)}", "name where images are"
            )
        found: dict[str, str] = {}
        for entry in entries:

            def fail(problem: str, advice: str, entry: str = entry) -> DataError:
                return self.error(split, problem, advice)

            if entry.lower().endswith(IMAGE_SUFFIXES):  # an image, where others name a list of images
                image = listing.find(entry, fail)
                found[image] = below_images(image)
                continue
            name = self._entry(entry, listing, fail)
            if os.path.isdir(listing.root / name):
                folder = "" if name == os.curdir else name
                found |= {
                    image: os.path.relpath(image, folder or os.curdir) for image in listing.walk(IMAGE_SUFFIXES, folder)
                }
            else:
                found |= {image: below_images(image) for image in self._listed(name, listing)}
        if not found:
            raise self.error(split, f"there is no image in {', '.join(entries):.200}", "check the entry and `path`")
        return sorted(found.items())

    def _find_base(self) -> Path:
        folder = Path(self.path).parent
        given = self._content.get("path")
        if given is None or given == "":
            return folder
        if not is_text(given):
            raise self.error("path", f"expected a folder, found {shown(given)}", "write `path: .`")
        normal = os.path.normpath(os.path.expanduser(given.replace("\\", "/")))
        climbs = normal.split(os.sep, 1)[0] == os.pardir
        if not climbs and os.path.isdir(folder / normal):
            return folder / normal
        # Usually the path starts from the folder that contains all data sets.
        if os.path.basename(normal) == folder.resolve().name:
            return folder
        if climbs:
            raise self.error("path", f"{given!r} leads out of {folder}", "write `path: .`, or the whole path")
        if os.path.isabs(normal) or normal[1:2] == ":":
            tell(f"{self.path}: path: {given!r:.200} does not exist here, so paths start from {folder}")
            return folder
        raise self.error("path", f"there is no folder {str(folder / normal)!r}", "write `path: .`")

    def _entry(self, entry: str, listing: FolderIndex, fail: Fail) -> str:
        """Return an entry in normal form; exports with `../train/images` mean a folder next to the data.yaml."""
        normal = os.path.normpath(entry.replace("\\", "/"))
        if normal.startswith(os.pardir + os.sep):
            inner = normal.removeprefix(os.pardir + os.sep)
            if not inner.startswith(os.pardir) and os.path.exists(listing.root / inner):
                normal = inner
        parts = [part for part in normal.split(os.sep) if part]
        for start in range(1, len(parts)):
            # A path of another place, or with the folder of the data set in front.
            tail = os.path.join(*parts[start:])
            if not os.path.exists(listing.root / normal) and os.path.exists(listing.root / tail):
                tell(f"{self.path}: {entry!r:.200} is taken for {tail!r:.200}")
                return tail
        name = listing.inside(normal, fail)
        if not os.path.exists(listing.root / name):
            raise fail(f"there is no {name!r} in {listing.root}", "check the entry, or set `images` and `labels`")
        return name

    def _listed(self, name: str, listing: FolderIndex) -> list[str]:
        """Return the images of a list file."""
        path = listing.root / name
        lines = read_text(path, "list").splitlines()
        images: list[str] = []
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text:
                continue
            if text.startswith("./"):
                text = os.path.join(os.path.dirname(name), text[2:])

            def fail(problem: str, advice: str, number: int = number) -> DataError:
                return DataError.at(path, problem, field=f"line {number}", advice=advice)

            images.append(listing.find(text, fail))
        if not images:
            raise DataError.at(path, "the list is empty", advice="write one image per line")
        return images

    def _read_key_points(self) -> KeyPoints:
        shape = self._content.get("kpt_shape")
        if "kpt_shape" not in self._content or shape is None:
            return KeyPoints(None, known="kpt_shape" in self._content)
        sound = isinstance(shape, list) and len(shape) == 2 and all(map(is_whole, shape))
        if not sound or not 0 < shape[0] <= _MOST_CLASSES or shape[1] not in (2, 3):
            raise self.error("kpt_shape", f"expected [points, 2 or 3], found {shown(shape)}", "correct it")
        return KeyPoints((int(shape[0]), int(shape[1])), known=True)

    def _read_names(self) -> dict[int, str]:
        names, count = self._content.get("names"), self._content.get("nc")
        if count is not None and (not is_whole(count) or not 0 < count <= _MOST_CLASSES):
            text = f"expected the number of classes, at most {_MOST_CLASSES}, found {shown(count)}"
            raise self.error("nc", text, "leave it out")
        if names is None and count is not None:
            names = [f"class{number}" for number in range(count)]
        if isinstance(names, list):
            names = dict(enumerate(names))
            if count is not None and count != len(names):
                raise self.error("nc", f"it is {count}, but there are {len(names)} names", "leave `nc` out")
        if not isinstance(names, dict) or not names:
            raise self.error("names", f"expected class names, found {shown(names)}", "write `names: [cat, dog]`")
        by_id: dict[int, str] = {}
        taken: set[str] = set()
        for key, name in names.items():
            number = int(key) if isinstance(key, str) and key.isdecimal() and len(key) < 10 else key
            if not is_whole(number) or not 0 <= number < 1 << 31 or number in by_id:
                raise self.error("names", f"expected ids from 0, each once, found {shown(key)}", "write `0: cat`")
            if isinstance(name, bool):
                raise self.error(
                    f"names.{key}",
                    f"YAML reads this name as {str(name).lower()}",
                    "put it in quotes, as in 'yes' or 'no'",
                )
            # YAML reads a bare `1` as something other than text.
            text = "" if isinstance(name, dict | list | set) else str(name)
            if name is None or not is_text(text) or text in taken:
                raise self.error(f"names.{key}", f"expected a unique name, found {shown(text)}", "rename it")
            by_id[int(number)] = text
            taken.add(text)
        if count is not None and len(by_id) != count <= max(by_id):
            raise self.error("nc", f"it is {count}, but ids go up to {max(by_id)}", "leave `nc` out")
        return by_id


def below_images(name: str) -> str:
    """Return a name below its last folder ``images``, or the whole name."""
    parts = name.split(os.sep)
    folders = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    return os.sep.join(parts[folders[-1] + 1 :]) if folders else name


def label_name(image: str) -> str:
    """Return the label file of an image: the last folder ``images`` of its name becomes ``labels``."""
    parts = image.split(os.sep)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return os.path.splitext(os.sep.join(parts))[0] + ".txt"
