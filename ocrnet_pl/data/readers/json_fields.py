"""Reading annotation files with errors that name the file and the field."""

from __future__ import annotations

import os
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from ocrnet_pl.data.readers.json_text import read_json_value
from ocrnet_pl.data.readers.values import MOST, is_number, is_text, is_whole, shown
from ocrnet_pl.errors import DataError


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
        problem = "this is not a folder" if folder.exists() else "there is no such folder"
        raise DataError.at(folder, problem, advice=f"give the folder of the {purpose}")
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
        values = content.get(key)
        if not isinstance(values, list):
            raise self.error(key, "missing or not a list")
        for position, value in enumerate(values):
            if not isinstance(value, dict):
                raise self.error(f"{key}[{position}]", f"expected an object, found {shown(value)}")
        return values

    def integer(
        self, item: dict[str, Any], where: str, key: str, minimum: int | None = None, maximum: int | None = None
    ) -> int:
        """Return an integer that 64 bits hold.

        Raises:
            DataError: It is missing, not such an integer, below the minimum, or above the maximum.
        """
        value = item.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not is_whole(value):  # bool passes: some tools write true and false for 1 and 0
            raise self.error(f"{where}.{key}", f"expected an integer, found {shown(value)}")
        if minimum is not None and value < minimum:
            raise self.error(f"{where}.{key}", f"expected at least {minimum}, found {value}")
        if maximum is not None and value > maximum:
            raise self.error(f"{where}.{key}", f"expected at most {maximum}, found {value}")
        return int(value)

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
        if not isinstance(value, list) or len(value) != count or not all(map(is_number, value)):
            raise self.error(f"{where}.{key}", f"expected {count} finite numbers up to {MOST:g}, found {shown(value)}")
        return value


class Folder:
    """Finds the files that an annotation file names, and refuses names that lead out of the folder.

    Args:
        root: Path of the folder.
        purpose: What the folder contains, for messages.
    """

    def __init__(self, root: str | PathLike[str], purpose: str) -> None:
        self.root = existing_folder(root, purpose)
        # One listing instead of one look-up per file, which takes minutes on network disks.
        with os.scandir(self.root) as entries:
            self._names = {entry.name for entry in entries}

    def has(self, names: Iterable[str]) -> bool:
        """Return whether all these files exist; every folder that they are in is listed once.

        Args:
            names: Names relative to the folder, normalised.
        """
        listings: dict[str, set[str]] = {"": self._names}
        for name in names:
            head, _, tail = name.rpartition(os.sep)
            if head not in listings:
                try:
                    listings[head] = set(os.listdir(self.root / head))
                except (OSError, ValueError):  # the latter for a NUL
                    return False
            if tail not in listings[head]:
                return False
        return True

    def find(self, name: str, fields: Fields, field: str) -> str:
        """Check that the file is there.

        Args:
            name: Name relative to the folder.
            fields: Access to the annotation file, for the message.
            field: Position of the name, for the message.

        Returns:
            The normalised name.

        Raises:
            DataError: The name leaves the folder, or there is no such file.
        """
        normal = os.path.normpath(name)
        if os.path.isabs(normal) or normal.split(os.sep, 1)[0] == os.pardir:
            raise fields.error(field, f"{name!r:.200} leads out of the folder {self.root}")
        found = os.path.isfile(self.root / normal) if os.sep in normal else normal in self._names
        if not found:
            raise fields.error(field, f"there is no file {name!r:.200} in {self.root}", advice="check the folder")
        return normal


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
