"""YOLO: a data.yaml and, for each image, a text file of boxes or polygons."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from os.path import join
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.class_map import Legend, SemanticNames
from ocrnet_pl.data.readers.file_names import NameFinder
from ocrnet_pl.data.readers.folder_index import FolderIndex, pack_names
from ocrnet_pl.data.readers.sample_assembly import Assembler, Boxes, joint_taxonomy
from ocrnet_pl.data.readers.yolo_files import YoloData, below_images, label_name
from ocrnet_pl.data.readers.yolo_rows import YoloRows
from ocrnet_pl.data.records import RawBoxes
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.images import check_image, upright_size
from ocrnet_pl.imaging.suffixes import IMAGE_SUFFIXES, MASK_SUFFIXES
from ocrnet_pl.structures import Sample, Taxonomy


class Yolo(Source):
    """YOLO boxes ``class x y w h`` and polygons ``class x y x y ...``, both as fractions of the image's sides.

    Rows of both kinds may be in one file. An empty file says that there are no objects. Boxes and polygons are cut at
    the image's borders; those without area are left out. The classes are the names of the ``data.yaml`` in the order of
    their ids, which may have gaps.

    Rows with key points are boxes if the ``data.yaml`` has ``kpt_shape``; without it, rows that look like key points,
    or like a box with a confidence and a track, are refused.

    Polygons make an instance map; where several cover a pixel, it belongs to the smallest. Boxes without a polygon get
    no instance.

    Args:
        data: Path of the ``data.yaml``, or of a list of names such as ``classes.txt`` or ``obj.names``, with the images
            in folders beside it, or of darknet's ``obj.data``. Its list files and folders may not lead out of its
            ``path``.
        split: Key of the ``data.yaml`` that lists the images, such as ``train`` or ``val``.
        images: Folder of the images, instead of the entry of the ``data.yaml``; set ``labels`` as well. Null for the
            entry.
        labels: Folder of the label files; null for the folders next to the images.
        masks: Folder of masks with the names of the images; null for none. An image without a mask is not labelled for
            segmentation.
        semantic_names: Names of the masks' values or colors: a list from value 0, a mapping from values or from colors
            such as "#ff0000", or a JSON of categories. Null instead of a name ignores the pixels. Names that are not
            among the classes are stuff.
        semantic_from_instances: Whether an image without a mask gets one from its polygons. Pixels of a box without a
            polygon are ignored. Only the classes of the ``data.yaml`` and the background are labelled then.
        background: Name of the segmentation class that pixels without an instance get in such a mask; null ignores
            them.
        missing_are_empty: Whether an image without a label file has no objects. If not, it is left out, or not labelled
            for boxes if it has a mask. Null means true unless ``skip_if_label_file_missing`` is set in the
            ``data.yaml``.
        strict: Whether a coordinate that is not a number or is more than 1 % outside of 0 to 1 raises an error;
            otherwise the row is cut at the image's borders, and left out if nothing remains.
        channels: Number of channels of the images; three makes all RGB, any other number reads them as stored.
        root: Folder that the paths start from; ``data.root`` on the command line.

    Raises:
        DataError: A file is missing or malformed, a class is unknown, a coordinate is wrong, or a path climbs out of
            its folder.
    """

    def __init__(
        self,
        data: str | PathLike[str] = "data.yaml",
        split: str = "train",
        images: str | PathLike[str] | None = None,
        labels: str | PathLike[str] | None = None,
        masks: str | PathLike[str] | None = None,
        semantic_names: SemanticNames | None = None,
        semantic_from_instances: bool = False,
        background: str | None = "background",
        missing_are_empty: bool | None = None,
        strict: bool = True,
        channels: int = 3,
        root: str | PathLike[str] = ".",
    ) -> None:
        self.root = root
        if (images is None) != (labels is None):
            raise DataError.at("Yolo", "`images` and `labels` are set together", advice="set both or none")
        if (masks is None) != (semantic_names is None):
            raise DataError.at("Yolo", "`masks` and `semantic_names` are set together", advice="set both or none")
        description = YoloData(join(root, data))
        self._legend = None if semantic_names is None else Legend(semantic_names, root=root)
        self._taxonomy = joint_taxonomy(
            description.names, self._legend, semantic_from_instances, background, description.path
        )
        self._assembler = Assembler(
            self._taxonomy, background=background, semantic_from_instances=semantic_from_instances, channels=channels
        )
        if images is not None and labels is not None:
            listing, label_listing = (
                FolderIndex(join(root, images), "images"),
                FolderIndex(join(root, labels), "labels"),
            )
            pairs = [(name, name) for name in listing.walk(IMAGE_SUFFIXES)]
            if not pairs:
                raise DataError.at(listing.root, "there is no image", advice="check the folder")
            texts = [os.path.splitext(name)[0] + ".txt" for name, _ in pairs]
        else:
            listing = label_listing = FolderIndex(description.base, "data set")
            pairs = description.images(split, listing)
            texts = [label_name(name) for name, _ in pairs]
        self._folder = str(listing.root)
        stems = [os.path.splitext(name)[0] for name, _ in pairs]
        mask_names = [""] * len(pairs)
        self._mask_folder = ""
        if masks is not None:
            mask_listing = FolderIndex(join(root, masks), "masks")
            self._mask_folder = str(mask_listing.root)
            mask_names = _match(mask_listing, pairs)
        partners = [label_listing.partner(text) or "" for text in texts]
        has_text = np.array([bool(partner) for partner in partners], dtype=np.bool_)
        if not has_text.any():
            raise DataError.at(
                label_listing.root,
                f"no image has a label file, such as {texts[0]!r} for {stems[0]!r}",
                advice="set `images` and `labels`",
            )
        if missing_are_empty is None:
            missing_are_empty = not description.skip_missing
        kept = np.flatnonzero(has_text | missing_are_empty | (np.array(mask_names) != ""))
        self._labelled = has_text[kept] | missing_are_empty
        self._names = np.array(pack_names([pairs[i][0] for i in kept]))
        self._mask_names = np.array(pack_names([mask_names[i] for i in kept]))
        files = [join(label_listing.root, partners[i]) if has_text[i] else "" for i in kept]
        self._files = np.array(pack_names(files))
        self._rows = YoloRows(files, description.label_of, description.path, strict, description.key_points)
        self._has_polygons = len(self._rows.points) > 0
        if semantic_from_instances and not self._has_polygons:
            raise DataError.at(
                description.path,
                "no label is a polygon, so no semantic map can be derived",
                field=split,
                advice="set `semantic_from_instances: false`",
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """The names of the ``data.yaml`` as things, and the stuff of the masks or the background."""
        return self._taxonomy

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        path = self.image_path(index)
        semantic: NDArray[np.uint8] | None = None
        maps: list[tuple[str, tuple[int, ...]]] = []
        mask = self._mask_path(index)
        if mask is not None and self._legend is not None:
            semantic = self._legend.classes(mask, self._taxonomy)
            maps.append((mask, semantic.shape))
        image = self._assembler.image(path, maps)
        boxes, instances = None, None
        if self._labelled[index]:
            size = (int(image.shape[1]), int(image.shape[2]))
            rows = self._kept(index)
            labels = self._rows.labels[rows]
            boxes = Boxes(_scaled(self._rows.boxes[rows], size), labels, np.zeros(len(labels), dtype=np.bool_))
            instances = self._paint(rows, size)
        return self._assembler.finish(image, path, self.identity(index)[0], boxes, semantic, instances)

    def image_path(self, index: int) -> str:
        """Return the image's file."""
        return join(self._folder, os.fsdecode(self._names[index]))

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return the image's name without its ending, and its file."""
        return os.path.splitext(os.fsdecode(self._names[index]))[0], self.image_path(index)

    def files(self, index: int) -> Sequence[str]:
        """Return the paths of the image and of its mask."""
        return [self.image_path(index), *([] if (mask := self._mask_path(index)) is None else [mask])]

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the (height, width) from the header of the mask, or else of the image."""
        mask = self._mask_path(index)
        return upright_size(self.image_path(index)) if mask is None else check_image(mask)

    def image_boxes(self, index: int) -> NDArray[np.float32]:
        """Return the boxes of the label file, at the size that the header gives."""
        rows = self._kept(index) if self._labelled[index] else np.zeros(0, dtype=np.int64)
        return _scaled(self._rows.boxes[rows], self.image_size(index))

    def raw_boxes(self, index: int) -> RawBoxes | None:
        """Return the rows of the label file, including those left out; None if there is no file."""
        if not self._files[index]:
            return None
        size = self.image_size(index)
        rows = slice(int(self._rows.starts[index]), int(self._rows.starts[index + 1]))
        kept = self._rows.kept[rows]
        masks: list[dict[str, Any] | None] = [None] * len(kept)
        for row, encoding in self._encodings(np.arange(rows.start, rows.stop), size).items():
            masks[row] = encoding
        return RawBoxes(
            image=self.image_path(index),
            file=os.fsdecode(self._files[index]),
            field="line {}",
            numbers=self._rows.lines[rows].astype(np.int64),
            boxes=self._rows.boxes[rows].astype(np.float64) * np.array([size[1], size[0]] * 2),
            labels=self._rows.labels[rows],
            crowd=np.zeros(len(kept), dtype=np.bool_),
            rows=np.where(kept, np.cumsum(kept) - 1, -1),
            masks=tuple(masks) if any(mask is not None for mask in masks) else (),
        )

    def labels_without_image(self) -> list[str]:
        """Return the label files in the same folders that belong to no image; training ignores them."""
        # Images that another split lists are there as well.
        pairs = {
            (os.path.dirname(os.fsdecode(file)), os.path.dirname(self.image_path(index)))
            for index, file in enumerate(self._files)
            if file
        }
        found: list[str] = []
        for labels, images in sorted(pairs):
            stems = {os.path.splitext(name)[0] for name in os.listdir(images) if name.lower().endswith(IMAGE_SUFFIXES)}
            # Some tools write the names of the classes next to the labels.
            names = sorted(name for name in os.listdir(labels) if name.endswith(".txt") and name != "classes.txt")
            found += [join(labels, name) for name in names if os.path.splitext(name)[0] not in stems]
        return found

    def _mask_path(self, index: int) -> str | None:
        name = os.fsdecode(self._mask_names[index])
        return join(self._mask_folder, name) if name else None

    def _kept(self, index: int) -> NDArray[np.int64]:
        """Return the rows of an image that have an area inside it."""
        start, stop = int(self._rows.starts[index]), int(self._rows.starts[index + 1])
        return start + np.flatnonzero(self._rows.kept[start:stop])

    def _encodings(self, rows: NDArray[np.int64], size: tuple[int, int]) -> dict[int, dict[str, Any]]:
        """Return the mask of each polygon by its position among the rows."""
        from faster_coco_eval import mask as mask_api

        scale = np.array([size[1], size[0]], dtype=np.float64)
        found: dict[int, dict[str, Any]] = {}
        for place, row in enumerate(rows.tolist()):
            polygon = self._rows.points[self._rows.ends[row] : self._rows.ends[row + 1]]
            if len(polygon):
                found[place] = mask_api.frPyObjects([(polygon * scale).ravel().tolist()], *size)[0]
        return found

    def _paint(self, rows: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.int32] | None:
        """Return the instance map; None if the image has boxes only."""
        encodings = self._encodings(rows, size) if self._has_polygons else {}
        if not self._has_polygons or (len(rows) and not encodings):
            return None
        from faster_coco_eval import mask as mask_api

        instances = np.zeros(size, dtype=np.int32, order="F")
        areas = {row: int(mask_api.area(encoding)) for row, encoding in encodings.items()}
        # The small ones last, over the large ones.
        for row in sorted(encodings, key=lambda row: -areas[row]):
            left, top, width, height = (int(side) for side in np.ravel(mask_api.toBbox([encodings[row]])))
            window = (slice(top, top + height), slice(left, left + width))
            instances[window][mask_api.decode(encodings[row])[window].astype(np.bool_)] = row + 1
        return np.ascontiguousarray(instances)


def _scaled(boxes: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return fractions of the sides as pixels, cut at the borders of the image of this (height, width)."""
    return boxes.clip(0, 1) * np.array([size[1], size[0]] * 2, dtype=np.float32)


def _match(masks: FolderIndex, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return the mask of each image, by its name below the folder that lists it, or below ``images``."""
    found = masks.by_stem(MASK_SUFFIXES)
    finder = NameFinder(found, masks.root)
    names: list[str] = []
    owners: dict[str, str] = {}
    for image, below in pairs:
        candidates = (below, below_images(image), os.path.basename(image))
        stems = (finder.find(os.path.splitext(candidate)[0], folders=False) for candidate in candidates)
        name = next((found[stem] for stem in stems if stem is not None), "")
        if name and owners.setdefault(name, image) != image:
            raise DataError.at(
                masks.root / name,
                f"it fits two images, {owners[name]!r} and {image!r}",
                advice="keep masks in folders like those of the images",
            )
        names.append(name)
    if not any(names):
        raise DataError.at(masks.root, "no image has a mask of its name", advice="check the folder")
    return names
