"""What a COCO instances file says, as a few flat arrays: read fast, kept between runs, shared by all processes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from ocrnet_pl.data.coco_arrays import CocoIndex
from ocrnet_pl.data.coco_readers import read_fast, read_plain
from ocrnet_pl.data.files import Fields, Folder
from ocrnet_pl.data.packed import Arrays, Numbers, Texts, map_arrays, save_arrays

_VERSION = "2"
_KEEP_FROM = 32 << 20
"""JSON files of fewer bytes are read anew each time: that takes about a second."""

FLAT_ARRAYS = (
    "sizes",
    "labels",
    "boxes",
    "crowd",
    "kinds",
    "ends",
    "masks",
    "order",
    "starts",
    "empty",
    "empty_starts",
)
"""The fields of an index that are plain arrays."""


def open_index(
    path: str | PathLike[str], folder: Folder, fields: Fields, cache: str | PathLike[str] | None = None
) -> CocoIndex:
    """Read a COCO instances file, or what was kept of it.

    What was read of a large file is kept as a file of arrays, and mapped from there by later runs, by the other
    processes of this run, and by workers. It is found by the JSON's path and used while its size and time are the
    same.

    Args:
        path: The JSON file.
        folder: Of the images; every image of the file must be in it.
        fields: Of the JSON file, for messages.
        cache: Folder of the kept files; by default ``$OCRNET_PL_CACHE``, else ``ocrnet_pl`` in the user's cache
            folder. Where it cannot be written to, nothing is kept.

    Raises:
        DataError: A file is missing, or a field is missing or wrong, or an id is unknown.
    """
    kept = _kept_file(path, cache)
    key = _key(path)
    index = None if kept is None or key is None else _kept(kept, key)
    if index is None:
        index = read_fast(path, folder) or read_plain(path, folder, fields)
        if kept is not None and key is not None and _keep(index, kept, key):
            index = load_index(str(kept))  # so that the memory of this one is given back
    else:
        _check_files(index.names, folder, fields)
    return index


def _check_files(names: Sequence[str], folder: Folder, fields: Fields) -> None:
    texts = names.unpack() if isinstance(names, Texts) else list(names)
    if not folder.has(texts):
        for position, name in enumerate(texts):
            folder.find(name, fields, f"images[{position}].file_name")


def _key(path: str | PathLike[str]) -> str | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None  # reading it says what is wrong
    return f"{_VERSION} {stat.st_size} {stat.st_mtime_ns}" if stat.st_size >= _KEEP_FROM else None


def _kept_file(path: str | PathLike[str], cache: str | PathLike[str] | None) -> Path | None:
    if cache is None:
        default = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
        cache = os.environ.get("OCRNET_PL_CACHE") or os.path.join(default, "ocrnet_pl")
    name = hashlib.sha256(os.path.realpath(path).encode()).hexdigest()[:24]
    return Path(cache).expanduser() / "index" / f"{name}.safetensors"


def _keep(index: CocoIndex, file: Path, key: str) -> bool:
    arrays: Arrays = {name: getattr(index, name) for name in FLAT_ARRAYS}
    for name, values in (("names", index.names), ("ids", index.ids), ("category_names", index.category_names)):
        if isinstance(values, Numbers):
            arrays[name] = values.values
            continue
        if not isinstance(values, Texts):
            if not all(isinstance(value, str) for value in values):
                return False
            values = Texts.pack(values)  # type: ignore[arg-type]
        arrays[name], arrays[f"{name}_ends"] = values.data, values.ends
    arrays["category_ids"] = np.array(index.category_ids, dtype=np.int64)
    try:
        save_arrays(file, arrays, {"key": key})
    except OSError:
        return False
    return True


def _kept(file: Path, key: str) -> CocoIndex | None:
    try:
        if map_arrays(file)[1].get("key") != key:
            return None
        return load_index(str(file))
    except (OSError, ValueError, KeyError):
        return None


def load_index(file: str) -> CocoIndex:
    """Map a kept index.

    Args:
        file: Of which :attr:`CocoIndex.file` tells.
    """
    arrays, _ = map_arrays(file)
    texts = {
        name: Texts(arrays[name], arrays[f"{name}_ends"])
        for name in ("names", "ids", "category_names")
        if f"{name}_ends" in arrays
    }
    return CocoIndex(
        category_ids=arrays["category_ids"].tolist(),
        category_names=texts["category_names"].unpack(),
        ids=texts["ids"] if "ids" in texts else Numbers(arrays["ids"]),
        names=texts["names"],
        file=file,
        **{name: arrays[name] for name in FLAT_ARRAYS},
    )
