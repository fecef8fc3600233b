"""A plain folder: images, masks of the same name, and optionally a CSV of boxes and instance maps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from os.path import join

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.class_map import Legend, SemanticNames, read_ids
from ocrnet_pl.data.readers.folder_index import FolderIndex, pack_names
from ocrnet_pl.data.readers.sample_assembly import Assembler, Instances, check_options, clip, joint_taxonomy
from ocrnet_pl.data.readers.tables import BoxTable, TableFile, boxes_by_row
from ocrnet_pl.data.records import RawBoxes
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.images import check_image, upright_size
from ocrnet_pl.imaging.suffixes import IMAGE_SUFFIXES, MASK_SUFFIXES
from ocrnet_pl.structures import Sample, Taxonomy


class LabelledFolder(Source):
    """Images with masks, boxes and instance maps, whichever there are.

    A file belongs to the image with the same name without its ending, subfolders included. Each image is supervised by
    what it has. An instance belongs to the box of its class that it overlaps best; an instance that fits no box gets
    none.

    Args:
        images: Folder of the images.
        classes: Names of the detection classes, in order; empty for segmentation only.
        masks: Folder of the masks; null for none.
        semantic_names: Names of the masks' values or colors: a list from value 0, a mapping from values or from colors
            such as "#ff0000", a JSON of categories, or a table such as ``class_dict.csv``, ``_classes.csv`` or
            ``labelmap.txt``. Null instead of a name ignores the pixels. Names that are not among the classes are stuff.
        boxes: CSV or Parquet file with one box per row: image, x1, y1, x2, y2, label, and optionally crowd, in pixels;
            null for none.
        unlisted_are_empty: Whether an image that the boxes' file does not name has no objects; otherwise it was not
            labelled for boxes. A row with empty coordinates names an image without objects.
        instances: Folder of the instance maps, PNGs whose values are any ids, 0 = none; null for none.
        boxes_from_instances: Whether an image without boxes gets those of its instances. The class of an instance is
            the one that most of its pixels have in the mask; without a mask there must be only one class.
        semantic_from_instances: Whether an image without a mask gets one from its instances. Only the classes with
            instances and the background are labelled then.
        background: Name of the segmentation class that pixels without an instance get in such a mask; null ignores
            them, and so does a name that is not a class of the masks.
        image_suffix: End of the images' names that the other files' names lack, such as ``_sat``; files without it are
            no images.
        mask_suffix: End of the masks' names that the images' names lack, such as ``_mask`` or ``_L``; files without it
            are no masks, so that both may be in one folder.
        instance_suffix: The same for the instance maps.
        channels: Number of channels of the images; three makes all RGB, any other number reads them as stored.
        root: Folder that the paths start from; ``data.root`` on the command line.

    Raises:
        DataError: A file is missing or malformed, a mask has no image, an image has no label, or the options
            contradict each other.
    """

    def __init__(
        self,
        images: str | PathLike[str],
        classes: Sequence[str] = (),
        masks: str | PathLike[str] | None = None,
        semantic_names: SemanticNames | None = None,
        boxes: str | PathLike[str] | None = None,
        unlisted_are_empty: bool = True,
        instances: str | PathLike[str] | None = None,
        boxes_from_instances: bool = False,
        semantic_from_instances: bool = False,
        background: str | None = "background",
        image_suffix: str = "",
        mask_suffix: str = "",
        instance_suffix: str = "",
        channels: int = 3,
        root: str | PathLike[str] = ".",
    ) -> None:
        self.root = root
        classes = list(classes)
        self._legend = None if semantic_names is None else Legend(semantic_names, root=root)
        check_options(
            classes=classes,
            masks=masks is not None,
            names=semantic_names is not None,
            boxes=boxes is not None,
            instances=instances is not None,
            boxes_from_instances=boxes_from_instances,
            semantic_from_instances=semantic_from_instances,
            source="LabelledFolder",
        )
        self._taxonomy = joint_taxonomy(classes, self._legend, semantic_from_instances, background)
        self._assembler = Assembler(
            self._taxonomy,
            background=background,
            semantic_from_instances=semantic_from_instances,
            boxes_from_instances=boxes_from_instances,
            channels=channels,
        )
        listing = FolderIndex(join(root, images), "images")
        self._images = listing.root
        others = [mask_suffix if masks is not None else "", instance_suffix if instances is not None else ""]
        stems = _without_suffix(listing.by_stem(IMAGE_SUFFIXES), image_suffix)
        # Maps in the folder of the images are none of them.
        apart = {stem for stem in stems for end in others if end and stem.endswith(end) and stem[: -len(end)] in stems}
        stems = {stem: name for stem, name in stems.items() if stem not in apart}
        if not stems:
            raise DataError.at(listing.root, "there is no image", advice="check the folder")
        self._names = np.array(pack_names(list(stems.values())))
        self._masks, self._mask_names = self._match(
            join(root, masks) if masks is not None else None, "masks", stems, mask_suffix
        )
        self._maps, self._map_names = self._match(
            join(root, instances) if instances is not None else None, "instance maps", stems, instance_suffix
        )
        self._boxes: BoxTable | None = None
        if boxes is not None:
            self._boxes = self._read_boxes(join(root, boxes), classes, stems)
            if unlisted_are_empty:
                self._boxes.listed[:] = True
        self._check_labels(boxes_from_instances)

    @property
    def taxonomy(self) -> Taxonomy:
        """The stuff of the masks, then the detection classes."""
        return self._taxonomy

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        semantic = instances = boxes = None
        if self._mask_names[index] and self._legend is not None:
            mask = join(self._masks, os.fsdecode(self._mask_names[index]))
            semantic = (mask, self._legend.classes(mask, self._taxonomy))
        if self._map_names[index]:
            path = join(self._maps, os.fsdecode(self._map_names[index]))
            instances = Instances(path, read_ids(path))
        if self._boxes is not None:
            boxes = self._boxes.of(index)
        image_id, path = self.identity(index)
        return self._assembler.sample(path, image_id, boxes, semantic, instances)

    def image_path(self, index: int) -> str:
        """Return the image's file."""
        return join(self._images, os.fsdecode(self._names[index]))

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return the image's name without its ending, and its file."""
        return os.path.splitext(os.fsdecode(self._names[index]))[0], self.image_path(index)

    def files(self, index: int) -> Sequence[str]:
        """Return the paths of the image and of its maps."""
        return [self.image_path(index), *self._map_paths(index)]

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the (height, width) from the header of a map, or else of the image."""
        maps = self._map_paths(index)
        return check_image(maps[0]) if maps else upright_size(self.image_path(index))

    def image_boxes(self, index: int) -> NDArray[np.float32]:
        """Return the boxes; only those of an instance map need decoding."""
        boxes = None if self._boxes is None else self._boxes.of(index)
        if boxes is not None:
            return clip(boxes, self.image_size(index), self.image_path(index)).boxes
        if self._assembler.boxes_from_instances and self._map_names[index]:
            return super().image_boxes(index)
        return np.zeros((0, 4), dtype=np.float32)

    def raw_boxes(self, index: int) -> RawBoxes | None:
        """Return the boxes as they are in the table, including those without area; None if they are derived."""
        return None if self._boxes is None else self._boxes.raw(index, self.image_path(index))

    def _map_paths(self, index: int) -> list[str]:
        pairs = ((self._masks, self._mask_names[index]), (self._maps, self._map_names[index]))
        return [join(folder, os.fsdecode(name)) for folder, name in pairs if name]

    def _match(
        self, folder: str | None, purpose: str, stems: dict[str, str], suffix: str
    ) -> tuple[str, NDArray[np.bytes_]]:
        """Return the folder and for each image the name of its file there, empty for none."""
        if folder is None:
            return "", np.zeros(len(stems), dtype="S1")
        listing = FolderIndex(folder, purpose)
        found = _without_suffix(listing.by_stem(MASK_SUFFIXES), suffix)
        for stem, name in found.items():
            if stem not in stems:
                end = next((stem[place:] for place in range(len(stem) - 1, 0, -1) if stem[:place] in stems), "")
                option = "mask_suffix" if purpose == "masks" else "instance_suffix"
                raise DataError.at(
                    listing.root / name,
                    f"there is no image {stem!r} in {self._images}",
                    advice=f"set `{option}: {end!r}`" if end else "add the image, or remove the file",
                )
        if not found:
            raise DataError.at(listing.root, f"there are no {purpose}", advice="check the folder")
        return str(listing.root), np.array(pack_names([found.get(stem, "") for stem in stems]))

    def _read_boxes(self, path: str, classes: list[str], stems: dict[str, str]) -> BoxTable:
        table = TableFile(path)
        # Names occur with and without ending.
        rows = {name: row for row, name in enumerate(stems.values())} | {stem: row for row, stem in enumerate(stems)}
        listing = FolderIndex(self._images, "images")

        def find(name: str, row: int) -> int:
            normal = listing.inside(name, lambda problem, advice: table.error(problem, advice, row, "image"))
            if normal not in rows:
                raise table.error(
                    f"there is no image {normal!r:.200} in {self._images}", "add it, or remove the row", row, "image"
                )
            return rows[normal]

        return boxes_by_row(table, classes, len(stems), find)

    def _check_labels(self, boxes_from_instances: bool) -> None:
        has_mask, has_map = self._mask_names != b"", self._map_names != b""
        has_boxes = np.zeros(len(self), dtype=np.bool_) if self._boxes is None else self._boxes.listed
        without = np.flatnonzero(~has_mask & ~has_boxes & ~(has_map & boxes_from_instances))
        if len(without):
            raise DataError.at(
                join(self._images, os.fsdecode(self._names[without[0]])),
                f"the image has no label (the first of {len(without)})",
                advice="label them, or move them elsewhere",
            )
        vague = np.flatnonzero(has_map & ~has_boxes & ~has_mask)
        if len(vague) and len(self._taxonomy.detection_categories) > 1:
            raise DataError.at(
                join(self._maps, os.fsdecode(self._map_names[vague[0]])),
                "the classes of its instances are unknown",
                advice="add a mask of the same name, or boxes",
            )


def _without_suffix(stems: dict[str, str], suffix: str) -> dict[str, str]:
    """Return the files whose stem has a suffix, by the stem without it."""
    return {stem.removesuffix(suffix): name for stem, name in stems.items() if stem.endswith(suffix)}
