"""Tables from CSV and Parquet files."""

from __future__ import annotations

import csv
import os
from io import StringIO
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.json_text import parse_json
from ocrnet_pl.data.readers.values import as_number, is_text, shown
from ocrnet_pl.errors import DataError
from ocrnet_pl.storage.ordinary_files import open_file, read_text

ALIASES = {
    "image": ("image", "filename", "file_name"),
    "x1": ("x1", "xmin"),
    "y1": ("y1", "ymin"),
    "x2": ("x2", "xmax"),
    "y2": ("y2", "ymax"),
    "label": ("label", "class", "category"),
    "crowd": ("crowd", "iscrowd"),
    "width": ("width", "image_width"),
    "height": ("height", "image_height"),
}
"""The names that columns have, in lower case, by what they hold."""


_NUMBERS = 4
"""A first line with so many numbers is a box, not a header."""


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
        own = {column.lower(): cells for column, cells in self.columns.items()}
        for alias in ALIASES.get(name, (name,)):
            if alias in own:
                return own[alias]
        if required:
            raise self.error(
                f"there is no such column, only {', '.join(map(repr, self.columns))}",
                "read it with `OpenImages`" if "imageid" in own else "name it",
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
                reader = csv.reader(file, strict=True, delimiter=delimiter_of(file.readline()))
                file.seek(0)
                header = [name.strip() for name in next(reader, [])]
                if not any(header):
                    raise self.error("the file is empty", "write a header and rows")
                if sum(as_number(name) is not None for name in header) >= _NUMBERS:
                    raise self.error(
                        f"the table has no header, its first line is {', '.join(header):.200}",
                        "write `image,x1,y1,x2,y2,label` above it, in the order of its columns",
                        column="line 1",
                    )
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


def delimiter_of(header: str) -> str:
    """Return what separates the cells: a comma, or the semicolon or tab of other locales if there is no comma."""
    return next((sign for sign in (",", ";", "\t") if sign in header), ",")


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
