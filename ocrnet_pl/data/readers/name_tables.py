"""Tables of a mask's values or colors, as tools write them beside their masks."""

from __future__ import annotations

import csv
from collections.abc import Callable
from io import StringIO

from ocrnet_pl.data.readers.values import as_whole, is_text, shown
from ocrnet_pl.errors import DataError
from ocrnet_pl.storage.ordinary_files import read_text

_MOST_BYTES = 1 << 20
_NAMES = ("name", "class", "label", "class name", "class_name", "category")
_VALUES = ("pixel value", "value", "id", "index", "pixel")
_COLORS = (("r", "g", "b"), ("red", "green", "blue"))

Fail = Callable[[str, str], DataError]


def read_name_table(path: str) -> dict[int | str, str | None]:
    """Return names by value, or by color such as "#ff0000".

    These are read: a CSV with columns for the name and for red, green and blue (``class_dict.csv``); a CSV with columns
    for the name and the value (``_classes.csv``); and text whose lines are ``name:red,green,blue:...``
    (``labelmap.txt``) or ``red green blue name`` (``label_colors.txt``).

    Args:
        path: Path of the table.

    Raises:
        DataError: It is missing or something else.
    """
    return _read_csv(path) if path.lower().endswith(".csv") else _read_lines(path)


def _read_csv(path: str) -> dict[int | str, str | None]:
    found: dict[int | str, str | None] = {}
    try:
        # Read row by row: a table has a few hundred classes.
        reader = csv.reader(StringIO(read_text(path, "table of names", _MOST_BYTES), newline=""), strict=True)
        header = [name.strip().lower() for name in next(reader, [])]
        name_place = next((header.index(name) for name in _NAMES if name in header), None)
        value_place = next((header.index(name) for name in _VALUES if name in header), None)
        color_places = next(
            ([header.index(part) for part in parts] for parts in _COLORS if {*parts} <= {*header}), None
        )
        if name_place is None or (value_place is None and color_places is None):
            raise DataError.at(
                path,
                f"expected columns for the name and the value or color, found {', '.join(header):.200}",
                field="line 1",
                advice="write `name,r,g,b` or `name,value`",
            )
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            number = reader.line_num

            def fail(problem: str, advice: str, number: int = number) -> DataError:
                return DataError.at(path, problem, field=f"line {number}", advice=advice)

            if len(cells) != len(header):
                raise fail(f"{len(cells)} cells, but {len(header)} columns", "quote cells that contain commas")
            name = cells[name_place].strip()
            key: int | str | None
            if color_places is not None:
                key = _color([cells[place] for place in color_places], fail)
            else:
                key = as_whole(cells[value_place or 0].strip())
            if key is None or not is_text(name):
                raise fail(f"expected a name and a pixel value, found {shown(cells)}", "correct the row")
            if key in found:
                raise fail(f"{key!r} occurs more than once", "remove one of the rows")
            found[key] = name
    except csv.Error as error:
        raise DataError.at(path, f"this is not a CSV file ({error})", advice="save it as CSV in UTF-8") from error
    return found


def _read_lines(path: str) -> dict[int | str, str | None]:
    found: dict[int | str, str | None] = {}
    for number, line in enumerate(read_text(path, "table of names", _MOST_BYTES).splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue

        def fail(problem: str, advice: str, number: int = number) -> DataError:
            return DataError.at(path, problem, field=f"line {number}", advice=advice)

        if ":" in text:
            name, _, rest = text.partition(":")
            parts = rest.partition(":")[0].split(",")
        else:
            *parts, name = text.split(None, 3)
        if not is_text(name.strip()):
            raise fail("there is no name", "write `name:red,green,blue`")
        key = _color(parts, fail)
        if key in found:
            raise fail(f"the color {key} occurs more than once", "remove one of the lines")
        found[key] = name.strip()
    return found


def _color(parts: list[str], fail: Fail) -> str:
    numbers = [as_whole(part.strip()) for part in parts]
    sound = [number for number in numbers if number is not None and 0 <= number < 256]
    if len(numbers) != 3 or len(sound) != 3:
        raise fail(f"expected three numbers from 0 to 255, found {shown(parts)}", "write red, green and blue")
    return "#{:02x}{:02x}{:02x}".format(*sound)
