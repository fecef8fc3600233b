"""The entries of a COCO instances file, one at a time, as the many tools that write such files mean them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.coco_arrays import NO_MASK, POLYGONS, check_runs, pack_mask
from ocrnet_pl.data.readers.folder_index import FolderIndex
from ocrnet_pl.data.readers.json_fields import Fields
from ocrnet_pl.data.readers.values import as_whole, is_text, shown
from ocrnet_pl.distributed.first_process import tell
from ocrnet_pl.imaging.images import MAX_PIXELS, upright_size

MAX_SIDE = (1 << 31) - 1
"""Largest side of an image, in pixels."""

_BACKGROUNDS = ("background", "_background_", "__background__", "__ignore__", "_ignore_")


class ImageEntry(NamedTuple):
    """An entry of ``images``.

    Attributes:
        id: Its id.
        name: The file below the folder of the images, as it exists.
        given: The file name as it is written.
        size: (height, width).
    """

    id: int | str
    name: str
    given: str
    size: tuple[int, int]


class Annotation(NamedTuple):
    """An entry of ``annotations``.

    Attributes:
        row: Row of its image.
        category: Position of its category in the file.
        corners: x0, y0, x1, y1 in pixels.
        crowd: Whether ``iscrowd`` says so.
        ignored: Whether ``ignore`` says so.
        mask: Kind and bytes of its mask.
        from_mask: Whether the corners are those of the mask.
    """

    row: int
    category: int
    corners: tuple[float, float, float, float]
    crowd: bool
    ignored: bool
    mask: tuple[int, bytes]
    from_mask: bool


class Ids:
    """Finds what an id refers to; a number and the text of it are the same unless the file has both.

    Args:
        ids: The ids in order.
    """

    def __init__(self, ids: Iterable[int | str]) -> None:
        self._places: dict[int | str, int] = {}
        self._loose: dict[str, int] = {}
        for place, value in enumerate(ids):
            self._places.setdefault(value, place)
            self._loose.setdefault(str(value), place)

    def find(self, value: Any) -> int | None:
        """Return the place of an id; None if there is no such id."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int | str):
            return None
        return self._places[value] if value in self._places else self._loose.get(str(value))


def entry_id(entry: Mapping[str, Any], where: str, fields: Fields) -> int | str:
    """Return the id of an image, a number or text; 1.0 is 1.

    Raises:
        DataError: It is neither.
    """
    value = entry.get("id")
    if not is_text(value):
        number = as_whole(value)
        if number is None:
            raise fields.error(f"{where}.id", f"expected an integer or text, found {shown(value)}")
        return number
    return value


def read_image_entry(entry: dict[str, Any], where: str, folder: FolderIndex, fields: Fields) -> ImageEntry:
    """Read an entry of ``images``.

    The size comes from the file if the entry has none, or zeros as some tools write; the name comes from ``coco_url``
    if there is no ``file_name``, as in LVIS.

    Raises:
        DataError: A field is missing or wrong, there is no such file, or its size is needed and cannot be read.
    """
    image_id = entry_id(entry, where, fields)
    key = "coco_url" if entry.get("file_name") is None and "coco_url" in entry else "file_name"
    given = fields.text(entry, where, key)
    if key == "coco_url":
        given = os.sep.join(["", *given.split("/")[-2:]])  # a path of another place
    name = folder.find(given, partial(fields.error, f"{where}.{key}"))
    if all(as_whole(entry.get(side)) in (None, 0) and not entry.get(side) for side in ("height", "width")):
        return ImageEntry(image_id, name, given, upright_size(folder.root / name))
    height, width = (fields.integer(entry, where, side, 1, MAX_SIDE) for side in ("height", "width"))
    return ImageEntry(image_id, name, given, (height, width))


class JoinedImages:
    """The images of a file, where the entries of one image, of which some tools write one per object, are joined.

    Args:
        fields: Access to the file, for messages.

    Attributes:
        images: One entry per image.
        entries: The entries as they were added.
        row_of: The row of each entry among the images.
    """

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self.images: list[ImageEntry] = []
        self.entries: list[ImageEntry] = []
        self.row_of: list[int] = []
        self._rows: dict[str, int] = {}
        self._names: dict[int | str, str] = {}

    def add(self, entry: ImageEntry, where: str) -> None:
        """Add an entry.

        Args:
            entry: The entry.
            where: Its position in the file, for messages.

        Raises:
            DataError: Another image has its id, or another entry of the image has another size or name.
        """
        if self._names.get(entry.id, entry.name) != entry.name:
            raise self._fields.error(f"{where}.id", f"{entry.id!r} occurs more than once")
        row = self._rows.get(entry.name, len(self.images))
        if row < len(self.images):
            first = self.images[row]
            if (first.given, first.size) != (entry.given, entry.size):
                text = f"{entry.given!r:.100} of {entry.size[1]} x {entry.size[0]} is the same file as"
                text += f" {first.given!r:.100} of {first.size[1]} x {first.size[0]}"
                raise self._fields.error(f"{where}.file_name", text, "remove one of them")
        else:
            self.images.append(entry)
        self._names[entry.id] = entry.name
        self._rows[entry.name] = row
        self.entries.append(entry)
        self.row_of.append(row)

    def tell(self) -> None:
        """Say so if entries were joined."""
        if len(self.images) < len(self.entries):
            counts = f"{len(self.entries)} entries name {len(self.images)} images"
            tell(f"{self._fields.path}: images: {counts}; the entries of one image are joined")


def parent(value: Any) -> str | None:
    """Return a ``supercategory``; None if it is not text."""
    return value if isinstance(value, str) else None


def read_annotation(
    entry: dict[str, Any],
    where: str,
    images: Ids,
    categories: Ids,
    sizes: Sequence[tuple[int, int]],
    fields: Fields,
) -> Annotation:
    """Read an entry of ``annotations``.

    A box that is missing or has no area is that of the mask, if there is one.

    Raises:
        DataError: A field is missing or wrong, or an id is unknown.
    """
    image_id, category_id = entry.get("image_id"), entry.get("category_id")
    row, category = images.find(image_id), categories.find(category_id)
    if row is None:
        raise fields.error(f"{where}.image_id", f"there is no image {shown(image_id)}")
    if category is None:
        raise fields.error(f"{where}.category_id", f"there is no category {shown(category_id)}")
    crowd, ignored = fields.flag(entry, where, "iscrowd"), fields.flag(entry, where, "ignore")
    segmentation = entry.get("segmentation")
    if entry.get("bbox") in (None, []) and segmentation:
        corners = (0.0, 0.0, 0.0, 0.0)
    else:
        x, y, width, height = fields.numbers(entry, where, "bbox", 4)
        corners = (x, y, x + width, y + height)
    mask = pack_mask(segmentation, sizes[row], f"{where}.segmentation", fields)
    from_mask = False
    if not (corners[2] > corners[0] and corners[3] > corners[1]):
        corners, mask = with_box_of_mask(corners, mask, sizes[row])
        from_mask = mask[0] != NO_MASK
    return Annotation(row, category, corners, crowd, ignored, mask, from_mask)


def tell_of_boxes(count: int, total: int, path: str | PathLike[str]) -> None:
    """Say so if boxes are those of masks because they are missing or have no area.

    Args:
        count: Their number.
        total: Number of all boxes.
        path: Path of the file.
    """
    if count:
        tell(f"{path}: {count:,} of {total:,} boxes are missing or have no area; those around the masks stand for them")


def with_box_of_mask(
    corners: tuple[float, float, float, float], mask: tuple[int, bytes], size: tuple[int, int]
) -> tuple[tuple[float, float, float, float], tuple[int, bytes]]:
    """Return the box of the mask for an annotation whose own has no area; its own and no mask if the mask has none."""
    kind, packed = mask
    if kind == POLYGONS:
        values = np.frombuffer(packed, dtype=np.float64)
        points = values[1 + int(values[0]) :].reshape(-1, 2)
        found = np.concatenate([points.min(0), points.max(0)])
    elif kind == NO_MASK:
        return corners, mask
    else:
        from faster_coco_eval import mask as mask_api

        try:
            if size[0] * size[1] > MAX_PIXELS:
                return corners, (NO_MASK, b"")
            check_runs(packed, size[0] * size[1])
        except ValueError:
            return corners, (NO_MASK, b"")
        x, y, width, height = (
            float(side) for side in np.ravel(mask_api.toBbox([{"size": list(size), "counts": packed}]))
        )
        found = np.array([x, y, x + width, y + height])
    if not (found[2:] > found[:2]).all():
        return corners, (NO_MASK, b"")
    return (float(found[0]), float(found[1]), float(found[2]), float(found[3])), mask


class Categories(NamedTuple):
    """The categories that a file really has.

    Attributes:
        ids: Their ids.
        names: Their names, each once.
        label_of: int64, the category of each position in the file.
    """

    ids: list[int]
    names: list[str]
    label_of: NDArray[np.int64]


def settle_categories(
    ids: Sequence[int],
    names: Sequence[str],
    parents: Sequence[str | None],
    used: NDArray[np.int64],
    path: str | PathLike[str],
) -> Categories:
    """Leave out a category that only stands for the project or for nothing, and merge those of one name; both are said.

    Args:
        ids: Ids in the order of the file.
        names: Names in the order of the file.
        parents: Values of ``supercategory``; None where there is none.
        used: Number of annotations of each.
        path: Path of the file, for messages.
    """
    kept = list(range(len(ids)))
    if len(kept) > 1 and not used[0]:
        others = set(parents[1:])
        # Roboflow writes the name of the project first, and names it as the parent of all classes.
        of_project = parents[0] in (None, "", "none") and others == {names[0]}
        if of_project or names[0].lower() in _BACKGROUNDS:
            tell(
                f"{path}: category {ids[0]} {names[0]!r:.100} stands for no class and has no annotation; it is left out"
            )
            kept = kept[1:]
    label_of = np.full(len(ids), -1, dtype=np.int64)
    labels: dict[str, int] = {}
    own_ids: list[int] = []
    for place in kept:
        if names[place] in labels:
            first = own_ids[labels[names[place]]]
            tell(
                f"{path}: categories {first} and {ids[place]} are both named {names[place]!r:.100}; they are one class"
            )
        else:
            labels[names[place]] = len(labels)
            own_ids.append(ids[place])
        label_of[place] = labels[names[place]]
    return Categories(own_ids, list(labels), label_of)
