"""The bitmasks of BDD100K: PNGs of four channels, in which each pixel has a category, attributes and an object's id."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.label_maps import read_rgba_map, tight_boxes
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import IGNORE_INDEX

INSTANCE_CLASSES = 8
"""Categories of the instance bitmasks: these are the first detection classes, counted from 1."""
LAST_STUFF_ID = 30
"""Largest category in a panoptic bitmask that has no objects."""
CARAVAN, TRAILER = 36, 38
"""Categories in a panoptic bitmask whose objects are crowds."""
_CROWD_BIT, _IGNORED_BIT = 0b10, 0b01


class BitmaskObjects(NamedTuple):
    """The objects of a bitmask; the instance map contains the row plus one."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    instances: NDArray[np.int32]


def classes_of(ids: NDArray[Any], table: NDArray[np.int16], path: str) -> NDArray[np.uint8]:
    """Return the classes of ids, uint8 of their shape.

    Args:
        ids: The ids, 0 to 255.
        table: int16 [256], the class of each id; -1 for an id that does not exist.
        path: Path of the mask, for messages.

    Raises:
        DataError: An id does not exist.
    """
    classes: NDArray[np.int16] = table[ids]
    if (classes < 0).any():
        raise DataError.at(path, f"there is no class of id {ids[classes < 0][0]}", advice="use the official masks")
    return classes.astype(np.uint8)


def read_panoptic_bitmask(
    path: str, classes: NDArray[np.int16], labels: NDArray[np.int64]
) -> tuple[BitmaskObjects, NDArray[np.uint8]]:
    """Return the objects of a panoptic bitmask, and its segmentation classes, uint8 [H, W].

    Args:
        path: Path of the bitmask.
        classes: int16 [256], the segmentation class of each category; -1 for a category that does not exist.
        labels: int64 [256], the detection class of each category.

    Raises:
        DataError: It is missing or broken, is an instance bitmask, or has a category that does not exist.
    """
    rgba = read_rgba_map(path)
    categories = rgba[..., 0]
    ids = _ids(rgba)
    if categories.max(initial=0) <= INSTANCE_CLASSES and (ids != categories).any():
        # Panoptic stuff has its category as an id, and no street is without sky, plants, buildings and cars.
        raise DataError.at(path, "this looks like an instance bitmask", advice="name its folder as `instances`")
    semantic = classes_of(categories, classes, path)
    semantic[rgba[..., 1] & _IGNORED_BIT > 0] = IGNORE_INDEX
    return _things(rgba, np.where(categories > LAST_STUFF_ID, ids, 0), labels, path), semantic


def read_instance_bitmask(path: str) -> BitmaskObjects:
    """Return the objects of an instance bitmask.

    Args:
        path: Path of the bitmask.

    Raises:
        DataError: It is missing or broken, or has a category that does not exist.
    """
    rgba = read_rgba_map(path)
    if rgba[..., 0].max(initial=0) > INSTANCE_CLASSES:
        raise DataError.at(
            path, f"category {rgba[..., 0].max()} is not from 1 to {INSTANCE_CLASSES}", advice="is it panoptic?"
        )
    labels = np.arange(-1, 255, dtype=np.int64)
    return _things(rgba, np.where(rgba[..., 0] > 0, _ids(rgba), 0), labels, path)


def _ids(rgba: NDArray[np.uint8]) -> NDArray[np.int32]:
    ids: NDArray[np.int32] = rgba[..., 2].astype(np.int32) << 8 | rgba[..., 3]
    return ids


def _things(rgba: NDArray[np.uint8], ids: NDArray[np.int32], labels: NDArray[np.int64], path: str) -> BitmaskObjects:
    """Return the objects of a bitmask.

    Args:
        rgba: [H, W, 4], the bitmask.
        ids: [H, W], 0 = no object.
        labels: [256], the detection class of each category.
        path: Path of the bitmask, for messages.
    """
    counts = np.bincount(ids.ravel())
    present = np.flatnonzero(counts[1:]) + 1
    # One category and one set of attributes per object: the last pixel's are used for all, then all are compared.
    kinds = rgba[..., 0].astype(np.int32) << 8 | rgba[..., 1]
    kind_of = np.zeros(len(counts), dtype=np.int32)
    kind_of[ids] = kinds
    mixed = (kind_of[ids] != kinds) & (ids > 0)
    if mixed.any():
        raise DataError.at(path, f"object {ids[mixed][0]} has pixels of several categories or attributes")
    categories, attributes = kind_of[present] >> 8, kind_of[present] & 255
    number_of = np.zeros(len(counts), dtype=np.int32)
    number_of[present] = np.arange(1, len(present) + 1)
    boxes = tight_boxes(number_of[ids], len(present))
    crowd = (attributes & (_CROWD_BIT | _IGNORED_BIT) > 0) | np.isin(categories, (CARAVAN, TRAILER))
    # A crowd has no instance.
    number_of[present[crowd]] = 0
    return BitmaskObjects(boxes, labels[categories], crowd, number_of[ids])
