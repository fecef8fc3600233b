"""One part of another source: by lists of images, by seeded fractions, or a fold and the rest."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from io import StringIO
from os import PathLike, fspath
from os.path import join

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.randomness import stream
from ocrnet_pl.data.records import Blocks, Part, RawBoxes
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.wrappers.base import Wrapped, check_names, closest
from ocrnet_pl.errors import DataError
from ocrnet_pl.storage.ordinary_files import read_text
from ocrnet_pl.structures import Sample

Portion = float | str | list[str] | None
"""A fraction, a file that lists images, a list of images, or null for the rest."""


class Split(Wrapped):
    """One of the parts into which another source is divided; together they contain every image once.

    An image is named by its id, its path, the end of its path (``train/0001.png``, ``0001.png``), or its file's name
    without the ending.

    Fractions divide the images that the lists leave at random; so do folds, which divide all images equally. They
    depend only on the seed and on the order of the source's images, so that the division is the same for every part,
    run and machine.

    Args:
        source: Source of the samples.
        part: Name of the part to use; with ``folds``, "val" for one fold and "train" for all others.
        parts: All parts, by name: a fraction, a text file with one image per line, a list of images, or null for all
            images that the others leave. The fractions add up to 1. Null with ``folds``.
        seed: Seed of the division by fractions.
        groups: Regular expression that is searched for in the path of each image; images whose match is equal (of one
            patient, one video) stay in one part. The match is what its brackets match, or else the whole match. Null
            for no groups.
        groups_file: Path of a CSV file with the columns ``image`` and ``group``, instead of ``groups``; null for none.
        folds: Number of folds for cross-validation, at least 2, instead of ``parts``; null for none.
        fold: Number of the fold that is "val", from 0; ``cross-validate`` goes through all of them.
        root: Folder that the files' paths start from; ``data.root`` on the command line.

    Raises:
        DataError: A part, an image or a file is unknown, an image is in two parts or in none, a group is divided, the
            fractions do not add up to 1, or the part is empty.
    """

    def __init__(
        self,
        source: Source,
        part: str,
        parts: dict[str, Portion] | None = None,
        seed: int = 0,
        groups: str | None = None,
        groups_file: str | PathLike[str] | None = None,
        folds: int | None = None,
        fold: int = 0,
        root: str | PathLike[str] = ".",
    ) -> None:
        super().__init__(source)
        self.root = root
        if source.parts:
            raise DataError("Split: source: it is a mixture; split its sources instead")
        if (parts is None) == (folds is None):
            raise DataError("Split: parts: set either `parts`, or `folds` for cross-validation")
        if folds is not None and folds < 2:
            raise DataError(f"Split: folds: expected at least 2, got {folds}")
        if not 0 <= fold < (folds or 1):
            raise DataError(f"Split: fold: expected 0 to {(folds or 1) - 1}, got {fold}")
        parts = {"train": None, "val": None} if parts is None else parts
        check_names("Split: part", "part", [part], parts)
        fractions = {name: float(value) for name, value in parts.items() if isinstance(value, int | float)}
        if folds is None:
            _check_fractions(fractions, [name for name, value in parts.items() if value is None])
        if groups is not None and groups_file is not None:
            raise DataError("Split: groups: both a pattern and a file are given; leave one out")

        number = {name: position for position, name in enumerate(parts)}
        owner = np.full(len(source), -1, dtype=np.int64)
        lists = {name: value for name, value in parts.items() if isinstance(value, str | list)}
        names = _Names(source) if lists or groups is not None or groups_file is not None else None
        for name, value in lists.items():
            assert names is not None
            where = f"Split: parts: {name}" if isinstance(value, list) else join(root, value)
            for line, image in enumerate(value if isinstance(value, list) else _lines(join(root, value)), 1):
                place = f"{where}: {image!r}" if isinstance(value, list) else f"{where}: line {line}"
                index = names.find(str(image), place)
                if owner[index] >= 0:
                    raise DataError(f"{place}: {image!r} is already in {list(parts)[owner[index]]!r}; name it once")
                owner[index] = number[name]
        group_of: NDArray[np.int64] = np.arange(len(source))
        if names is not None and groups is not None:
            group_of = names.groups_by_pattern(groups)
        elif names is not None and groups_file is not None:
            group_of = names.groups_by_file(join(root, groups_file))

        rest = np.flatnonzero(owner < 0)
        if folds is not None:
            fold_of = _divide(group_of, [(number, 1 / folds) for number in range(folds)], seed)
            empty = np.setdiff1d(np.arange(folds), fold_of)
            # Of any fold, so that a cross-validation does not end when the turn comes to that one.
            if len(empty):
                raise DataError(
                    f"Split: folds: fold {empty[0]} of {folds} has no images; the {len(source)} images are in "
                    f"{len(np.unique(group_of))} groups; take fewer folds"
                )
            owner = np.where(fold_of == fold, number["val"], number["train"])
        elif fractions:
            owner[rest] = _divide(group_of[rest], [(number[n], f) for n, f in fractions.items()], seed)
        else:
            others = [name for name, value in parts.items() if value is None]
            if len(rest) and not others:
                assert names is not None
                raise DataError(
                    f"Split: parts: {len(rest)} image(s) are in no part, such as {names.paths[rest[0]]}; list them, "
                    "or add a part with null for the rest"
                )
            if others:
                owner[rest] = number[others[0]]
        _check_whole(group_of, owner, list(parts), names)
        self.indices = np.flatnonzero(owner == number[part])
        if not len(self.indices):
            raise DataError(f"Split: part: {part!r} has no images; give it more")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.source[int(self.indices[index])]

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return the id and path from the source."""
        return self.source.identity(int(self.indices[index]))

    def image_path(self, index: int) -> str | PathLike[str] | None:
        """Return the image file from the source."""
        return self.source.image_path(int(self.indices[index]))

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the size from the source."""
        return self.source.image_size(int(self.indices[index]))

    def image_boxes(self, index: int) -> NDArray[np.float32]:
        """Return the boxes from the source."""
        return self.source.image_boxes(int(self.indices[index]))

    def image_categories(self, index: int) -> NDArray[np.int64]:
        """Return the categories from the source."""
        return self.source.image_categories(int(self.indices[index]))

    def raw_boxes(self, index: int) -> RawBoxes | None:
        """Return the stored boxes from the source."""
        return self.source.raw_boxes(int(self.indices[index]))

    def files(self, index: int) -> Sequence[str]:
        """Return the files from the source."""
        return self.source.files(int(self.indices[index]))

    @property
    def sizes(self) -> NDArray[np.int32] | None:
        """The sizes from the source."""
        sizes = self.source.sizes
        return None if sizes is None else sizes[self.indices]

    @property
    def parts(self) -> tuple[Part, ...]:
        """No parts."""
        return ()

    @property
    def blocks(self) -> Blocks | None:
        """The blocks of the source, as far as they are in this part."""
        blocks = self.source.blocks
        return None if blocks is None else Blocks(np.searchsorted(self.indices, blocks.bounds), blocks.window)

    def expect(self, index: int) -> None:
        """Forward it to the source."""
        self.source.expect(int(self.indices[index]))


class _Names:
    """Finds a source's images by the names that people use.

    Args:
        source: The source whose images to find.
    """

    def __init__(self, source: Source) -> None:
        identities = [source.identity(index) for index in range(len(source))]
        self.paths = [path for _, path in identities]
        self._ids = [str(image_id) for image_id, _ in identities]
        # By the number of parts of the path; one part is the file's name, none is its name without the ending.
        self._by_end: dict[int, dict[str, list[int]]] = {}
        self._by_id: dict[str, list[int]] = {}
        for index, image_id in enumerate(self._ids):
            self._by_id.setdefault(image_id, []).append(index)

    def find(self, name: str, where: str) -> int:
        """Return the index of an image.

        Raises:
            DataError: There is no such image, or the name fits several.
        """
        normal = name.replace("\\", "/").removeprefix("./").strip("/")
        tables = [self._by_id, self._ends(normal.count("/") + 1), self._ends(0)]
        for table in tables:
            found = table.get(name if table is self._by_id else normal, [])
            if len(found) == 1:
                return found[0]
            if found:
                raise DataError.at(
                    where,
                    f"{name!r:.200} fits {len(found)} images, such as {self.paths[found[0]]} and "
                    f"{self.paths[found[1]]}",
                    advice="give more of the path",
                )
        known = closest(name, [*self._ids, *self._ends(1)])
        raise DataError.at(where, f"there is no image {name!r:.200}", advice=known)

    def _ends(self, count: int) -> dict[str, list[int]]:
        if count not in self._by_end:
            table: dict[str, list[int]] = {}
            for index, path in enumerate(self.paths):
                parts = path.replace("\\", "/").strip("/").split("/")
                end = "/".join(parts[-count:]) if count else parts[-1].rpartition(".")[0]
                table.setdefault(end, []).append(index)
            self._by_end[count] = table
        return self._by_end[count]

    def groups_by_pattern(self, pattern: str) -> NDArray[np.int64]:
        """Return each image's group from its path.

        Raises:
            DataError: The pattern is broken, or a path does not match.
        """
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise DataError(f"Split: groups: {pattern!r} is not a regular expression ({error})") from error
        found = []
        for path in self.paths:
            match = compiled.search(path)
            if match is None:
                raise DataError.at(path, f"the path does not match {pattern!r}", field="Split: groups")
            found.append(next((part for part in match.groups() if part is not None), match.group()))
        return _numbered(found)

    def groups_by_file(self, path: str) -> NDArray[np.int64]:
        """Return each image's group from a CSV file.

        Raises:
            DataError: The file cannot be read, lacks a column, or an image is unknown, missing or named twice.
        """
        groups: list[str | None] = [None] * len(self.paths)
        try:
            with StringIO(read_text(path), newline="") as file:
                reader = csv.DictReader(file)
                if not {"image", "group"} <= set(reader.fieldnames or ()):
                    raise DataError.at(path, "the first line does not name the columns image and group")
                for row in reader:
                    where = f"{path}: line {reader.line_num}"
                    index = self.find(row["image"] or "", where)
                    if groups[index] is not None:
                        raise DataError.at(where, f"{row['image']!r:.200} occurs more than once", advice="name it once")
                    groups[index] = row["group"] or ""
        except csv.Error as error:
            raise DataError.at(path, f"this is not a CSV file ({error})", advice="save it as CSV in UTF-8") from error
        for index, group in enumerate(groups):
            if group is None:
                raise DataError.at(path, f"there is no group for {self.paths[index]}", advice="add a line for it")
        return _numbered([str(group) for group in groups])


def _numbered(names: Sequence[str]) -> NDArray[np.int64]:
    """Return a number for each name, in the order in which the names first come."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


def _lines(path: str | PathLike[str]) -> list[str]:
    lines = [line.strip() for line in StringIO(read_text(path, "list"), newline=None)]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise DataError.at(fspath(path), "the list is empty", advice="write one image per line")
    return lines


def _check_fractions(fractions: dict[str, float], rest: list[str]) -> None:
    for name, value in fractions.items():
        if not (math.isfinite(value) and 0 < value <= 1):
            raise DataError(f"Split: parts: {name}: expected a fraction above 0 and at most 1, got {value}")
    if fractions and abs(sum(fractions.values()) - 1) > 1e-6:
        raise DataError(f"Split: parts: the fractions add up to {sum(fractions.values()):g}; make it 1")
    if len(rest) > 1 or (rest and fractions):
        raise DataError(f"Split: parts: {rest[0]}: nothing is left for it; only one part can be the rest")


def _check_whole(group_of: NDArray[np.int64], owner: NDArray[np.int64], parts: list[str], names: _Names | None) -> None:
    """Raise an error for lists that divide a group."""
    seen: dict[int, int] = {}
    for index in np.flatnonzero(owner >= 0).tolist():
        first = seen.setdefault(int(group_of[index]), index)
        if owner[first] != owner[index] and names is not None:
            raise DataError(
                f"Split: parts: {names.paths[first]} is in {parts[owner[first]]!r}, {names.paths[index]} of the same "
                f"group in {parts[owner[index]]!r}; put both into one"
            )


def _divide(groups: NDArray[np.int64], fractions: list[tuple[int, float]], seed: int) -> NDArray[np.int64]:
    """Deal the groups out at random, each to the part that lacks most; with groups of one image this is exact.

    Args:
        groups: int64 [N], the group of each image.
        fractions: The parts' numbers and their fractions, which add up to 1.
        seed: Seed of the order.

    Returns:
        int64 [N], the part of each image.
    """
    numbers, place, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = stream(seed, 4).permutation(len(numbers))
    parts = np.array([number for number, _ in fractions])
    lacking = np.array([fraction for _, fraction in fractions]) * len(groups)
    if (counts == 1).all():
        ends = np.rint(np.cumsum(lacking)).astype(np.int64)
        owner = np.empty(len(numbers), dtype=np.int64)
        owner[order] = parts[np.searchsorted(ends, np.arange(len(numbers)), side="right").clip(max=len(parts) - 1)]
        return owner[place]
    owner = np.empty(len(numbers), dtype=np.int64)
    # The large ones first, because they fit best while there is space.
    for group in order[np.argsort(-counts[order], kind="stable")]:
        chosen = int(np.argmax(lacking))
        owner[group] = parts[chosen]
        lacking[chosen] -= counts[group]
    return owner[place]
