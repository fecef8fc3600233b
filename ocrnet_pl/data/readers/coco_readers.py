"""Two readers of COCO instances files with the same result: one that explains every fault, and one that is fast."""

from __future__ import annotations

import gc
import mmap
import re
from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.coco_arrays import NO_MASK, RLE, CocoIndex, Masks, by_image, compressed, join, pack_polygons
from ocrnet_pl.data.readers.coco_entries import (
    Annotation,
    Ids,
    JoinedImages,
    parent,
    read_annotation,
    read_image_entry,
    settle_categories,
    tell_of_boxes,
    with_box_of_mask,
)
from ocrnet_pl.data.readers.folder_index import FolderIndex
from ocrnet_pl.data.readers.json_fields import Fields, read_json, unique
from ocrnet_pl.data.readers.values import MOST, is_text
from ocrnet_pl.storage.flat_arrays import Numbers, Texts
from ocrnet_pl.storage.ordinary_files import open_file

_BLOCK = 4 << 20
_BETWEEN = re.compile(rb"\}\s*,\s*\{")
_ODD_PART = re.compile(rb"(?:^|[\n/])\.{0,2}(?:[\n/]|$)")


def read_plain(path: str | PathLike[str], folder: FolderIndex, fields: Fields) -> CocoIndex:
    """Read the JSON with the standard library and check every field; the errors name the first that is wrong.

    Args:
        path: Path of the JSON file.
        folder: Folder of the images.
        fields: Access to the JSON file, for messages.

    Raises:
        DataError: A file is missing, or a field is missing or wrong, or an id is unknown.
    """
    content = read_json(path)
    categories = fields.objects(content, "categories")
    category_ids = [fields.integer(c, f"categories[{i}]", "id") for i, c in enumerate(categories)]
    category_names = [fields.text(c, f"categories[{i}]", "name") for i, c in enumerate(categories)]
    if not category_names:
        raise fields.error("categories", "the list is empty")
    unique(category_ids, fields, "categories", "id")
    joined = JoinedImages(fields)
    for position, entry in enumerate(fields.objects(content, "images")):
        where = f"images[{position}]"
        joined.add(read_image_entry(entry, where, folder, fields), where)
    if not joined.images:
        raise fields.error("images", "the list is empty")
    joined.tell()
    images = joined.images
    finder = Ids(entry.id for entry in joined.entries)
    sizes = [entry.size for entry in joined.entries]
    known = Ids(category_ids)
    found: list[Annotation] = []
    for position, annotation in enumerate(fields.objects(content, "annotations")):
        found.append(read_annotation(annotation, f"annotations[{position}]", finder, known, sizes, fields))
    masks = Masks()
    for one in found:
        masks.add(*one.mask)
    places = np.array([one.category for one in found], dtype=np.int64)
    settled = settle_categories(
        category_ids,
        category_names,
        [parent(category.get("supercategory")) for category in categories],
        np.bincount(places, minlength=len(category_ids)),
        fields.path,
    )
    corners = np.array([one.corners for one in found], dtype=np.float32).reshape(-1, 4)
    tell_of_boxes(sum(one.from_mask for one in found), len(found), fields.path)
    rows = np.array([joined.row_of[one.row] for one in found], dtype=np.int64)
    return CocoIndex(
        settled.ids,
        settled.names,
        [image.id for image in images],
        Texts.pack([image.name for image in images]),
        np.array([image.size for image in images], dtype=np.int32),
        settled.label_of[places],
        corners,
        np.array([one.crowd for one in found], dtype=np.bool_),
        np.array([one.ignored for one in found], dtype=np.bool_),
        *masks.arrays(),
        *by_image(rows, corners, len(images)),
    )


def read_fast(path: str | PathLike[str], folder: FolderIndex) -> CocoIndex | None:
    """Read the JSON in blocks with a typed parser, so that Python objects cost neither time nor memory.

    Args:
        path: Path of the JSON file.
        folder: Folder of the images.

    Returns:
        The result of :func:`read_plain`; None if anything about the file is wrong or unusual, which the plain reader
        then reports or handles.
    """
    import msgspec

    types = _Types()
    # Millions of short-lived lists would start the cycle collector again and again, and there are no cycles.
    collects = gc.isenabled()
    gc.disable()
    try:
        with open_file(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            try:
                parts: Any = msgspec.json.decode(text, type=types.file)
                text.madvise(mmap.MADV_DONTNEED)  # read again block by block, without counting as ours all the time
                return _read_parts(parts, types, folder, text, path)
            finally:
                # The parts are views of the mapping, which could not be closed otherwise.
                parts = None
    # The last one for a file that is nested too deeply.
    except (OSError, ValueError, msgspec.MsgspecError, BufferError, OverflowError, _Unusual, RecursionError):
        return None
    finally:
        if collects:
            gc.enable()


class _Unusual(Exception):
    """Something that only the plain reader can judge."""


class _Types:
    """The typed forms of the file; the parser is imported when it is needed."""

    def __init__(self) -> None:
        import msgspec

        polygons = list[list[float]]
        rle = msgspec.defstruct("Rle", [("counts", str), ("size", tuple[int, int])], gc=False)
        category: Any = msgspec.defstruct("Category", [("id", int), ("name", str), ("supercategory", Any, None)])
        image: Any = msgspec.defstruct(
            "Image", [("id", int | str), ("file_name", str), ("height", int, 0), ("width", int, 0)], gc=False
        )
        annotation: Any = msgspec.defstruct(
            "Annotation",
            [
                ("image_id", int | str),
                ("category_id", int),
                ("bbox", tuple[float, float, float, float]),
                ("iscrowd", int | bool, 0),
                ("ignore", int | bool, 0),
                ("segmentation", polygons | rle | None, None),
            ],
            gc=False,
        )
        self.file = msgspec.defstruct(
            "File", [("images", msgspec.Raw), ("annotations", msgspec.Raw), ("categories", list[category])]
        )
        self.rle = rle
        self.images = msgspec.json.Decoder(list[image])
        self.annotations = msgspec.json.Decoder(list[annotation])


def _read_parts(
    parts: Any, types: _Types, folder: FolderIndex, text: mmap.mmap, path: str | PathLike[str]
) -> CocoIndex:
    names: list[Texts] = []
    id_parts: list[Any] = []
    sizes: list[NDArray[np.int32]] = []
    hashes: list[NDArray[np.int64]] = []
    for images in _blocks(parts.images, types.images, text):
        if not all(is_text(image.file_name) for image in images):
            raise _Unusual
        hashes.append(np.array([hash(image.file_name) for image in images], dtype=np.int64))
        names.append(_checked_names([image.file_name for image in images], folder))
        id_parts.append(_ids([image.id for image in images]))
        sizes.append(np.array([(image.height, image.width) for image in images], dtype=np.int32))
    if not names:
        raise _Unusual
    all_sizes = np.concatenate(sizes)
    if all_sizes.min() < 1 or len({isinstance(part, np.ndarray) for part in id_parts}) > 1:
        raise _Unusual
    all_hashes = np.concatenate(hashes)
    if len(np.unique(all_hashes)) < len(all_hashes):  # an image with several entries
        raise _Unusual
    place_of = {category.id: place for place, category in enumerate(parts.categories)}
    category_names = [category.name for category in parts.categories]
    if not place_of or not all(map(is_text, category_names)) or len(place_of) != len(category_names):
        raise _Unusual
    look_up = _LookUp(id_parts)

    rows: list[NDArray[np.int64]] = []
    labels: list[NDArray[np.int64]] = []
    boxes: list[NDArray[np.float32]] = []
    flags: dict[str, list[NDArray[np.bool_]]] = {"iscrowd": [], "ignore": []}
    masks = Masks()
    from_masks = 0
    for block in _blocks(parts.annotations, types.annotations, text):
        own_rows = look_up.rows(_ids([annotation.image_id for annotation in block]))
        try:
            own_labels = np.array([place_of[annotation.category_id] for annotation in block], dtype=np.int64)
        except KeyError as error:
            raise _Unusual from error
        corners = np.array([annotation.bbox for annotation in block], dtype=np.float64)
        if not (np.abs(corners) <= MOST).all():
            raise _Unusual
        corners[:, 2:] += corners[:, :2]
        for name, parts_of_flag in flags.items():
            values = np.array([getattr(annotation, name) for annotation in block], dtype=np.int64)
            if ((values != 0) & (values != 1)).any():
                raise _Unusual
            parts_of_flag.append(values == 1)
        segmentations = [annotation.segmentation for annotation in block]
        from_masks += _pack_block(segmentations, corners, own_rows, all_sizes, types.rle, masks)
        rows.append(own_rows)
        labels.append(own_labels)
        boxes.append(corners.astype(np.float32))
    all_boxes = join(boxes, np.float32).reshape(-1, 4)
    tell_of_boxes(from_masks, len(all_boxes), path)
    places = join(labels, np.int64)
    settled = settle_categories(
        list(place_of),
        category_names,
        [parent(category.supercategory) for category in parts.categories],
        np.bincount(places, minlength=len(place_of)),
        path,
    )
    return CocoIndex(
        settled.ids,
        settled.names,
        look_up.ids,
        _join_texts(names),
        all_sizes,
        settled.label_of[places],
        all_boxes,
        join(flags["iscrowd"], np.bool_),
        join(flags["ignore"], np.bool_),
        *masks.arrays(),
        *by_image(join(rows, np.int64), all_boxes, len(all_sizes)),
    )


def _blocks(part: Any, decoder: Any, text: mmap.mmap) -> Iterator[list[Any]]:
    """Decode a list of objects a few megabytes at a time.

    A block ends at the end of an object, as far as that can be told without parsing: after ``}`` and before ``, {``. If
    that turns out to be inside a string or a nested list, the block is not valid JSON, and the plain reader takes over.
    """
    with memoryview(part) as view:
        if bytes(view[:1]) != b"[":
            raise _Unusual
        start, end = 1, len(view) - 1
        while start < end:
            found = _BETWEEN.search(view, min(start + _BLOCK, end))
            stop = end if found is None else found.start() + 1
            items = decoder.decode(b"".join((b"[", view[start:stop], b"]")))
            text.madvise(mmap.MADV_DONTNEED)
            if items:
                yield items
            start = end if found is None else found.end() - 1


def _ids(values: list[int | str]) -> NDArray[np.int64] | list[str]:
    """Return ids as an array, or a list of texts; a mixture is unusual."""
    kinds = set(map(type, values))
    if kinds == {int}:
        return np.array(values, dtype=np.int64)
    if kinds == {str} and all(map(is_text, values)):
        return values  # type: ignore[return-value]
    raise _Unusual


class _LookUp:
    """Finds the images of annotations."""

    def __init__(self, parts: list[Any]) -> None:
        self.ids: Sequence[int | str]
        if isinstance(parts[0], np.ndarray):
            values = np.concatenate(parts)
            self._order = np.argsort(values, kind="stable")
            self._sorted = values[self._order]
            if (self._sorted[1:] == self._sorted[:-1]).any():
                raise _Unusual
            self._rows: dict[str, int] | None = None
            self.ids = Numbers(values)
        else:
            texts = [text for part in parts for text in part]
            self._rows = {text: row for row, text in enumerate(texts)}
            if len(self._rows) != len(texts):
                raise _Unusual
            self.ids = Texts.pack(texts)

    def rows(self, ids: NDArray[np.int64] | list[str]) -> NDArray[np.int64]:
        if isinstance(ids, np.ndarray) != (self._rows is None):
            raise _Unusual
        if self._rows is None:
            places = np.minimum(np.searchsorted(self._sorted, ids), len(self._sorted) - 1)
            if (self._sorted[places] != ids).any():
                raise _Unusual
            return self._order[places]
        try:
            return np.array([self._rows[image_id] for image_id in ids], dtype=np.int64)  # type: ignore[index]
        except KeyError as error:
            raise _Unusual from error


def _pack_block(
    segmentations: list[Any],
    corners: NDArray[np.float64],
    rows: NDArray[np.int64],
    sizes: NDArray[np.int32],
    rle: type,
    masks: Masks,
) -> int:
    """Pack the masks of a block, write their boxes over those without area, and return how many."""
    count = 0
    if not any(segmentations):
        masks.add_none(len(segmentations))
        return count
    has_area: NDArray[np.bool_] = np.asarray((corners[:, 2:] > corners[:, :2]).all(1))
    for position, segmentation in enumerate(segmentations):
        size = tuple(sizes[rows[position]].tolist())
        mask: tuple[int, bytes] = (NO_MASK, b"")
        if isinstance(segmentation, rle):
            if segmentation.size != size:  # type: ignore[attr-defined]
                raise _Unusual
            if not segmentation.counts.isascii():  # type: ignore[attr-defined]
                raise _Unusual
            mask = (RLE, compressed(segmentation.counts))  # type: ignore[attr-defined]
        elif segmentation:
            if any(len(polygon) % 2 for polygon in segmentation):
                raise _Unusual
            mask = pack_polygons([polygon for polygon in segmentation if len(polygon) >= 6])
        if not has_area[position]:
            own, mask = with_box_of_mask(tuple(corners[position].tolist()), mask, size)
            corners[position] = own
            count += mask[0] != NO_MASK
        masks.add(*mask)
    return count


def _join_texts(parts: list[Texts]) -> Texts:
    lengths = np.concatenate([np.diff(part.ends) for part in parts])
    return Texts(np.concatenate([part.data for part in parts]), np.concatenate(([0], np.cumsum(lengths))))


def _checked_names(names: list[str], folder: FolderIndex) -> Texts:
    """Pack file names that are in the folder; any other name, and one that is not in its normal form, is unusual."""
    joined = "\n".join(names)
    if joined.count("\n") != len(names) - 1 or _ODD_PART.search(joined.encode()) or not folder.has(names):
        raise _Unusual
    return Texts.pack(names)
