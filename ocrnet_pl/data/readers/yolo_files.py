"""The files of a YOLO data set: its data.yaml, its lists of images, and its label rows."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers import yaml_text
from ocrnet_pl.data.readers.folder_index import Fail, FolderIndex
from ocrnet_pl.data.readers.values import is_text, is_whole, shown
from ocrnet_pl.data.readers.yolo_names import is_plain, read_plain
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.suffixes import IMAGE_SUFFIXES
from ocrnet_pl.storage.ordinary_files import PER_IMAGE, read_text

_MOST_CLASSES = 100_000
"""Largest number of classes: no network could have more, and `nc` alone is easily mistyped."""

_SLACK = 0.01
"""Tolerance: tools round, so coordinates may be this far outside of 0 to 1 before they count as wrong."""


class YoloData:
    """A ``data.yaml``, or what stands for one (:func:`~ocrnet_pl.data.readers.yolo_names.read_plain`).

    Args:
        path: Path of the file.

    Attributes:
        base: Folder that the entries start from.
        names: Class names, in ascending order of their ids.
        label_of: Index among the names, by id.

    Raises:
        DataError: The file is missing or malformed, or its ``path`` does not exist or climbs out of its folder.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = os.fspath(path)
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
        self.skip_missing = bool(content.get("skip_if_label_file_missing", False))

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
        if not isinstance(entries, list) or not entries or not all(map(is_text, entries)):
            raise self.error(
                split, f"expected a folder or a list file, found {shown(entries)}", "name where images are"
            )
        found: dict[str, str] = {}
        for entry in entries:

            def fail(problem: str, advice: str, entry: str = entry) -> DataError:
                return self.error(split, problem, advice)

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
        normal = os.path.normpath(os.path.expanduser(given))
        if normal.split(os.sep, 1)[0] == os.pardir:
            raise self.error("path", f"{given!r} leads out of {folder}", "write `path: .`, or the whole path")
        if os.path.isdir(folder / normal):
            return folder / normal
        # Usually the path starts from the folder that contains all data sets.
        if os.path.basename(normal) == folder.resolve().name:
            return folder
        raise self.error("path", f"there is no folder {str(folder / normal)!r}", "write `path: .`")

    def _entry(self, entry: str, listing: FolderIndex, fail: Fail) -> str:
        """Return an entry in normal form; exports with `../train/images` mean a folder next to the data.yaml."""
        normal = os.path.normpath(entry)
        if normal.startswith(os.pardir + os.sep):
            inner = normal.removeprefix(os.pardir + os.sep)
            if not inner.startswith(os.pardir) and os.path.exists(listing.root / inner):
                normal = inner
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
            # YAML reads a bare `no` or `1` as something other than text.
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


class YoloRows:
    """The label rows of a data set as flat arrays.

    Attributes:
        starts: int64 [images + 1], the first row of each image.
        labels: int64 [N], detection classes.
        boxes: float32 [N, 4], xyxy as fractions of the image's sides, not yet cut at its borders.
        kept: bool [N], whether the row has an area inside the image.
        lines: int32 [N], line numbers, counted from 1.
        ends: int64 [N + 1], the end of each row's polygon among the points; rows of a box have none.
        points: float32 [P, 2], (x, y) from 0 to 1.
    """

    def __init__(self, files: Sequence[str], label_of: dict[int, int], names_file: str, strict: bool = True) -> None:
        """Read the label files.

        Args:
            files: One label file per image; an empty name for none.
            label_of: Detection class by id.
            names_file: Where the classes are given, for messages.
            strict: Whether coordinates that are outside the image, or are not numbers, raise an error.

        Raises:
            DataError: A file is missing or is not text, or a row is wrong.
        """
        images, lines, values, counts = array("q"), array("i"), array("d"), array("q")
        for image, file in enumerate(files):
            if not file:
                continue
            for number, line in enumerate(read_text(file, "labels", PER_IMAGE).splitlines(), 1):
                words = line.split()
                if not words:
                    continue
                try:
                    values.extend(map(float, words))
                except ValueError as error:
                    raise DataError.at(
                        file,
                        f"expected numbers ({error!s:.100})",
                        field=f"line {number}",
                        advice="write `class x y w h`",
                    ) from error
                images.append(image)
                lines.append(number)
                counts.append(len(words))
        self._files, self._images = files, np.frombuffer(images, dtype=np.int64)
        self.lines = np.frombuffer(lines, dtype=np.int32)
        flat, length = np.frombuffer(values, dtype=np.float64), np.frombuffer(counts, dtype=np.int64)
        first = np.cumsum(length) - length
        self._check(flat, first, length, label_of, names_file, strict)
        self.labels = np.array([label_of[int(number)] for number in flat[first]], dtype=np.int64)
        boxes, points, sizes = _boxes_and_points(flat, first, length)
        with np.errstate(over="ignore"):  # cut at the borders in any case
            self.boxes: NDArray[np.float32] = boxes.astype(np.float32)
        cut = self.boxes.clip(0, 1)
        # False for values that are not numbers.
        self.kept: NDArray[np.bool_] = np.asarray((cut[:, 2:] > cut[:, :2]).all(1))
        self.points: NDArray[np.float32] = points[np.repeat(self.kept, sizes)].clip(0, 1).astype(np.float32)
        self.ends: NDArray[np.int64] = np.append(0, np.cumsum(np.where(self.kept, sizes, 0)))
        self.starts = np.searchsorted(self._images, np.arange(len(files) + 1))
        del self._files, self._images

    def _check(
        self,
        flat: NDArray[np.float64],
        first: NDArray[np.int64],
        length: NDArray[np.int64],
        label_of: dict[int, int],
        names_file: str,
        strict: bool,
    ) -> None:
        """Check all rows at once; the error names the first wrong one."""

        def refuse(wrong: NDArray[np.bool_], say: Callable[[int], tuple[str, str]]) -> None:
            rows = np.flatnonzero(wrong)
            if len(rows):
                row = int(rows[0])
                problem, advice = say(row)
                file = self._files[self._images[row]]
                raise DataError.at(file, problem, field=f"line {self.lines[row]}", advice=advice)

        refuse(
            (length != 5) & ((length < 7) | (length % 2 == 0)),
            lambda row: (f"{length[row]} numbers are neither a box nor a polygon", "write `class x y w h`"),
        )
        known = np.isin(flat[first], list(label_of))
        refuse(~known, lambda row: (f"there is no class {flat[first[row]]:g} in {names_file}", "add it to `names`"))
        if not strict:
            return
        of = np.repeat(np.arange(len(first)), length)
        refuse(
            np.bincount(of, ~np.isfinite(flat), minlength=len(first)) > 0,
            lambda row: ("a number is not finite", "correct it"),
        )
        outside = (flat < -_SLACK) | (flat > 1 + _SLACK)
        outside[first] = False

        def where(row: int) -> tuple[str, str]:
            value = flat[first[row] :][: length[row]][outside[first[row] :][: length[row]]][0]
            return f"{value:g} is outside of 0 to 1", "divide x by the image's width and y by its height"

        refuse(np.bincount(of, outside, minlength=len(first)) > 0, where)
        sides = np.minimum(flat[np.minimum(first + 3, len(flat) - 1)], flat[np.minimum(first + 4, len(flat) - 1)])
        refuse((length == 5) & (sides < 0), lambda row: ("a side is negative", "write `class x y w h`"))


def _boxes_and_points(
    flat: NDArray[np.float64], first: NDArray[np.int64], length: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return the boxes [N, 4], the points of the polygons [P, 2], and how many of them each row has [N]."""
    is_box = length == 5
    boxes = np.zeros((len(first), 4))
    centre = first[is_box]
    x, y, width, height = (flat[centre + place] for place in range(1, 5))
    with np.errstate(invalid="ignore"):
        boxes[is_box] = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 1)
    # Values that are neither a class nor part of a box are points of a polygon.
    is_point = np.repeat(~is_box, length)
    is_point[first] = False
    points = flat[is_point].reshape(-1, 2)
    sizes = np.where(is_box, 0, (length - 1) // 2)
    if len(points):
        begin = (np.cumsum(sizes) - sizes)[~is_box]
        boxes[~is_box, :2] = np.minimum.reduceat(points, begin)
        boxes[~is_box, 2:] = np.maximum.reduceat(points, begin)
    return boxes, points, sizes
