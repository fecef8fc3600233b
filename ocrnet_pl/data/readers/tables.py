"""Tables from CSV and Parquet files, and the boxes in them."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Sequence
from io import StringIO
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.json_text import parse_json
from ocrnet_pl.data.readers.sample_assembly import Boxes
from ocrnet_pl.data.readers.values import MOST, is_text, shown
from ocrnet_pl.data.records import RawBoxes
from ocrnet_pl.errors import DataError
from ocrnet_pl.storage.ordinary_files import open_file, read_text

_ALIASES = {
    "image": ("image", "filename", "file_name"),
    "x1": ("x1", "xmin"),
    "y1": ("y1", "ymin"),
    "x2": ("x2", "xmax"),
    "y2": ("y2", "ymax"),
    "label": ("label", "class", "category"),
    "crowd": ("crowd", "iscrowd"),
}
_CORNERS = ("x1", "y1", "x2", "y2")


class TableFile:
    """A table in memory, by column.

    Files that end in ``.parquet`` are read through pyarrow, all others as comma separated values with a header.

    Args:
        path: Path of the file.

    Attributes:
        columns: The cells of each column, text in a CSV.
        lines: int64, the line of each row in a CSV, counted from 1 with the header; None for Parquet.

    Raises:
        DataError: It is missing, empty or broken, or it is a Parquet file and pyarrow is not installed.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.lines: NDArray[np.int64] | None = None
        if self.path.lower().endswith(".parquet"):
            self.columns = self._read_parquet()
        else:
            self.columns = self._read_csv()
        self._length = len(next(iter(self.columns.values())))
        if not self._length:
            raise self.error("the table has no rows", "list at least one image")

    def __len__(self) -> int:
        return self._length

    def error(self, problem: str, advice: str = "", row: int | None = None, column: str = "") -> DataError:
        """Return an error that names the file, the line and the column."""
        places = [] if row is None else [self.place(row)]
        return DataError.at(self.path, problem, field=", ".join([*places, column] if column else places), advice=advice)

    def place(self, row: int) -> str:
        """Return the name of a row for messages."""
        return f"row {row}" if self.lines is None else f"line {self.lines[row]}"

    def column(self, name: str, *, required: bool = True) -> list[Any] | None:
        """Return a column under its name or one of its usual other names; None if it is missing and not required.

        Raises:
            DataError: It is missing.
        """
        for alias in _ALIASES.get(name, (name,)):
            if alias in self.columns:
                return self.columns[alias]
        if required:
            raise self.error(
                f"there is no such column, only {', '.join(map(repr, self.columns))}",
                "name it",
                column=f"column {name!r}",
            )
        return None

    def text(self, value: Any, row: int, column: str) -> str:
        """Return a cell that contains text.

        Raises:
            DataError: It is empty or not text.
        """
        if not isinstance(value, str) or not value.strip() or not is_text(value):
            raise self.error(f"expected text, found {shown(value)}", "fill the cell or remove the row", row, column)
        return value.strip()

    def _read_csv(self) -> dict[str, list[Any]]:
        try:
            with StringIO(read_text(self.path, "table"), newline="") as file:
                reader = csv.reader(file, strict=True)
                header = [name.strip() for name in next(reader, [])]
                if not any(header):
                    raise self.error("the file is empty", "write a header and rows")
                if len(set(header)) < len(header):
                    raise self.error(
                        f"a column occurs more than once in {', '.join(header):.200}", "rename one", column="line 1"
                    )
                rows: list[list[str]] = []
                lines: list[int] = []
                for cells in reader:
                    if not any(cells):
                        continue
                    if len(cells) != len(header):
                        raise DataError.at(
                            self.path,
                            f"{len(cells)} cells, but {len(header)} columns",
                            field=f"line {reader.line_num}",
                            advice="quote cells that contain commas",
                        )
                    rows.append(cells)
                    lines.append(reader.line_num)
        except csv.Error as error:
            raise self.error(f"this is not a CSV file ({error})", "save it as CSV in UTF-8") from error
        self.lines = np.array(lines, dtype=np.int64)
        return {name: [cells[i] for cells in rows] for i, name in enumerate(header)}

    def _read_parquet(self) -> dict[str, list[Any]]:
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise self.error("a Parquet file needs pyarrow", "run `pip install pyarrow`, or save it as CSV") from error
        try:
            with open_file(self.path, "table") as file:
                table = parquet.read_table(file)
            columns: dict[str, list[Any]] = {name: table.column(name).to_pylist() for name in table.column_names}
        except DataError:
            raise
        except Exception as error:  # pyarrow's errors share no base class
            raise self.error(f"this is not a Parquet file ({error})".replace("\n", " "), "save it again") from error
        if not columns:
            raise self.error("the table has no columns", "write at least a column `image`")
        return columns


class BoxTable:
    """Boxes of many images as flat arrays, ordered by image.

    Args:
        rows: The collected rows.
        listed: bool [images], whether the image is in the file.

    Attributes:
        starts: int64 [images + 1], the first row of each image.
        boxes: float32 [N, 4], xyxy in pixels; :meth:`of` leaves out those without area.
        labels: int64 [N], detection classes.
        crowd: bool [N].
        places: int64 [N], the line or row in the file.
        listed: bool [images], whether the image is in the file, with or without boxes.
    """

    def __init__(self, rows: BoxRows, listed: NDArray[np.bool_]) -> None:
        of = np.array(rows.images, dtype=np.int64)
        order = np.argsort(of, kind="stable")
        self.starts = np.searchsorted(of[order], np.arange(len(listed) + 1))
        self.boxes = np.array(rows.boxes, dtype=np.float32).reshape(-1, 4)[order]
        self.labels = np.array(rows.labels, dtype=np.int64)[order]
        self.crowd = np.array(rows.crowd, dtype=np.bool_)[order]
        places = np.array(rows.places, dtype=np.int64)[order]
        # Not the table itself, of which every worker process would have a copy.
        self._file = rows.table.path
        self._word = "row" if rows.table.lines is None else "line"
        self.places = places if rows.table.lines is None else rows.table.lines[places]
        self.listed = listed

    def of(self, image: int) -> Boxes | None:
        """Return the boxes of an image; None if it was not labelled for boxes."""
        if not self.listed[image]:
            return None
        start, stop = int(self.starts[image]), int(self.starts[image + 1])
        rows = start + np.flatnonzero(self._has_area(start, stop))
        places = self.places[rows]
        return Boxes(
            self.boxes[rows],
            self.labels[rows],
            self.crowd[rows],
            lambda row: f"{self._file}: {self._word} {places[row]}",
        )

    def raw(self, image: int, path: str) -> RawBoxes | None:
        """Return the boxes of an image as they are in the file; None if it was not labelled for boxes.

        Args:
            image: Index of the image.
            path: Path of the image file.
        """
        if not self.listed[image]:
            return None
        rows = slice(int(self.starts[image]), int(self.starts[image + 1]))
        kept = self._has_area(rows.start, rows.stop)
        return RawBoxes(
            image=path,
            file=self._file,
            field=f"{self._word} {{}}",
            numbers=self.places[rows],
            boxes=self.boxes[rows].astype(np.float64),
            labels=self.labels[rows],
            crowd=self.crowd[rows],
            rows=np.where(kept, np.cumsum(kept) - 1, -1),
        )

    def _has_area(self, start: int, stop: int) -> NDArray[np.bool_]:
        boxes = self.boxes[start:stop]
        return np.asarray((boxes[:, 2:] > boxes[:, :2]).all(1))


class BoxRows:
    """Collects boxes row by row and checks them.

    Args:
        table: The table, for messages.
        classes: Names of the detection classes.
    """

    def __init__(self, table: TableFile, classes: Sequence[str]) -> None:
        self.table = table
        self._label_of = {name: label for label, name in enumerate(classes)}
        self.images: list[int] = []
        self.boxes: list[tuple[float, ...]] = []
        self.labels: list[int] = []
        self.crowd: list[bool] = []
        self.places: list[int] = []

    def add(self, image: int, corners: Sequence[Any], label: Any, crowd: Any, row: int, column: str = "") -> None:
        """Add a box.

        Args:
            image: Index of the image.
            corners: x1, y1, x2, y2 in pixels.
            label: Name of the class.
            crowd: 0 or 1, or empty.
            row: Row in the table, for messages.
            column: Position in the row, for messages.

        Raises:
            DataError: A coordinate is not a finite number, negative or in the wrong order, or there is no such class.
        """
        numbers: list[float] = []
        for name, value in zip(_CORNERS, corners, strict=True):
            try:
                number = float(value)
            except (TypeError, ValueError, OverflowError):
                number = math.nan
            if not 0 <= number <= MOST:
                raise self.table.error(
                    f"expected a number of pixels from 0 to {MOST:g}, found {shown(value)}",
                    "correct it",
                    row,
                    f"{column}{name}",
                )
            numbers.append(number)
        x1, y1, x2, y2 = numbers
        if x2 < x1 or y2 < y1:
            raise self.table.error(
                f"({x1:g}, {y1:g}) to ({x2:g}, {y2:g}) is not a box", "write x1, y1, x2, y2", row, f"{column}x2"
            )
        if not isinstance(label, str) or label.strip() not in self._label_of:
            raise self.table.error(
                f"there is no class {shown(label)}", "add it to `classes` of the source", row, f"{column}label"
            )
        if crowd not in (None, "", 0, 1, "0", "1"):  # False and True are 0 and 1
            raise self.table.error(f"expected 0 or 1, found {shown(crowd)}", "", row, f"{column}crowd")
        self.images.append(image)
        self.boxes.append((x1, y1, x2, y2))
        self.labels.append(self._label_of[label.strip()])
        self.crowd.append(crowd in (1, "1"))
        self.places.append(row)

    def finish(self, listed: NDArray[np.bool_]) -> BoxTable:
        """Return all boxes; ``listed`` says for each image whether it is in the file."""
        return BoxTable(self, listed)


def boxes_by_row(table: TableFile, classes: Sequence[str], count: int, find: Callable[[str, int], int]) -> BoxTable:
    """Read a table of one box per row: image, x1, y1, x2, y2, label, and optionally crowd.

    A row whose coordinates are all empty says that the image was labelled and has no objects.

    Args:
        table: The file.
        classes: Names of the detection classes.
        count: The number of images.
        find: Returns the index of the image that a cell names, or raises.

    Raises:
        DataError: A column is missing or a cell is wrong.
    """
    images = table.column("image") or []
    corners = [table.column(name) or [] for name in _CORNERS]
    labels = table.column("label") or []
    crowds = table.column("crowd", required=False) or [None] * len(table)
    rows = BoxRows(table, classes)
    listed = np.zeros(count, dtype=np.bool_)
    for row, (name, *values, label, crowd) in enumerate(zip(images, *corners, labels, crowds, strict=True)):
        image = find(table.text(name, row, "image"), row)
        listed[image] = True
        if all(value is None or value == "" for value in values):
            continue
        rows.add(image, values, label, crowd, row)
    return rows.finish(listed)


def boxes_by_cell(table: TableFile, classes: Sequence[str]) -> BoxTable:
    """Read the column ``boxes``, whose cells are JSON such as ``[{"box": [x1, y1, x2, y2], "label": "cat"}]``.

    An empty cell leaves the image unlabelled for boxes; ``[]`` says that there are none.

    Args:
        table: The table, one image per row.
        classes: Names of the detection classes.

    Raises:
        DataError: A cell is wrong.
    """
    rows = BoxRows(table, classes)
    listed = np.zeros(len(table), dtype=np.bool_)
    for row, cell in enumerate(table.column("boxes") or []):
        items = json_cell(table, cell, row, "boxes")
        if items is None:
            continue
        listed[row] = True
        for number, item in enumerate(items):
            corners = item.get("box")
            if not isinstance(corners, list) or len(corners) != 4:
                raise table.error(f"expected [x1, y1, x2, y2], found {shown(corners)}", "", row, f"boxes[{number}].box")
            rows.add(row, corners, item.get("label"), item.get("crowd"), row, f"boxes[{number}].")
    return rows.finish(listed)


def json_cell(table: TableFile, cell: Any, row: int, column: str) -> list[dict[str, Any]] | None:
    """Return the list of objects in a cell, as JSON or, in Parquet, as a list; None for an empty cell.

    Raises:
        DataError: The cell is not valid JSON, or not a list of objects.
    """
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    if isinstance(cell, str):
        cell = parse_json(cell, lambda problem: table.error(problem, "quote the cell", row, column))
    if not isinstance(cell, list) or not all(isinstance(item, dict) for item in cell):
        raise table.error(f"expected a list of objects, found {shown(cell)}", "", row, column)
    return cell
