"""Reading annotation files with errors that name the file and the field."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from ocrnet_pl.data.readers.json_text import read_json_value
from ocrnet_pl.data.readers.values import MOST, as_flag, as_number, as_whole, is_text, shown
from ocrnet_pl.errors import DataError
from ocrnet_pl.storage.ordinary_files import nearest_name


def existing_folder(path: str | PathLike[str], purpose: str) -> Path:
    """Return the folder, or raise an error if it is missing.

    Args:
        path: Path of the folder.
        purpose: What the folder should contain, for the message.

    Raises:
        DataError: It does not exist or is not a folder.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        problem, nearest = "this is not a folder", None
        if not folder.exists():
            problem, nearest = "there is no such folder", nearest_name(folder)
        advice = f"give the folder of the {purpose}" if nearest is None else f"the nearest is {nearest!r:.200}"
        raise DataError.at(folder, problem, advice=advice)
    return folder


def read_json(path: str | PathLike[str]) -> dict[str, Any]:
    """Read a JSON file that contains an object.

    Args:
        path: Path of the file.

    Raises:
        DataError: It is missing, not JSON, or not an object.
    """
    content = read_json_value(path)
    if not isinstance(content, dict):
        raise DataError.at(path, f"expected a JSON object, found a {type(content).__name__}")
    return content


class Fields:
    """Typed access to the fields of parsed JSON; a missing or wrong field is an error that names it.

    Args:
        path: Path of the JSON file, for messages.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = path

    def error(self, field: str, problem: str, advice: str = "") -> DataError:
        """Return an error that names the file and the field."""
        return DataError.at(self.path, problem, field=field, advice=advice)

    def objects(self, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
        """Return a list of objects.

        Raises:
            DataError: The key is missing or not a list of objects.
        """
        return [self.entry(value, f"{key}[{position}]") for position, value in enumerate(self.entries(content, key))]

    def entries(self, content: dict[str, Any], key: str) -> list[Any]:
        """Return a list.

        Raises:
            DataError: The key is missing or not a list.
        """
        values = content.get(key)
        if not isinstance(values, list):
            raise self.error(key, "missing or not a list")
        return values

    def entry(self, value: Any, where: str) -> dict[str, Any]:
        """Return a value that is an object.

        Raises:
            DataError: It is something else.
        """
        if not isinstance(value, dict):
            raise self.error(where, f"expected an object, found {shown(value)}")
        return value

    def integer(
        self, item: dict[str, Any], where: str, key: str, minimum: int | None = None, maximum: int | None = None
    ) -> int:
        """Return an integer that 64 bits hold, also if it is written as ``3.0``, as text or as true or false.

        Raises:
            DataError: It is missing, not such an integer, below the minimum, or above the maximum.
        """
        value = as_whole(item.get(key))
        if value is None:
            raise self.error(f"{where}.{key}", f"expected an integer, found {shown(item.get(key))}")
        if minimum is not None and value < minimum:
            raise self.error(f"{where}.{key}", f"expected at least {minimum}, found {value}")
        if maximum is not None and value > maximum:
            raise self.error(f"{where}.{key}", f"expected at most {maximum}, found {value}")
        return value

    def flag(self, item: dict[str, Any], where: str, key: str) -> bool:
        """Return a flag (:func:`~ocrnet_pl.data.readers.values.as_flag`); False if it is missing.

        Raises:
            DataError: It says neither yes nor no.
        """
        value = as_flag(item.get(key))
        if value is None:
            raise self.error(f"{where}.{key}", f"expected 0 or 1, found {shown(item.get(key))}")
        return value

    def text(self, item: dict[str, Any], where: str, key: str) -> str:
        """Return a string that is not empty.

        Raises:
            DataError: It is missing, not a string, empty, or contains what no text of a file can.
        """
        value = item.get(key)
        if not is_text(value):
            raise self.error(f"{where}.{key}", f"expected text, found {shown(value)}")
        return value

    def numbers(self, item: dict[str, Any], where: str, key: str, count: int) -> list[float]:
        """Return ``count`` finite numbers of an absolute value of at most :data:`~ocrnet_pl.data.readers.values.MOST`.

        Raises:
            DataError: There are not that many, or one of them is something else.
        """
        value = item.get(key)
        numbers = [as_number(part) for part in value] if isinstance(value, list) and len(value) == count else [None]
        if any(number is None for number in numbers):
            raise self.error(f"{where}.{key}", f"expected {count} finite numbers up to {MOST:g}, found {shown(value)}")
        return [number for number in numbers if number is not None]


def unique(values: Iterable[Any], fields: Fields, key: str, what: str) -> None:
    """Check that no value occurs twice.

    Args:
        values: Values in the order of the list ``key``.
        fields: Access to the annotation file, for the message.
        key: Name of the list.
        what: Name of the field.

    Raises:
        DataError: A value occurs twice.
    """
    seen: set[Any] = set()
    for position, value in enumerate(values):
        if value in seen:
            raise fields.error(f"{key}[{position}].{what}", f"{value!r} occurs more than once")
        seen.add(value)
