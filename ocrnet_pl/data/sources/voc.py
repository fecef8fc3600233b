"""Pascal VOC: one XML file of boxes per image, and PNGs of class and object indices for some of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from os.path import join
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.crowd_share import tell_of_crowds
from ocrnet_pl.data.readers.file_names import NameFinder, with_nearest
from ocrnet_pl.data.readers.first_pixel import FirstPixel
from ocrnet_pl.data.readers.folder_index import StemIndex
from ocrnet_pl.data.readers.image_lists import read_image_list
from ocrnet_pl.data.readers.label_maps import match_boxes, read_id_map, read_image_like, tight_boxes
from ocrnet_pl.data.readers.values import MOST, shown
from ocrnet_pl.data.readers.xml_files import XmlFields, read_xml
from ocrnet_pl.data.records import RawBoxes, make_sample
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.distributed.first_process import tell
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.images import read_image
from ocrnet_pl.structures import IGNORE_INDEX, Sample, Supervision, Taxonomy

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""The classes of Pascal VOC in the order of the indices 1 to 20 of its masks."""

_LEAST_OVERLAP = 0.3
"""Smallest overlap of an object's mask and box: the void border makes a small mask much smaller than its box."""


class PascalVoc(Source):
    """Pascal VOC detection and segmentation, and data sets of the same shape.

    The classes are things; index 0 of the class masks is the background, and 255 (the objects' borders) is ignored.
    Boxes of VOC count pixels from 1 and include the last one, so ``(1, 1, 1, 1)`` is the first pixel: they become
    ``(xmin - 1, ymin - 1, xmax, ymax)``. Most tools write the edges of the boxes, which count from 0, into the same
    XML (``first_pixel``). An object mask belongs to the box of the same class that it overlaps best; one
    that fits no box keeps its class but gets no instance.

    Each image is supervised by what it has: boxes where it has an XML file, pixels where it has a class mask.

    Args:
        split: Path of a list of image names without ending, one per line, such as those in ``ImageSets``; null for
            every image.
        classes: Names in the order of the mask indices from 1; null for those of Pascal VOC.
        images: Folder of the images.
        annotations: Folder of the XML files; null for masks only.
        class_masks: Folder of the class PNGs; null for boxes only, without segmentation classes.
        object_masks: Folder of the object PNGs; null for none.
        difficult: What objects marked as difficult become: "crowd" makes them neither targets nor false alarms, as in
            the VOC evaluation; "keep" makes them targets like any other; "drop" makes them background for the detector.
        background: Name of the segmentation class of index 0.
        first_pixel: Number of the first pixel in the boxes: 1 as in VOC, 0 for edges as LabelImg, CVAT, labelme and
            Roboflow write; "auto" is 0 if the files say that such a tool wrote them, or have zeros or fractions.
        others: What objects of other classes are: an "error", or "ignore" leaves them out.
        strict: Whether an object that cannot be used raises an error; otherwise it is left out, and kept in ``faults``.
        root: Folder that the paths start from; ``data.root`` on the command line.

    Raises:
        DataError: A file is missing or broken, a field is missing or wrong, a class is unknown, or a name in the list
            leaves the folder.
    """

    _boxes: NDArray[np.float32]
    _labels: NDArray[np.int64]
    _crowd: NDArray[np.bool_]

    def __init__(
        self,
        split: str | PathLike[str] | None = None,
        classes: Sequence[str] | None = None,
        images: str | PathLike[str] = "JPEGImages",
        annotations: str | PathLike[str] | None = "Annotations",
        class_masks: str | PathLike[str] | None = "SegmentationClass",
        object_masks: str | PathLike[str] | None = "SegmentationObject",
        difficult: Literal["crowd", "keep", "drop"] = "crowd",
        background: str = "background",
        first_pixel: Literal[0, 1, "auto"] = "auto",
        others: Literal["error", "ignore"] = "error",
        strict: bool = True,
        root: str | PathLike[str] = ".",
    ) -> None:
        if difficult not in ("crowd", "keep", "drop"):
            raise ValueError(f"PascalVoc: difficult must be 'crowd', 'keep' or 'drop', got {difficult!r}")
        if first_pixel not in (0, 1, "auto"):
            raise ValueError(f"PascalVoc: first_pixel must be 0, 1 or 'auto', got {first_pixel!r}")
        if others not in ("error", "ignore"):
            raise ValueError(f"PascalVoc: others must be 'error' or 'ignore', got {others!r}")
        self.root = root
        self.difficult, self.others, self.strict = difficult, others, strict
        self.faults: list[DataError] = []
        names = list(VOC_CLASSES if classes is None else classes)
        if not names:
            raise ValueError("PascalVoc: classes must be a list of at least one name")
        self._taxonomy = Taxonomy.build(
            things=names,
            stuff=[] if class_masks is None else [background],
            segmented=() if class_masks is None else None,
            colors={background: (0, 0, 0)},
        )

        found = StemIndex(join(root, images), "images")
        xml = _optional(root, annotations, "XML files", "annotations", (".xml",))
        class_files = _optional(root, class_masks, "class masks", "class_masks", (".png",))
        object_files = _optional(root, object_masks, "object masks", "object_masks", (".png",))
        self._image_root = found.root
        stems = self._read_split(split, found, xml)
        for stem in stems:
            if not any(files is not None and stem in files for files in (xml, class_files)):
                raise DataError.at(found.path(stem), "it has neither an XML file nor a class mask", advice="label it")
        self._names = np.array([found[stem] for stem in stems])
        # Flat arrays, so that worker processes share them; an empty path where there is no file.
        self._xml_paths, self._class_paths, self._object_paths = (
            np.array([files.path(stem) if files is not None and stem in files else "" for stem in stems])
            for files in (xml, class_files, object_files)
        )
        first = self._read_annotations(stems, xml, {name: label for label, name in enumerate(names)})
        if first_pixel == "auto" and first.guess() == 0 and xml is not None:
            tell(f"{xml.root}: the boxes count from 0, since {first.reason}; set `first_pixel` if not")
        self.first_pixel = first.guess() if first_pixel == "auto" else first_pixel
        self._stored = self._boxes - np.array([self.first_pixel, self.first_pixel, 0, 0], dtype=np.float32)
        self._boxes = self._stored.clip(min=0)
        if xml is not None:
            advice = "set `difficult: keep` to learn them" if difficult == "crowd" else "check them"
            tell_of_crowds(self._labels, self._crowd, names, xml.root, advice)

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes as things, and the background."""
        return self._taxonomy

    def __len__(self) -> int:
        return len(self._names)

    def image_path(self, index: int) -> str:
        """Return the image's file."""
        return str(self._image_root / str(self._names[index]))

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return the image's name without its ending, and the file."""
        return os.path.splitext(str(self._names[index]))[0], self.image_path(index)

    def raw_boxes(self, index: int) -> RawBoxes | None:
        """Return the boxes as they are in the XML, those outside of the image included; None if there is no XML."""
        xml = str(self._xml_paths[index])
        if not xml:
            return None
        rows = slice(int(self._starts[index]), int(self._starts[index + 1]))
        count = rows.stop - rows.start
        return RawBoxes(
            image=self.image_path(index),
            file=xml,
            field="object[{}].bndbox",
            numbers=self._numbers[rows].astype(np.int64),
            boxes=self._stored[rows].astype(np.float64),
            labels=self._labels[rows],
            crowd=self._crowd[rows],
            rows=np.arange(count),
        )

    def files(self, index: int) -> Sequence[str]:
        """Return the paths of the image and of the files that are read with it."""
        masks = (str(self._class_paths[index]), str(self._object_paths[index]))
        return [self.image_path(index), *filter(None, masks)]

    def __getitem__(self, index: int) -> Sample:
        name = str(self._names[index])
        stem = os.path.splitext(name)[0]
        path = str(self._image_root / name)
        rows = slice(int(self._starts[index]), int(self._starts[index + 1]))
        boxes, labels, crowd = self._boxes[rows], self._labels[rows], self._crowd[rows]

        xml_path, class_path, object_path = (
            str(paths[index]) for paths in (self._xml_paths, self._class_paths, self._object_paths)
        )
        semantic = self._class_map(class_path) if class_path else None
        objects = self._object_map(object_path) if object_path and xml_path else None
        known: list[tuple[str, tuple[int, ...]]] = []
        if semantic is not None:
            known.append((class_path, semantic.shape))
        if objects is not None:
            known.append((object_path, objects.shape))
        if self._sizes[index].all():
            known.append((xml_path, tuple(self._sizes[index].tolist())))
        if known:
            file, size = known[0]
            for other, other_size in known[1:]:
                if other_size != size:
                    raise DataError.at(
                        other, f"it is {other_size[1]} x {other_size[0]}, but {file} is {size[1]} x {size[0]}"
                    )
            image = read_image_like(path, (size[0], size[1]), file)
        else:
            image = read_image(path)
        height, width = image.shape[1:]
        boxes = np.minimum(boxes, np.array([width, height] * 2, dtype=np.float32))
        outside = (boxes[:, 2:] <= boxes[:, :2]).any(1)
        if outside.any():
            where = f"object[{int(self._numbers[rows][outside][0])}].bndbox"
            raise DataError.at(xml_path, f"it is outside the image of {width} x {height}", field=where)
        return make_sample(
            image,
            boxes=boxes,
            labels=labels,
            crowd=crowd,
            semantic=semantic,
            instances=None if objects is None else self._instances(objects, semantic, boxes, labels, crowd),
            supervision=Supervision.full(self._taxonomy, detection=bool(xml_path), semantic=semantic is not None),
            image_id=stem,
            path=path,
        )

    def _read_split(self, split: str | PathLike[str] | None, found: StemIndex, xml: StemIndex | None) -> list[str]:
        if split is None:
            for stem in xml or ():
                if stem not in found:
                    raise DataError.at(
                        xml.path(stem) if xml else "",
                        f"there is no image {stem!r} in {found.root}",
                        advice="remove it or add the image",
                    )
            if not len(found):
                raise DataError.at(found.root, "there is no image", advice="check the folder")
            return list(found)
        return read_image_list(Path(join(self.root, split)), found)

    def _read_annotations(self, stems: list[str], xml: StemIndex | None, label_of: dict[str, int]) -> FirstPixel:
        first = FirstPixel()
        starts = [0]
        boxes: list[tuple[float, float, float, float]] = []
        labels: list[int] = []
        crowd: list[bool] = []
        numbers: list[int] = []
        sizes: list[tuple[int, int]] = []
        for stem in stems:
            size = (0, 0)
            if xml is not None and stem in xml:
                fields = XmlFields(xml.path(stem))
                content = read_xml(fields.path)
                size = _size(content, fields)
                first.add_file(content)
                for number, item in enumerate(content.findall("object")):
                    try:
                        read = self._read_object(item, f"object[{number}]", size, label_of, fields)
                    except DataError as error:
                        if self.strict:
                            raise
                        self.faults.append(error)
                        continue
                    if read is None:
                        continue
                    label, box, hard = read
                    first.add_box(box)
                    boxes.append(box)
                    labels.append(label)
                    crowd.append(hard and self.difficult == "crowd")
                    numbers.append(number)
            sizes.append(size)
            starts.append(len(boxes))
        self._starts = np.array(starts, dtype=np.int64)
        self._boxes = np.array(boxes, dtype=np.float32).reshape(-1, 4)
        self._labels = np.array(labels, dtype=np.int64)
        self._crowd = np.array(crowd, dtype=np.bool_)
        self._numbers = np.array(numbers, dtype=np.int32)
        self._sizes = np.array(sizes, dtype=np.int32)
        return first

    def _read_object(
        self, item: Element, where: str, size: tuple[int, int], label_of: dict[str, int], fields: XmlFields
    ) -> tuple[int, tuple[float, float, float, float], bool] | None:
        """Return the class, the corners and whether it is difficult; None for an object that is left out."""
        name = fields.text(item, where, "name")
        if name not in label_of:
            if self.others == "ignore":
                return None
            nearest = NameFinder(label_of).nearest(name)
            problem = with_nearest(f"there is no class {shown(name)}", nearest)
            raise fields.error(f"{where}.name", problem, "add it to `classes`, or set `others: ignore`")
        box = _box(fields.child(item, where, "bndbox"), f"{where}.bndbox", fields)
        if (all(size) and (box[0] >= size[1] + 1 or box[1] >= size[0] + 1)) or min(box[2:]) <= 0:
            raise fields.error(f"{where}.bndbox", f"it is outside the image of {size[1]} x {size[0]}", "correct it")
        hard = fields.flag(item, where, "difficult")
        return None if hard and self.difficult == "drop" else (label_of[name], box, hard)

    def _class_map(self, path: str) -> NDArray[np.uint8]:
        classes = read_id_map(path)
        unknown = classes[(classes >= self._taxonomy.num_semantic) & (classes != IGNORE_INDEX)]
        if unknown.size:
            raise DataError.at(
                path,
                f"there is no class of index {unknown[0]}, only 0 to {self._taxonomy.num_semantic - 1}",
                advice="check `classes` of the source",
            )
        return classes.astype(np.uint8)

    def _object_map(self, path: str) -> NDArray[np.int32]:
        objects = read_id_map(path)
        objects[objects == IGNORE_INDEX] = 0
        return objects

    def _instances(
        self,
        objects: NDArray[np.int32],
        semantic: NDArray[np.uint8] | None,
        boxes: NDArray[np.float32],
        labels: NDArray[np.int64],
        crowd: NDArray[np.bool_],
    ) -> NDArray[np.int32]:
        """Number the objects by the row of their box plus one."""
        count = int(objects.max(initial=0))
        classes = np.full(count, -1, dtype=np.int64)
        if semantic is not None and count:
            pairs = objects.astype(np.int64) * 256 + semantic
            votes = np.bincount(pairs.ravel(), minlength=(count + 1) * 256).reshape(-1, 256)[1:, 1:IGNORE_INDEX]
            # Index 0 of the masks is the background, so detection class k has index k + 1.
            classes = np.where(votes.any(1), votes.argmax(1), -1)
        rows = match_boxes(tight_boxes(objects, count), classes, boxes, labels, _LEAST_OVERLAP)
        numbers = np.zeros(count + 1, dtype=np.int32)
        # A crowd has no instance.
        numbers[1:] = np.where((rows >= 0) & ~np.append(crowd, True)[rows], rows + 1, 0)
        return numbers[objects]


def _optional(
    root: str | PathLike[str], folder: str | PathLike[str] | None, purpose: str, option: str, endings: tuple[str, ...]
) -> StemIndex | None:
    if folder is None:
        return None
    path = join(root, folder)
    if not os.path.isdir(path):
        raise DataError.at(path, "there is no such folder", advice=f"set `{option}: null` if there are no {purpose}")
    return StemIndex(path, purpose, endings)


def _size(content: Element, fields: XmlFields) -> tuple[int, int]:
    """Return (height, width), or zeros if the file does not give them; some tools write zeros themselves."""
    size = content.find("size")
    if size is None:
        return 0, 0
    if not all((size.findtext(side) or "").strip() for side in ("height", "width")):
        return 0, 0
    height, width = fields.number(size, "size", "height"), fields.number(size, "size", "width")
    return int(height), int(width)


def _box(item: Element, where: str, fields: XmlFields) -> tuple[float, float, float, float]:
    xmin, ymin, xmax, ymax = (fields.number(item, where, name, -MOST) for name in ("xmin", "ymin", "xmax", "ymax"))
    if xmax < xmin or ymax < ymin:
        raise fields.error(
            where, f"({xmin:g}, {ymin:g}) to ({xmax:g}, {ymax:g}) is not a box", "write the minimum first"
        )
    return xmin, ymin, xmax, ymax
