"""The content of a COCO instances file as a few flat arrays: read fast, kept between runs, shared by all processes."""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from collections.abc import Sequence
from functools import partial
from os import PathLike
from pathlib import Path

import numpy as np

from ocrnet_pl.data.readers.coco_arrays import CocoIndex
from ocrnet_pl.data.readers.coco_readers import read_fast, read_plain
from ocrnet_pl.data.readers.folder_index import FolderIndex
from ocrnet_pl.data.readers.json_fields import Fields
from ocrnet_pl.storage.flat_arrays import Arrays, Numbers, Texts, map_arrays, save_arrays
from ocrnet_pl.storage.ordinary_files import open_file

_VERSION = "3"
_ABSENT_CLASSES = re.compile(rb'"neg_category_ids"\s*:\s*\[\s*[^\]\s]')
_KEEP_FROM = 32 << 20
"""JSON files with fewer bytes are read again each time, which takes about a second."""

FLAT_ARRAYS = (
    "sizes",
    "labels",
    "boxes",
    "crowd",
    "ignored",
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
    path: str | PathLike[str],
    folder: FolderIndex,
    fields: Fields,
    cache: str | PathLike[str] | None = None,
    some_classes: bool = False,
) -> CocoIndex:
    """Read a COCO instances file, or what was kept of it.

    The content of a large file is kept as a file of arrays, and mapped from there by later runs, by the other processes
    of this run, and by workers. It is found by the JSON's path and used as long as the JSON's size and time are the
    same.

    Args:
        path: Path of the JSON file.
        folder: FolderIndex of the images; every image of the file must be in it.
        fields: Access to the JSON file, for messages.
        cache: Folder of the kept files; None for ``$OCRNET_PL_CACHE`` or else ``ocrnet_pl`` in the user's cache folder.
            If it cannot be written to, nothing is kept.
        some_classes: Whether images may be labelled for some of the classes only, as in LVIS.

    Raises:
        DataError: A file is missing, or a field is missing or wrong, or an id is unknown.
    """
    kept = _kept_file(path, cache)
    key = _key(path, some_classes)
    index = None if kept is None or key is None else _kept(kept, key)
    if index is None:
        if not some_classes:
            _refuse_partial_labels(path, fields)
        index = read_fast(path, folder) or read_plain(path, folder, fields)
        if kept is not None and key is not None and _keep(index, kept, key):
            index = load_index(str(kept))  # so that the memory of this one is freed
    else:
        _check_files(index.names, folder, fields)
    return index


def _check_files(names: Sequence[str], folder: FolderIndex, fields: Fields) -> None:
    texts = names.unpack() if isinstance(names, Texts) else list(names)
    if not folder.has(texts):
        for position, name in enumerate(texts):
            folder.find(name, partial(fields.error, f"images[{position}].file_name"))


def _refuse_partial_labels(path: str | PathLike[str], fields: Fields) -> None:
    """Refuse a file whose images were each labelled for some classes: the other classes would count as absent."""
    with open_file(path) as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
                found = _ABSENT_CLASSES.search(text) is not None
        except (ValueError, OSError):  # an empty file
            return
    if found:
        raise fields.error(
            "images[0].neg_category_ids", "each image was labelled for some of the classes only", "read it with `Lvis`"
        )


def _key(path: str | PathLike[str], some_classes: bool) -> str | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None  # reading it raises the proper error
    return f"{_VERSION} {int(some_classes)} {stat.st_size} {stat.st_mtime_ns}" if stat.st_size >= _KEEP_FROM else None


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
        index = load_index(str(file))
        _check_index(index)
        return index
    except (OSError, ValueError, LookupError, AttributeError, TypeError):  # it is damaged, so the JSON is read again
        return None


def _check_index(index: CocoIndex) -> None:
    """Check that a kept index is consistent; only the masks are checked later, when they are drawn.

    Raises:
        ValueError: It is not.
    """
    images, count = len(index.names), len(index.labels)
    for texts in (index.names, index.ids):
        if isinstance(texts, Texts):
            texts.check(images)
    shapes = {
        "sizes": (images, 2),
        "boxes": (count, 4),
        "crowd": (count,),
        "ignored": (count,),
        "kinds": (count,),
        "ends": (count + 1,),
    }
    for name, shape in shapes.items():
        if getattr(index, name).shape != shape:
            raise ValueError(f"{name} has another shape")
    for name in ("sizes", "labels", "order", "starts", "empty", "empty_starts", "ends", "masks"):
        if getattr(index, name).dtype.kind not in "iu" or getattr(index, name).ndim != 1 + (name == "sizes"):
            raise ValueError(f"{name} is of another kind")
    if not np.isfinite(index.boxes).all() or (len(index.sizes) and index.sizes.min() < 1):
        raise ValueError("a box or a size is damaged")
    if count and not 0 <= index.labels.min() <= index.labels.max() < len(index.category_names):
        raise ValueError("a label is damaged")
    if not np.array_equal(np.sort(np.concatenate([index.order, index.empty])), np.arange(count)):
        raise ValueError("the order is damaged")
    ends = (
        (index.starts, images, len(index.order)),
        (index.empty_starts, images, len(index.empty)),
        (index.ends, count, len(index.masks)),
    )
    for bounds, parts, last in ends:
        if bounds.shape != (parts + 1,) or bounds[0] != 0 or bounds[-1] != last or (np.diff(bounds) < 0).any():
            raise ValueError("the bounds are damaged")
    if len(index.ids) != images or len(index.category_ids) != len(index.category_names):
        raise ValueError("the names are damaged")


def load_index(file: str) -> CocoIndex:
    """Map a kept index.

    Args:
        file: Path of the kept index, as in :attr:`CocoIndex.file`.
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
