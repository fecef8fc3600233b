"""COCO panoptic: one JSON file, and for each image a PNG whose colors are segment ids."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from os import PathLike
from os.path import join
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.crowd_share import tell_of_crowds
from ocrnet_pl.data.readers.folder_index import FolderIndex
from ocrnet_pl.data.readers.json_fields import Fields, read_json, unique
from ocrnet_pl.data.readers.label_maps import MAX_INSTANCES
from ocrnet_pl.data.readers.sample_assembly import make_taxonomy
from ocrnet_pl.data.records import RawBoxes, make_sample
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.images import check_image, read_image
from ocrnet_pl.imaging.maps import read_map
from ocrnet_pl.structures import IGNORE_INDEX, Sample, Supervision, Taxonomy

_IDS = 1 << 24
"""A segment id is three bytes: red + 256 green + 65536 blue."""


class CocoPanoptic(Source):
    """COCO panoptic segmentation, things and stuff.

    Categories with ``isthing`` are detection classes; all are segmentation classes, stuff first. Pixels of id 0 are
    ignored. The pixels of a crowd segment have its class but no instance id. A thing whose box has no area is only
    segmented, not detected.

    Args:
        images: Folder of the images.
        annotations: Path of the JSON file.
        masks: Folder of the PNGs.
        root: Folder that the paths start from; ``data.root`` on the command line.

    Raises:
        DataError: A file is missing, a field is missing or wrong, an id is unknown, or a file name leaves its folder.
    """

    def __init__(
        self,
        images: str | PathLike[str],
        annotations: str | PathLike[str],
        masks: str | PathLike[str],
        root: str | PathLike[str] = ".",
    ) -> None:
        self.root = root
        images, annotations, masks = join(root, images), join(root, annotations), join(root, masks)
        self._fields = Fields(annotations)
        content = read_json(annotations)
        image_folder, mask_folder = FolderIndex(images, "images"), FolderIndex(masks, "panoptic PNGs")
        self._image_root, self._mask_root = image_folder.root, mask_folder.root
        category_ids = self._read_categories(self._fields.objects(content, "categories"))

        entries = self._fields.objects(content, "images")
        if not entries:
            raise self._fields.error("images", "the list is empty")
        self._ids: list[int] = []
        self._names: list[str] = []
        for position, entry in enumerate(entries):
            where = f"images[{position}]"
            self._ids.append(self._fields.integer(entry, where, "id"))
            name = self._fields.text(entry, where, "file_name")
            self._names.append(image_folder.find(name, partial(self._fields.error, f"{where}.file_name")))
        unique(self._ids, self._fields, "images", "id")
        self._read_annotations(self._fields.objects(content, "annotations"), category_ids, mask_folder)
        things = self._label_of[self._categories] >= 0
        names = [category.name for category in self._taxonomy.detection_categories]
        labels = self._label_of[self._categories][things]
        tell_of_crowds(labels, self._crowd[things], names, annotations, "check `iscrowd`")
        self._rows_of: NDArray[np.uint16] | None = None

    @property
    def taxonomy(self) -> Taxonomy:
        """The JSON's categories."""
        return self._taxonomy

    def __len__(self) -> int:
        return len(self._names)

    def files(self, index: int) -> Sequence[str]:
        """Return the paths of the image and of its PNG."""
        return (str(self._image_root / self._names[index]), str(self._mask_root / self._mask_names[index]))

    def __getitem__(self, index: int) -> Sample:
        path = str(self._image_root / self._names[index])
        mask_path = str(self._mask_root / self._mask_names[index])
        image = read_image(path)
        rows = slice(int(self._starts[index]), int(self._starts[index + 1]))
        segments = self._segment_map(mask_path, rows)
        if image.shape[1:] != segments.shape:
            image = read_image(path, exif=False)
            if image.shape[1:] != segments.shape:
                raise DataError.at(
                    mask_path,
                    f"the mask is {segments.shape[1]} x {segments.shape[0]}, but {path} is "
                    f"{image.shape[2]} x {image.shape[1]}",
                )
        # Row 0 of each table is void; row 0 of the targets is the first thing.
        categories, crowd = self._categories[rows], self._crowd[rows]
        boxes = self._boxes[rows]
        thing = (self._label_of[categories] >= 0) & (boxes[:, 2:] > boxes[:, :2]).all(1)
        semantic_of = np.append(np.uint8(IGNORE_INDEX), self._semantic_of[categories])
        instance_of = np.zeros(len(thing) + 1, dtype=np.int32)
        instance_of[1:][thing] = np.arange(1, thing.sum() + 1)
        instance_of[1:][thing & crowd] = 0
        return make_sample(
            image,
            boxes=boxes[thing],
            labels=self._label_of[categories][thing],
            crowd=crowd[thing],
            semantic=semantic_of[segments],
            instances=instance_of[segments],
            supervision=Supervision.full(self._taxonomy),
            image_id=self._ids[index],
            path=path,
        )

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the size of the sample's mask, which is that of the image as it was annotated."""
        return check_image(self._mask_root / self._mask_names[index])

    def raw_boxes(self, index: int) -> RawBoxes:
        """Return the boxes of an image's things as they are in the JSON, including those without area."""
        rows = slice(int(self._starts[index]), int(self._starts[index + 1]))
        labels, boxes = self._label_of[self._categories[rows]], self._boxes[rows]
        numbers = np.flatnonzero(labels >= 0)
        kept = (boxes[numbers, 2:] > boxes[numbers, :2]).all(1)
        return RawBoxes(
            image=str(self._image_root / self._names[index]),
            file=str(self._fields.path),
            field=f"annotations[{self._positions[index]}].segments_info[{{}}].bbox",
            numbers=numbers,
            boxes=boxes[numbers].astype(np.float64),
            labels=labels[numbers],
            crowd=self._crowd[rows][numbers],
            rows=np.where(kept, np.cumsum(kept) - 1, -1),
        )

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return the JSON's id and the image file."""
        return self._ids[index], str(self._image_root / self._names[index])

    def _read_categories(self, categories: list[dict[str, Any]]) -> list[int]:
        fields = self._fields
        if not categories:
            raise fields.error("categories", "the list is empty")
        ids: list[int] = []
        names: list[str] = []
        things: list[bool] = []
        colors: dict[str, tuple[int, int, int]] = {}
        for position, category in enumerate(categories):
            where = f"categories[{position}]"
            ids.append(fields.integer(category, where, "id"))
            names.append(fields.text(category, where, "name"))
            if category.get("isthing") is None:
                raise fields.error(f"{where}.isthing", "missing", "write 1 for things and 0 for stuff")
            things.append(fields.flag(category, where, "isthing"))
            if "color" in category:
                red, green, blue = (int(value) for value in fields.numbers(category, where, "color", 3))
                if not 0 <= min(red, green, blue) <= max(red, green, blue) < 256:
                    raise fields.error(f"{where}.color", f"expected 0 to 255, found {[red, green, blue]}")
                colors[names[-1]] = (red, green, blue)
        unique(ids, fields, "categories", "id")
        unique(names, fields, "categories", "name")
        self._taxonomy = make_taxonomy(
            fields.path,
            things=[name for name, thing in zip(names, things, strict=True) if thing],
            stuff=[name for name, thing in zip(names, things, strict=True) if not thing],
            colors=colors,
        )
        by_name = {category.name: category for category in self._taxonomy.categories}
        ordered = [by_name[name] for name in names]
        self._label_of = np.array([-1 if c.detection is None else c.detection for c in ordered], dtype=np.int64)
        self._semantic_of = np.array([c.semantic for c in ordered], dtype=np.uint8)
        return ids

    def _read_annotations(
        self, annotations: list[dict[str, Any]], category_ids: list[int], mask_folder: FolderIndex
    ) -> None:
        fields = self._fields
        row_of = {category_id: row for row, category_id in enumerate(category_ids)}
        index_of = {image_id: index for index, image_id in enumerate(self._ids)}
        masks: dict[int, str] = {}
        positions = np.zeros(len(self._ids), dtype=np.int64)
        segments: list[list[tuple[int, int, bool, list[float]]]] = [[] for _ in self._ids]
        for position, annotation in enumerate(annotations):
            where = f"annotations[{position}]"
            image_id = fields.integer(annotation, where, "image_id")
            if image_id not in index_of:
                raise fields.error(f"{where}.image_id", f"there is no image {image_id}")
            index = index_of[image_id]
            if index in masks:
                raise fields.error(f"{where}.image_id", f"image {image_id} is annotated more than once")
            positions[index] = position
            name = fields.text(annotation, where, "file_name")
            masks[index] = mask_folder.find(name, partial(fields.error, f"{where}.file_name"))
            infos = fields.objects(annotation, "segments_info")
            if len(infos) > MAX_INSTANCES:
                raise fields.error(f"{where}.segments_info", f"{len(infos)} segments, at most {MAX_INSTANCES} fit")
            for number, segment in enumerate(infos):
                place = f"{where}.segments_info[{number}]"
                segment_id = fields.integer(segment, place, "id", 1)
                category_id = fields.integer(segment, place, "category_id")
                if segment_id >= _IDS:
                    raise fields.error(f"{place}.id", f"{segment_id} does not fit into three bytes")
                if category_id not in row_of:
                    raise fields.error(f"{place}.category_id", f"there is no category {category_id}")
                x, y, width, height = fields.numbers(segment, place, "bbox", 4)
                row = row_of[category_id]
                crowd = fields.flag(segment, place, "iscrowd")
                segments[index].append((segment_id, row, crowd, [x, y, x + width, y + height]))
        for index, image_id in enumerate(self._ids):
            if index not in masks:
                raise fields.error("annotations", f"image {image_id} has none", "remove it from `images`")
        flat = [segment for of_image in segments for segment in of_image]
        self._positions = positions
        self._mask_names = [masks[index] for index in range(len(self._ids))]
        self._starts = np.cumsum([0, *map(len, segments)])
        self._segment_ids = np.array([segment[0] for segment in flat], dtype=np.int64)
        self._categories = np.array([segment[1] for segment in flat], dtype=np.int64)
        self._crowd = np.array([segment[2] for segment in flat], dtype=np.bool_)
        self._boxes = np.array([segment[3] for segment in flat], dtype=np.float32).reshape(-1, 4)

    def _segment_map(self, path: str, rows: slice) -> NDArray[np.uint16]:
        """Return each pixel's segment by its position in the JSON's list, from 1; 0 is void."""
        found = read_map(path)
        if found.mode not in ("RGB", "RGBA"):
            raise DataError.at(path, f"expected a PNG of three channels, found mode {found.mode}")
        colors = found.pixels[..., :3].astype(np.uint32)
        ids = colors[..., 0] | colors[..., 1] << 8 | colors[..., 2] << 16
        # A table of all ids is several times faster than sorting the pixels. Only the few entries that are written ever
        # take memory, and they are cleared after use.
        if self._rows_of is None:
            self._rows_of = np.zeros(_IDS, dtype=np.uint16)
        own = self._segment_ids[rows]
        self._rows_of[own] = np.arange(1, len(own) + 1)
        segments: NDArray[np.uint16] = self._rows_of[ids]
        self._rows_of[own] = 0
        unlisted = (segments == 0) & (ids != 0)
        if unlisted.any():
            raise DataError.at(path, f"segment id {ids[unlisted][0]} is not listed in {self._fields.path}")
        return segments
