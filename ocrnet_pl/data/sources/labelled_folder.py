"""A plain folder: images, masks of the same name, and optionally a CSV of boxes and instance maps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from os.path import join

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.box_tables import BoxTable, Others, boxes_by_row
from ocrnet_pl.data.readers.class_map import Legend, SemanticNames, read_ids, read_values
from ocrnet_pl.data.readers.crowd_share import tell_of_crowds
from ocrnet_pl.data.readers.file_names import NameFinder, with_nearest
from ocrnet_pl.data.readers.folder_index import FolderIndex, pack_names
from ocrnet_pl.data.readers.sample_assembly import Assembler, Instances, check_options, joint_taxonomy
from ocrnet_pl.data.readers.tables import TableFile
from ocrnet_pl.data.sources.assembled import AssembledSource
from ocrnet_pl.data.sources.base import at_equal_distances
from ocrnet_pl.distributed.first_process import tell
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.suffixes import IMAGE_SUFFIXES, MASK_SUFFIXES
from ocrnet_pl.structures import Sample

_LOOKED_AT = 4
"""Number of maps that are looked at to find out of what kind they are."""


class LabelledFolder(AssembledSource):
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
            labelled for boxes, and is left out if it has no other label. A row with empty coordinates names an image
            without objects.
        others: What boxes of classes that are not listed are: an "error", or "ignore" leaves them out.
        strict: Whether boxes that are all from 0 to 1, as fractions of the image's sides, raise an error; otherwise
            they are read as pixels.
        instances: Folder of the instance maps, PNGs whose values are any ids, 0 = none; null for none.
        zero_is_instance: Whether 0 is an id like any other, as in the maps of Mapillary Vistas, which are 256 times the
            value of the mask plus a number; null finds out from the first maps whether they are of that kind.
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
        unlisted_are_empty: bool = False,
        others: Others = "error",
        strict: bool = True,
        instances: str | PathLike[str] | None = None,
        zero_is_instance: bool | None = None,
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
        self.strict = strict
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
        ends = [mask_suffix if masks is not None else "", instance_suffix if instances is not None else ""]
        stems = _without_suffix(listing.by_stem(IMAGE_SUFFIXES), image_suffix)
        # Maps in the folder of the images are none of them.
        apart = {stem for stem in stems for end in ends if end and stem.endswith(end) and stem[: -len(end)] in stems}
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
        self._boxes = None
        if boxes is not None:
            self._boxes = self._read_boxes(join(root, boxes), classes, stems, others)
            if unlisted_are_empty:
                self._boxes.listed[:] = True
            self._keep_labelled(self._boxes, boxes_from_instances)
            advice = "check the column `crowd`"
            tell_of_crowds(self._boxes.labels, self._boxes.crowd, classes, join(root, boxes), advice)
        self._check_labels(boxes_from_instances)
        self._zero_is_instance = self._maps_count_zero() if zero_is_instance is None else zero_is_instance
        self._try_masks()

    def __getitem__(self, index: int) -> Sample:
        semantic = instances = boxes = None
        if self._mask_names[index] and self._legend is not None:
            mask = join(self._masks, os.fsdecode(self._mask_names[index]))
            semantic = (mask, self._legend.classes(mask, self._taxonomy))
        if self._map_names[index]:
            path = join(self._maps, os.fsdecode(self._map_names[index]))
            ids = read_ids(path)
            instances = Instances(path, ids + 1 if self._zero_is_instance else ids)
        if self._boxes is not None:
            boxes = self._boxes.of(index)
        image_id, path = self.identity(index)
        declared = None if self._boxes is None else self._boxes.size_of(index)
        return self._assembler.sample(path, image_id, boxes, semantic, instances, declared)

    def image_path(self, index: int) -> str:
        """Return the image's file."""
        return join(self._images, os.fsdecode(self._names[index]))

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return the image's name without its ending, and its file."""
        return os.path.splitext(os.fsdecode(self._names[index]))[0], self.image_path(index)

    def _map_paths(self, index: int) -> list[str]:
        pairs = ((self._masks, self._mask_names[index]), (self._maps, self._map_names[index]))
        return [join(folder, os.fsdecode(name)) for folder, name in pairs if name]

    def _has_instances(self, index: int) -> bool:
        return bool(self._map_names[index])

    def _match(
        self, folder: str | None, purpose: str, stems: dict[str, str], suffix: str
    ) -> tuple[str, NDArray[np.bytes_]]:
        """Return the folder and for each image the name of its file there, empty for none."""
        if folder is None:
            return "", np.zeros(len(stems), dtype="S1")
        listing = FolderIndex(folder, purpose)
        found = _without_suffix(listing.by_stem(MASK_SUFFIXES), suffix)
        option = "mask_suffix" if purpose == "masks" else "instance_suffix"
        finder = NameFinder(stems, self._images)
        matched: dict[str, str] = {}
        for stem, name in found.items():
            image = finder.find(stem, folders=False)
            if image is None or image in matched:
                end = next((stem[place:] for place in range(len(stem) - 1, 0, -1) if stem[:place] in stems), "")
                problem = f"there is no image {stem!r} in {self._images}"
                raise DataError.at(
                    listing.root / name,
                    problem if end else with_nearest(problem, finder.nearest(stem)),
                    advice=f"set `{option}: {end!r}`"
                    if end
                    else "add the image, or remove the file; `ObjectMasks` reads masks of one object each",
                )
            if os.path.realpath(listing.root / name) == os.path.realpath(self._images / stems[image]):
                raise DataError.at(
                    listing.root / name,
                    f"this is one of the images, and cannot be one of the {purpose} too",
                    advice=f"name the folder of the {purpose}, or set `{option}` if both are in one",
                )
            matched[image] = name
        if not found:
            there = sorted({os.path.splitext(name)[1].lower() for name in listing.walk(("",))} - {""})[:5]
            ends = f", only files that end in {', '.join(there)}" if there else ""
            lossy = "; JPEG changes the values" if {".jpg", ".jpeg"} & set(there) else ""
            raise DataError.at(
                listing.root, f"there are no {purpose}{ends}", advice=f"save them as PNG, or check the folder{lossy}"
            )
        return str(listing.root), np.array(pack_names([matched.get(stem, "") for stem in stems]))

    def _read_boxes(self, path: str, classes: list[str], stems: dict[str, str], others: Others) -> BoxTable:
        table = TableFile(path)
        # Names occur with and without ending.
        rows = {name: row for row, name in enumerate(stems.values())} | {stem: row for row, stem in enumerate(stems)}
        listing, finder = FolderIndex(self._images, "images"), NameFinder(stems.values(), self._images)

        def find(name: str, row: int) -> int:
            found = name if name in rows else finder.find(name)
            if found is None:
                normal = listing.inside(name, lambda problem, advice: table.error(problem, advice, row, "image"))
                if normal in rows:
                    return rows[normal]
                problem = with_nearest(f"there is no image {normal!r:.200} in {self._images}", finder.nearest(normal))
                raise table.error(problem, "add it, or remove the row", row, "image")
            return rows[found]

        return boxes_by_row(table, classes, len(stems), find, others, self.strict)

    def _keep_labelled(self, boxes: BoxTable, boxes_from_instances: bool) -> None:
        """Leave out the images without any label: those of another list in the same folder."""
        labelled = boxes.listed | (self._mask_names != b"") | ((self._map_names != b"") & boxes_from_instances)
        kept = np.flatnonzero(labelled)
        if len(kept) == len(labelled):
            return
        tell(
            f"{self._images}: {len(labelled) - len(kept)} of {len(labelled)} images have no label and are left out; "
            "`unlisted_are_empty: true` makes them images without objects"
        )
        boxes.keep(kept)
        self._names, self._mask_names, self._map_names = (
            names[kept] for names in (self._names, self._mask_names, self._map_names)
        )

    def _maps_count_zero(self) -> bool:
        """Return whether ids are 256 times the value of the mask plus a number, so that 0 is an object."""
        both = np.flatnonzero((self._map_names != b"") & (self._mask_names != b""))
        if self._legend is None or self._legend.by_color or not len(both):
            return False
        large = False
        for index in both[at_equal_distances(len(both), _LOOKED_AT)]:
            try:
                ids = read_ids(join(self._maps, os.fsdecode(self._map_names[index])))
                values = read_values(join(self._masks, os.fsdecode(self._mask_names[index])))
            except DataError:
                return False  # named when it is read
            if ids.shape != values.shape or not np.array_equal(ids >> 8, values):
                return False
            large = large or bool((ids > 255).any())
        if large:
            tell(f"{self._maps}: ids are 256 times the value of the mask plus a number, so 0 is an object as well")
        return large

    def _try_masks(self) -> None:
        """Say so if the first masks have only 0 and 255, and 255 has no name."""
        if self._legend is None:
            return
        masks = [join(self._masks, os.fsdecode(name)) for name in self._mask_names if name][:_LOOKED_AT]
        text = self._legend.only_void(masks)
        if text is not None:
            tell(text)

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
