"""Descriptions of YOLO data sets without a data.yaml: ``classes.txt``, ``obj.names`` and ``obj.data``."""

from __future__ import annotations

import os
from typing import Any

from ocrnet_pl.errors import DataError
from ocrnet_pl.storage.ordinary_files import read_text

_MOST_BYTES = 1 << 20
_SPLITS = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}


def is_plain(path: str) -> bool:
    """Return whether a description is a list of names, or darknet's file of settings, instead of YAML."""
    return path.lower().endswith((".txt", ".names", ".data"))


def read_plain(path: str) -> dict[str, Any]:
    """Return the keys that a data.yaml would have.

    A list of names says nothing of the images: they are in the folder ``images`` beside it, in a folder ``train``,
    ``val`` or ``test`` in that, or in the other order; or a list ``train.txt`` names them. Of ``obj.data`` the entries
    ``train``, ``valid`` and ``names`` count; their folder ``data`` is that of the file itself.

    Args:
        path: Path of the file.

    Raises:
        DataError: It is missing, or has no names.
    """
    folder = os.path.dirname(path) or os.curdir
    lines = [line.strip() for line in read_text(path, "names", _MOST_BYTES).splitlines()]
    if not path.lower().endswith(".data"):
        return {"names": _names(path, lines)} | _guessed(folder)
    entries = {key.strip(): value.strip() for key, found, value in (line.partition("=") for line in lines) if found}
    if "names" not in entries:
        raise DataError.at(path, "missing", field="names", advice="write `names = obj.names`")
    names = os.path.join(folder, _beside(folder, entries["names"]))
    content: dict[str, Any] = {"names": _names(names, read_text(names, "names", _MOST_BYTES).splitlines())}
    for split, keys in _SPLITS.items():
        given = next((entries[key] for key in keys if entries.get(key)), None)
        if given is not None:
            content[split] = _beside(folder, given)
    return content


def _names(path: str, lines: list[str]) -> list[str]:
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise DataError.at(path, "there is no name", advice="write one class per line")
    return names


def _beside(folder: str, name: str) -> str:
    """Return a name from the folder of the file: darknet starts from the one above, CVAT exports without it."""
    inner = name.removeprefix("data/").removeprefix("./")
    return inner if not _exists(folder, name) and _exists(folder, inner) else name


def _guessed(folder: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for split, keys in _SPLITS.items():
        places = [place for key in keys for place in (f"images/{key}", f"{key}/images", f"{key}.txt")]
        given = next((place for place in places if _exists(folder, place)), None)
        if given is not None:
            found[split] = given
    if not found and _exists(folder, "images"):
        found["train"] = "images"
    return found


def _exists(folder: str, name: str) -> bool:
    return "\0" not in name and os.path.exists(os.path.join(folder, name))
