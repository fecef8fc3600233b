"""BDD100K: boxes in Scalabel JSON, and PNGs of semantic classes, drivable area, instances and panoptic segments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from os.path import join
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ocrnet_pl.data.readers.bdd100k_bitmasks import (
    CARAVAN,
    INSTANCE_CLASSES,
    LAST_STUFF_ID,
    TRAILER,
    BitmaskObjects,
    classes_of,
    read_instance_bitmask,
    read_panoptic_bitmask,
)
from ocrnet_pl.data.readers.folder_index import StemIndex
from ocrnet_pl.data.readers.json_fields import Fields
from ocrnet_pl.data.readers.json_text import read_json_value
from ocrnet_pl.data.readers.label_maps import read_id_map, read_image_like
from ocrnet_pl.data.readers.values import shown
from ocrnet_pl.data.records import make_sample
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.images import read_image
from ocrnet_pl.structures import IGNORE_INDEX, Sample, Supervision, Taxonomy

STUFF = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
}
"""The segmentation classes without boxes, with the official colors."""

THINGS = {
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
}
"""The detection classes in the official order; the first eight have instances in the bitmasks."""

DRIVABLE = {"direct": (219, 94, 86), "alternative": (86, 211, 219), "background": (0, 0, 0)}
"""The classes of the drivable area masks in the order of their ids."""

_TRAIN_IDS = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
_PANOPTIC_IDS = {
    **{7: "road", 8: "sidewalk", 10: "building", 11: "fence", 15: "wall", 20: "pole", 25: "traffic light"},
    **{26: "traffic sign", 28: "terrain", 29: "vegetation", 30: "sky", 31: "person", 32: "rider", 33: "bicycle"},
    **{34: "bus", 35: "car", 37: "motorcycle", 39: "train", 40: "truck"},
}
"""The ids in the panoptic bitmasks of the classes that are evaluated; the others up to 40 are void."""
_LAST_ID = 40

_OTHER_NAMES = {"pedestrian": "person", "bike": "bicycle", "motor": "motorcycle", "caravan": "car", "van": "car"}
_IGNORED_NAMES = {"other person": "person", "other vehicle": "car", "trailer": "truck"}
"""Names in other releases, and names that the official evaluation neither counts nor penalises."""


class Bdd100k(Source):
    """BDD100K detection, semantic segmentation, drivable area, instance and panoptic segmentation, in any subset.

    The ten detection classes are things (``pedestrian`` is called ``person`` in the masks); the other segmentation
    classes are stuff. Each image is supervised by the labels that it has; images without any are left out.

    If an image has a bitmask, its objects come from there: tight boxes, an instance map, and crowd rows for objects
    marked as crowd or ignored. Bitmasks do not contain traffic lights and signs as objects; these come from the boxes,
    which are also used for all images without a bitmask. Pixels come from the panoptic bitmask if there is one, else
    from the semantic mask; pixels of ignored objects are ignored.

    Args:
        images: Folder of the images of one split.
        detection: JSON file of the boxes; null for none.
        semantic: Folder of the semantic masks of training ids; null for none.
        drivable: Folder of the drivable area masks, whose three classes are then the segmentation classes; null for
            none.
        panoptic: Folder of the panoptic bitmasks; null for none.
        instances: Folder of the instance segmentation bitmasks, used where there is no panoptic bitmask; null for none.
        allow_extra: Whether labels of images that are not in the folder are left out instead of raising an error, as
            with the boxes of the 100K images used for the 10K images.
        root: Folder that the paths start from; ``data.root`` on the command line.

    Raises:
        DataError: A file is missing or broken, a field is missing or wrong, a category is unknown, or a label has no
            image.
        ValueError: There are no labels, or drivable area is combined with other pixel labels.
    """

    def __init__(
        self,
        images: str | PathLike[str],
        detection: str | PathLike[str] | None = None,
        semantic: str | PathLike[str] | None = None,
        drivable: str | PathLike[str] | None = None,
        panoptic: str | PathLike[str] | None = None,
        instances: str | PathLike[str] | None = None,
        allow_extra: bool = False,
        root: str | PathLike[str] = ".",
    ) -> None:
        if all(labels is None for labels in (detection, semantic, drivable, panoptic, instances)):
            raise ValueError("Bdd100k: give at least one of detection, semantic, drivable, panoptic and instances")
        if drivable is not None and not (semantic is None and panoptic is None):
            raise ValueError("Bdd100k: drivable cannot be combined with semantic or panoptic: a pixel has one class")
        self.root = root
        self.allow_extra = allow_extra
        self._taxonomy = _taxonomy(drivable is not None, semantic is not None or panoptic is not None)
        self._read_tables()
        found = StemIndex(join(root, images), "images")
        self._image_root = found.root
        # Drivable masks are read as semantic masks of other classes.
        masks = semantic if drivable is None else drivable
        self._semantic = self._pair(masks, "semantic or drivable masks", found)
        self._panoptic = self._pair(panoptic, "panoptic bitmasks", found)
        self._instances = self._pair(instances, "instance bitmasks", found)
        frames: dict[str, int] = {}
        content: list[Any] = []
        self._fields = Fields("" if detection is None else join(root, detection))
        if detection is not None:
            content = _read_frames(self._fields)
            frames = self._read_names(content, found)
        folders = [files for files in (self._semantic, self._panoptic, self._instances) if files is not None]
        stems = [stem for stem in found if found[stem] in frames or any(stem in files for files in folders)]
        if not stems:
            raise DataError.at(found.root, "none of its images has a label", advice="check that the splits agree")
        self._names = np.array([found[stem] for stem in stems])
        self._has_boxes = np.array([found[stem] in frames for stem in stems], dtype=np.bool_)
        self._read_boxes(content, [frames.get(found[stem], -1) for stem in stems])

    @property
    def taxonomy(self) -> Taxonomy:
        """The stuff, then the ten detection classes."""
        return self._taxonomy

    def __len__(self) -> int:
        return len(self._names)

    def image_path(self, index: int) -> str:
        """Return the image's file."""
        return str(self._image_root / str(self._names[index]))

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return the image's name without its ending, and the file."""
        return os.path.splitext(str(self._names[index]))[0], self.image_path(index)

    def files(self, index: int) -> Sequence[str]:
        """Return the paths of the image and of the files that are read with it."""
        stem = os.path.splitext(str(self._names[index]))[0]
        masks = (self._panoptic, self._instances, self._semantic)
        read = [str(own.root / f"{stem}.png") for own in masks if own is not None and stem in own]
        return [self.image_path(index), *read]

    def __getitem__(self, index: int) -> Sample:
        name = str(self._names[index])
        stem = os.path.splitext(name)[0]
        path = str(self._image_root / name)
        things: BitmaskObjects | None = None
        semantic: NDArray[np.uint8] | None = None
        annotation = ""
        if self._panoptic is not None and stem in self._panoptic:
            annotation = self._panoptic.path(stem)
            things, semantic = read_panoptic_bitmask(annotation, self._panoptic_classes, self._panoptic_labels)
        elif self._instances is not None and stem in self._instances:
            annotation = self._instances.path(stem)
            things = read_instance_bitmask(annotation)
        if semantic is None and self._semantic is not None and stem in self._semantic:
            mask_path = self._semantic.path(stem)
            semantic = classes_of(read_id_map(mask_path), self._mask_classes, mask_path)
            if things is not None and things.instances.shape != semantic.shape:
                raise DataError.at(mask_path, f"its size is not that of {annotation}")
            annotation = annotation or mask_path
        shape = things.instances.shape if things is not None else None if semantic is None else semantic.shape
        image = read_image(path) if shape is None else read_image_like(path, (shape[0], shape[1]), annotation)

        boxes, labels, crowd = self._boxes_of(index, (int(image.shape[1]), int(image.shape[2])))
        detection = torch.full((len(THINGS),), bool(self._has_boxes[index]))
        if things is not None:
            rest = labels >= INSTANCE_CLASSES
            boxes = np.concatenate([things.boxes, boxes[rest]])
            labels = np.concatenate([things.labels, labels[rest]])
            crowd = np.concatenate([things.crowd, crowd[rest]])
            detection[:INSTANCE_CLASSES] = True
        full = Supervision.full(self._taxonomy, semantic=semantic is not None)
        return make_sample(
            image,
            boxes=boxes,
            labels=labels,
            crowd=crowd,
            semantic=semantic,
            instances=None if things is None else things.instances,
            supervision=Supervision(detection, full.semantic),
            image_id=stem,
            path=path,
        )

    def _read_tables(self) -> None:
        """Fill the tables from ids to classes: -1 for an id that does not exist, 255 for one that is ignored."""
        pixels = {category.name: index for index, category in enumerate(self._taxonomy.semantic_categories)}
        boxes = {category.name: index for index, category in enumerate(self._taxonomy.detection_categories)}
        self._mask_classes = np.full(256, -1, dtype=np.int16)
        self._mask_classes[IGNORE_INDEX] = IGNORE_INDEX
        for train_id, name in enumerate(DRIVABLE if "direct" in pixels else _TRAIN_IDS if pixels else ()):
            self._mask_classes[train_id] = pixels[name]
        self._panoptic_classes = np.full(256, -1, dtype=np.int16)
        self._panoptic_classes[: _LAST_ID + 1] = IGNORE_INDEX
        self._panoptic_labels = np.full(256, -1, dtype=np.int64)
        for category_id, name in _PANOPTIC_IDS.items():
            self._panoptic_classes[category_id] = pixels.get(name, IGNORE_INDEX)
            if category_id > LAST_STUFF_ID:
                self._panoptic_labels[category_id] = boxes[name]
        # Void for segmentation and, as in the detection set, neither right nor wrong as a box.
        self._panoptic_labels[CARAVAN] = boxes["car"]
        self._panoptic_labels[TRAILER] = boxes["truck"]

    def _pair(self, folder: str | PathLike[str] | None, purpose: str, found: StemIndex) -> StemIndex | None:
        if folder is None:
            return None
        masks = StemIndex(join(self.root, folder), purpose, (".png",))
        extra = [stem for stem in masks if stem not in found]
        if extra and not self.allow_extra:
            raise DataError.at(
                masks.path(extra[0]),
                f"there is no image {extra[0]!r} in {found.root}",
                advice="check that the splits agree, or set `allow_extra: true`",
            )
        return masks

    def _read_names(self, frames: list[Any], found: StemIndex) -> dict[str, int]:
        """Return the position of each image's frame."""
        names = {found[stem] for stem in found}
        places: dict[str, int] = {}
        for place, frame in enumerate(frames):
            where = f"frames[{place}]"
            if not isinstance(frame, dict):
                raise self._fields.error(where, f"expected an object, found {shown(frame)}")
            name = self._fields.text(frame, where, "name")
            if os.path.basename(name) != name or name == os.pardir:
                raise self._fields.error(f"{where}.name", f"{name!r} leads out of the folder {found.root}")
            if name in places:
                raise self._fields.error(f"{where}.name", f"{name!r} occurs more than once")
            if name in names:
                places[name] = place
            elif not self.allow_extra:
                advice = "check that the splits agree, or set `allow_extra: true`"
                raise self._fields.error(f"{where}.name", f"there is no image {name!r} in {found.root}", advice)
        return places

    def _read_boxes(self, frames: list[Any], places: list[int]) -> None:
        fields = self._fields
        label_of = {name: label for label, name in enumerate(THINGS)}
        starts = [0]
        boxes: list[tuple[float, ...]] = []
        labels: list[int] = []
        crowd: list[bool] = []
        numbers: list[tuple[int, int]] = []
        for place in places:
            # Frames without objects have null, or nothing at all.
            items = (frames[place].get("labels") or []) if place >= 0 else []
            if not isinstance(items, list):
                raise fields.error(f"frames[{place}].labels", f"expected a list, found {shown(items)}")
            for number, item in enumerate(items):
                where = f"frames[{place}].labels[{number}]"
                if not isinstance(item, dict):
                    raise fields.error(where, f"expected an object, found {shown(item)}")
                if item.get("box2d") is None:
                    continue  # a lane, an area, or an outline: these have masks
                name = fields.text(item, where, "category")
                ignored = name in _IGNORED_NAMES
                name = _IGNORED_NAMES.get(name, _OTHER_NAMES.get(name, name))
                if name not in label_of:
                    raise fields.error(f"{where}.category", f"there is no category {shown(name)}")
                attributes = item.get("attributes") or {}
                if not isinstance(attributes, dict):
                    raise fields.error(f"{where}.attributes", f"expected an object, found {shown(attributes)}")
                boxes.append(_box(item["box2d"], where, fields))
                labels.append(label_of[name])
                flags = [fields.flag(attributes, f"{where}.attributes", name) for name in ("crowd", "ignored")]
                crowd.append(ignored or any(flags))
                numbers.append((place, number))
            starts.append(len(boxes))
        self._starts = np.array(starts, dtype=np.int64)
        self._boxes = np.array(boxes, dtype=np.float32).reshape(-1, 4)
        self._labels = np.array(labels, dtype=np.int64)
        self._crowd = np.array(crowd, dtype=np.bool_)
        self._numbers = np.array(numbers, dtype=np.int32).reshape(-1, 2)

    def _boxes_of(
        self, index: int, size: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
        """Return the JSON's boxes inside an image of this (height, width), their labels and crowds."""
        rows = slice(int(self._starts[index]), int(self._starts[index + 1]))
        boxes = np.minimum(self._boxes[rows], np.array([size[1], size[0]] * 2, dtype=np.float32))
        outside = (boxes[:, 2:] <= boxes[:, :2]).any(1)
        if outside.any():
            place, number = self._numbers[rows][outside][0]
            raise self._fields.error(
                f"frames[{place}].labels[{number}].box2d", f"it is outside the image of {size[1]} x {size[0]}"
            )
        return boxes, self._labels[rows], self._crowd[rows]


def _taxonomy(drivable: bool, semantic: bool) -> Taxonomy:
    stuff = DRIVABLE if drivable else STUFF if semantic else {}
    segmented = [*stuff, *(THINGS if semantic else ())]
    return Taxonomy.build(things=list(THINGS), stuff=list(stuff), segmented=segmented, colors={**THINGS, **stuff})


def _read_frames(fields: Fields) -> list[Any]:
    """Read a list of frames, at the top level or under ``frames``."""
    content = read_json_value(fields.path)
    frames = content.get("frames") if isinstance(content, dict) else content
    if not isinstance(frames, list) or not frames:
        raise fields.error("frames", "expected a list of frames that is not empty")
    return frames


def _box(box: Any, where: str, fields: Fields) -> tuple[float, ...]:
    """Return pixel edges: Scalabel's x2 and y2 are the last pixel, as its conversion to COCO shows."""
    if not isinstance(box, dict):
        raise fields.error(f"{where}.box2d", f"expected an object, found {shown(box)}")
    values = [box.get(key) for key in ("x1", "y1", "x2", "y2")]
    x1, y1, x2, y2 = fields.numbers({"box2d": values}, where, "box2d", 4)
    if min(x1, y1) < 0 or x2 < x1 or y2 < y1:
        raise fields.error(f"{where}.box2d", f"({x1:g}, {y1:g}) to ({x2:g}, {y2:g}) is not a box inside an image")
    return x1, y1, x2 + 1, y2 + 1
