"""Cityscapes: PNGs of label ids and of instance ids in folders by split and city."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from os import PathLike
from os.path import join
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ocrnet_pl.data.readers.json_fields import existing_folder
from ocrnet_pl.data.readers.label_maps import read_id_map, read_image_like, tight_boxes
from ocrnet_pl.data.records import make_sample
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import IGNORE_INDEX, Sample, Supervision, Taxonomy


class Label(NamedTuple):
    """One label of Cityscapes.

    Attributes:
        name: Name of the label.
        id: Value in labelIds and instanceIds.
        train_id: Value in labelTrainIds, 255 = void.
        is_thing: Whether it has instances.
        color: RGB of the official color maps.
    """

    name: str
    id: int
    train_id: int
    is_thing: bool
    color: tuple[int, int, int]


LABELS = (
    Label("unlabeled", 0, 255, False, (0, 0, 0)),
    Label("ego vehicle", 1, 255, False, (0, 0, 0)),
    Label("rectification border", 2, 255, False, (0, 0, 0)),
    Label("out of roi", 3, 255, False, (0, 0, 0)),
    Label("static", 4, 255, False, (0, 0, 0)),
    Label("dynamic", 5, 255, False, (111, 74, 0)),
    Label("ground", 6, 255, False, (81, 0, 81)),
    Label("road", 7, 0, False, (128, 64, 128)),
    Label("sidewalk", 8, 1, False, (244, 35, 232)),
    Label("parking", 9, 255, False, (250, 170, 160)),
    Label("rail track", 10, 255, False, (230, 150, 140)),
    Label("building", 11, 2, False, (70, 70, 70)),
    Label("wall", 12, 3, False, (102, 102, 156)),
    Label("fence", 13, 4, False, (190, 153, 153)),
    Label("guard rail", 14, 255, False, (180, 165, 180)),
    Label("bridge", 15, 255, False, (150, 100, 100)),
    Label("tunnel", 16, 255, False, (150, 120, 90)),
    Label("pole", 17, 5, False, (153, 153, 153)),
    Label("polegroup", 18, 255, False, (153, 153, 153)),
    Label("traffic light", 19, 6, False, (250, 170, 30)),
    Label("traffic sign", 20, 7, False, (220, 220, 0)),
    Label("vegetation", 21, 8, False, (107, 142, 35)),
    Label("terrain", 22, 9, False, (152, 251, 152)),
    Label("sky", 23, 10, False, (70, 130, 180)),
    Label("person", 24, 11, True, (220, 20, 60)),
    Label("rider", 25, 12, True, (255, 0, 0)),
    Label("car", 26, 13, True, (0, 0, 142)),
    Label("truck", 27, 14, True, (0, 0, 70)),
    Label("bus", 28, 15, True, (0, 60, 100)),
    Label("caravan", 29, 255, True, (0, 0, 90)),
    Label("trailer", 30, 255, True, (0, 0, 110)),
    Label("train", 31, 16, True, (0, 80, 100)),
    Label("motorcycle", 32, 17, True, (0, 0, 230)),
    Label("bicycle", 33, 18, True, (119, 11, 32)),
)
"""The labels by id."""

_IMAGE = re.compile(r"(.+)_leftImg8bit\.(?:png|jpg|jpeg)")
_ANNOTATION = re.compile(r"(.+)_(?:gtFine|gtCoarse)_(instanceIds|labelIds|labelTrainIds)\.png")
_KINDS = ("instanceIds", "labelIds", "labelTrainIds")
"""The first kind that an image has is read: instance ids include the labels, and label ids include the training ids."""

_CROWD_LIMIT = 1000
"""Smaller ids are labels: of a thing, of a group whose members were not told apart. Larger ones are 1000 x label +
number.
"""


class Cityscapes(Source):
    """Cityscapes semantic and instance segmentation, fine or coarse.

    By default the 19 training classes, 8 of them things, in the official order, so that segmentation indices are the
    training ids; all other labels are ignored. Boxes are tight around the pixels of an instance. Pixels of a thing
    class without an instance number are a group: one crowd row per class and image.

    One label file per image is enough. instanceIds gives boxes, instances and classes; labelIds gives the classes;
    labelTrainIds gives those among the 19 that are requested. What an image does not have is unsupervised.

    Args:
        split: Name of the subfolder, such as "train", "val" or "train_extra".
        images: Folder of the images.
        annotations: Folder of the label files.
        classes: Names of the labels to learn, in the order of their indices (stuff before things); null for the 19
            training classes.
        root: Folder that the paths start from; ``data.root`` on the command line.

    Raises:
        DataError: A folder is missing, an image has no label file, or a label file has no image.
        ValueError: A class is unknown.
    """

    def __init__(
        self,
        split: str,
        images: str | PathLike[str] = "leftImg8bit",
        annotations: str | PathLike[str] = "gtFine",
        classes: Sequence[str] | None = None,
        root: str | PathLike[str] = ".",
    ) -> None:
        self.root = root
        by_name = {label.name: label for label in LABELS}
        names = [label.name for label in LABELS if label.train_id != IGNORE_INDEX] if classes is None else list(classes)
        for name in names:
            if name not in by_name:
                raise ValueError(f"Cityscapes: there is no label {name!r}; there are {', '.join(by_name)}")
        labels = [by_name[name] for name in names]
        self._taxonomy = Taxonomy.build(
            things=[label.name for label in labels if label.is_thing],
            stuff=[label.name for label in labels if not label.is_thing],
            colors={label.name: label.color for label in labels},
        )
        self._read_tables(by_name)
        if os.path.isabs(split) or os.pardir in Path(split).parts:
            raise DataError.at(join(root, images), f"the split {split!r} leads out of the folder")
        image_root = existing_folder(join(root, images, split), f"images of the split {split!r}")
        label_root = existing_folder(join(root, annotations, split), f"labels of the split {split!r}")
        self._image_root, self._label_root = image_root, label_root
        self._find(image_root, label_root)

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes, stuff first."""
        return self._taxonomy

    def __len__(self) -> int:
        return len(self._names)

    def image_path(self, index: int) -> str:
        """Return the image's file."""
        return str(self._image_root / str(self._names[index]))

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return the image's name without its ending, and the file."""
        return _stem(self._names[index]), self.image_path(index)

    def files(self, index: int) -> Sequence[str]:
        """Return the paths of the image and of the files that are read with it."""
        return [self.image_path(index), str(self._label_root / str(self._label_names[index]))]

    def __getitem__(self, index: int) -> Sample:
        path = str(self._image_root / str(self._names[index]))
        label_path = str(self._label_root / str(self._label_names[index]))
        kind = _KINDS[int(self._kinds[index])]
        ids = read_id_map(label_path, bits=16 if kind == "instanceIds" else 8)
        image = read_image_like(path, (ids.shape[0], ids.shape[1]), label_path)
        counts = np.bincount(ids.ravel())
        present = np.flatnonzero(counts)
        labels = present // _CROWD_LIMIT if kind == "instanceIds" else present
        labels = np.where(labels > 0, labels, present)
        unknown = present[self._tables[kind][np.minimum(labels, 255)] < 0]
        if unknown.size:
            raise DataError.at(
                label_path, f"there is no label for the id {unknown[0]}", field=kind, advice="use the official ids"
            )
        semantic_of = np.zeros(len(counts), dtype=np.uint8)
        semantic_of[present] = self._tables[kind][labels]
        boxes, classes, crowd, instances = self._things(ids, present, labels, kind)
        supervision = Supervision.full(self._taxonomy, detection=kind == "instanceIds")
        if kind == "labelTrainIds":
            # Labels beyond the training ids are void there: their pixels are unknown.
            supervision = Supervision(supervision.detection, self._has_train_id.clone())
        return make_sample(
            image,
            boxes=boxes,
            labels=classes,
            crowd=crowd,
            semantic=semantic_of[ids],
            instances=instances,
            supervision=supervision,
            image_id=_stem(self._names[index]),
            path=path,
        )

    def _things(
        self, ids: NDArray[np.int32], present: NDArray[np.int64], labels: NDArray[np.int64], kind: str
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_], NDArray[np.int32] | None]:
        """Return boxes, classes, crowds and the instance map."""
        if kind != "instanceIds":
            return np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_), None
        classes = self._detection_of[labels]
        things, classes = present[classes >= 0], classes[classes >= 0]
        crowd = things < _CROWD_LIMIT
        number_of = np.zeros(int(present.max(initial=0)) + 1, dtype=np.int32)
        number_of[things] = np.arange(1, len(things) + 1)
        numbers = number_of[ids]
        boxes = tight_boxes(numbers, len(things))
        if crowd.any():
            # A crowd has no instance.
            number_of[things[crowd]] = 0
            numbers = number_of[ids]
        return boxes, classes, crowd, numbers

    def _read_tables(self, by_name: dict[str, Label]) -> None:
        """Fill the tables from ids to classes: -1 for an id that does not exist, 255 for one that is ignored."""
        label_ids = np.full(256, -1, dtype=np.int16)
        train_ids = np.full(256, -1, dtype=np.int16)
        label_ids[[label.id for label in LABELS]] = IGNORE_INDEX
        train_ids[[label.train_id for label in LABELS]] = IGNORE_INDEX
        self._detection_of = np.full(len(LABELS), -1, dtype=np.int64)
        self._has_train_id = torch.zeros(self._taxonomy.num_semantic, dtype=torch.bool)
        for detection, category in enumerate(self._taxonomy.detection_categories):
            self._detection_of[by_name[category.name].id] = detection
        for semantic, category in enumerate(self._taxonomy.semantic_categories):
            label = by_name[category.name]
            label_ids[label.id] = semantic
            if label.train_id != IGNORE_INDEX:
                train_ids[label.train_id] = semantic
                self._has_train_id[semantic] = True
        self._tables = {"instanceIds": label_ids, "labelIds": label_ids, "labelTrainIds": train_ids}

    def _find(self, image_root: Path, label_root: Path) -> None:
        """Pair the images with the best of their label files."""
        images = {match[1]: name for name in _files(image_root) if (match := _IMAGE.fullmatch(name))}
        if not images:
            raise DataError.at(
                image_root, "there is no image named *_leftImg8bit.png in its folders", advice="check the folder"
            )
        labels: dict[str, tuple[int, str]] = {}
        for name in _files(label_root):
            match = _ANNOTATION.fullmatch(name)
            if match is None:
                continue
            if match[1] not in images:
                raise DataError.at(
                    label_root / name, f"there is no image {match[1]}_leftImg8bit.png in {image_root}", advice="add it"
                )
            kind = _KINDS.index(match[2])
            if match[1] in labels and labels[match[1]][0] == kind:
                raise DataError.at(label_root / name, f"{labels[match[1]][1]} labels the same image")
            labels[match[1]] = min(labels.get(match[1], (kind, name)), (kind, name))
        for stem, name in images.items():
            if stem not in labels:
                raise DataError.at(
                    image_root / name,
                    f"{label_root} has none of its label files ({', '.join(_KINDS)})",
                    advice="add one or remove the image",
                )
        self._names = np.array(list(images.values()))
        self._label_names = np.array([labels[stem][1] for stem in images])
        self._kinds = np.array([labels[stem][0] for stem in images], dtype=np.uint8)


def _files(root: Path) -> list[str]:
    """List ``city/name`` of the files in the folders of the cities, in order."""
    found: list[str] = []
    with os.scandir(root) as folders:
        for folder in folders:
            if folder.is_dir() and not folder.name.startswith("."):
                found += [join(folder.name, name) for name in os.listdir(folder.path) if not name.startswith(".")]
    return sorted(found)


def _stem(name: str) -> str:
    match = _IMAGE.fullmatch(os.path.basename(name))
    return name if match is None else match[1]
