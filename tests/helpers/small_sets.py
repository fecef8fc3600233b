"""The small data sets of every format by their names, and how to open them, for the tests that damage their files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ocrnet_pl.data.cache.shared_cache import Cached, CacheOptions
from ocrnet_pl.data.shards.source import Packed
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.bdd100k import Bdd100k
from ocrnet_pl.data.sources.cityscapes import Cityscapes
from ocrnet_pl.data.sources.coco import CocoInstances
from ocrnet_pl.data.sources.coco_panoptic import CocoPanoptic
from ocrnet_pl.data.sources.coco_stuff import CocoStuff
from ocrnet_pl.data.sources.cvat import CvatImages
from ocrnet_pl.data.sources.label_studio import LabelStudio
from ocrnet_pl.data.sources.labelled_folder import LabelledFolder
from ocrnet_pl.data.sources.labelme import Labelme
from ocrnet_pl.data.sources.lvis import Lvis
from ocrnet_pl.data.sources.object_masks import ObjectMasks
from ocrnet_pl.data.sources.open_images import OpenImages
from ocrnet_pl.data.sources.table import Table
from ocrnet_pl.data.sources.via import Via
from ocrnet_pl.data.sources.voc import PascalVoc
from ocrnet_pl.data.sources.wrappers.mixture import Mixture
from ocrnet_pl.data.sources.wrappers.remapped import Remapped
from ocrnet_pl.data.sources.wrappers.split import Split
from ocrnet_pl.data.sources.wrappers.tiled import Tiled
from ocrnet_pl.data.sources.yolo import Yolo
from tests.helpers.drawn_set_files import (
    write_cvat,
    write_label_studio,
    write_labelme,
    write_lvis,
    write_named_masks,
    write_object_masks,
    write_open_images,
    write_via,
    write_yolo_names,
)
from tests.helpers.small_set_files import (
    MEMBERS,
    open_kept,
    open_members,
    open_signed,
    write_bdd,
    write_cityscapes,
    write_coco,
    write_coco_kept,
    write_coco_lists,
    write_folder,
    write_members,
    write_packed,
    write_panoptic,
    write_parquet,
    write_split,
    write_stuff,
    write_table,
    write_voc,
    write_yolo,
)


class SmallSet(NamedTuple):
    """A data set to damage.

    Attributes:
        write: Writes it into a folder.
        source: The source's class.
        arguments: Arguments of the source; its ``root`` is the folder.
        files: Those to damage, relative to the folder.
        wrap: Puts the source into another.
        own_files: The files to damage are read by the set's own functions first, so they have to be files.
    """

    write: Callable[[Path], None]
    source: Callable[..., Source]
    arguments: dict[str, Any]
    files: tuple[str, ...]
    wrap: Callable[[Source, Path], Source] = lambda source, root: source
    own_files: bool = False

    @property
    def source_class(self) -> type[Source]:
        return self.source if isinstance(self.source, type) else Source

    def open(self, root: Path, **changes: Any) -> Source:
        return self.wrap(self.source(**(self.arguments | {"root": str(root)} | changes)), root)


def _cached(source: Source, root: Path) -> Source:
    """Fill a cache on a disk, or use the one that is there."""
    options = CacheOptions(str(root / "cache"))
    name = Path(Cached(source, options)._open().folder)
    for file in ("index", "data"):
        kept = root / f"cached.{file}"
        if kept.exists():
            shutil.copyfile(kept, name / file)
    cached = Cached(source, options)
    if not (root / "cached.index").exists():
        for index in range(len(cached)):
            cached[index]
        for file in ("index", "data"):
            shutil.copyfile(name / file, root / f"cached.{file}")
    return cached


def write_cached(root: Path) -> None:
    write_split(root)
    SETS["cached"].open(root)


_NAMES = ["background", "cat"]

SETS = {
    "coco": SmallSet(
        write_coco, CocoInstances, {"images": "images", "annotations": "instances.json"}, ("instances.json",)
    ),
    "coco lists": SmallSet(
        write_coco_lists, CocoInstances, {"images": "images", "annotations": "instances.json"}, ("instances.json",)
    ),
    "coco kept": SmallSet(write_coco_kept, lambda root: open_kept(Path(root)), {}, ("kept.safetensors",)),
    "coco tiled": SmallSet(
        write_coco,
        CocoInstances,
        {"images": "images", "annotations": "instances.json"},
        ("instances.json",),
        lambda source, root: Mixture({"tiles": Remapped(Tiled(source, 8), rename={"cat": "lion"}), "whole": source}),
    ),
    "coco panoptic": SmallSet(
        write_panoptic,
        CocoPanoptic,
        {"images": "images", "annotations": "panoptic.json", "masks": "masks"},
        ("panoptic.json", "panoptic.json", "panoptic.json", "masks/a.png"),
    ),
    "coco stuff": SmallSet(
        write_stuff,
        CocoStuff,
        {"images": "images", "masks": "masks", "names": "names.json"},
        ("names.json", "names.json", "masks/a.png"),
    ),
    "voc": SmallSet(
        write_voc,
        PascalVoc,
        {"split": "train.txt", "classes": ["cat", "dog"]},
        ("Annotations/a.xml", "Annotations/b.xml", "Annotations/a.xml", "train.txt", "SegmentationObject/a.png"),
    ),
    "cityscapes": SmallSet(
        write_cityscapes, Cityscapes, {"split": "train"}, ("gtFine/train/x/x_000000_gtFine_instanceIds.png",)
    ),
    "bdd100k": SmallSet(
        write_bdd,
        Bdd100k,
        {"images": "images", "detection": "frames.json", "semantic": "sem_seg", "panoptic": "pan_seg"},
        ("frames.json", "frames.json", "frames.json", "pan_seg/a.png"),
    ),
    "yolo": SmallSet(
        write_yolo,
        Yolo,
        {"semantic_from_instances": True},
        ("data.yaml", "labels/train/a.txt", "data.yaml", "labels/train/b.txt", "train.txt"),
    ),
    "yolo loose": SmallSet(
        write_yolo, Yolo, {"split": "val", "strict": False}, ("data.yaml", "labels/train/a.txt", "labels/train/b.txt")
    ),
    "yolo names": SmallSet(
        write_yolo_names, Yolo, {"data": "obj.data"}, ("obj.data", "obj.names", "train.txt", "obj_train_data/a.txt")
    ),
    "folder": SmallSet(
        write_folder,
        LabelledFolder,
        {
            "images": "images",
            "classes": ["cat", "dog"],
            "masks": "masks",
            "semantic_names": "names.json",
            "boxes": "boxes.csv",
            "instances": "instances",
        },
        ("boxes.csv", "names.json", "boxes.csv", "instances/a.png"),
    ),
    "labelme": SmallSet(write_labelme, Labelme, {"images": ".", "stuff": ["soil"]}, ("a.json", "a.json", "b.json")),
    "cvat": SmallSet(write_cvat, CvatImages, {"images": "images"}, ("annotations.xml",)),
    "via": SmallSet(write_via, Via, {"images": ".", "annotations": "via.json"}, ("via.json",)),
    "label studio": SmallSet(
        write_label_studio, LabelStudio, {"images": ".", "annotations": "tasks.json"}, ("tasks.json",)
    ),
    "object masks": SmallSet(
        write_object_masks,
        ObjectMasks,
        {"images": "images", "masks": "masks", "pattern": "{image}_{class}_{any}", "tasks": "tasks.json"},
        ("masks/1_cat_0.png", "tasks.json", "masks/2_dog_x.png"),
    ),
    "lvis": SmallSet(write_lvis, Lvis, {"images": ".", "annotations": "lvis.json"}, ("lvis.json",)),
    "open images": SmallSet(
        write_open_images,
        OpenImages,
        {"images": ".", "boxes": "boxes.csv", "descriptions": "names.csv", "image_labels": "verified.csv"},
        ("boxes.csv", "names.csv", "verified.csv"),
    ),
    "class dict": SmallSet(
        write_named_masks,
        LabelledFolder,
        {"images": ".", "masks": ".", "mask_suffix": "_L", "semantic_names": "class_dict.csv"},
        ("class_dict.csv",),
    ),
    "labelmap": SmallSet(
        write_named_masks,
        LabelledFolder,
        {"images": ".", "masks": ".", "mask_suffix": "_L", "semantic_names": "labelmap.txt"},
        ("labelmap.txt",),
    ),
    "table": SmallSet(
        write_table,
        Table,
        {
            "table": "table.csv",
            "classes": ["cat", "dog"],
            "semantic_names": ["ground", "cat", "sky"],
            "boxes_from_instances": True,
        },
        ("table.csv",),
    ),
    "parquet": SmallSet(
        write_parquet,
        Table,
        {"table": "table.parquet", "classes": ["cat", "dog"], "semantic_names": ["ground", "cat", "sky"]},
        ("table.parquet",),
    ),
    "boxes parquet": SmallSet(
        write_parquet,
        LabelledFolder,
        {"images": ".", "classes": ["cat", "dog"], "boxes": "boxes.parquet"},
        ("boxes.parquet",),
    ),
    "packed": SmallSet(
        write_packed, Packed, {"path": "set"}, ("set/packed.json", "set/index.safetensors", "set/shard-00000.tar")
    ),
    "packed planes": SmallSet(
        write_packed,
        Packed,
        {"path": "planes"},
        ("planes/packed.json", "planes/index.safetensors", "planes/shard-00000.tar"),
    ),
    "packed signed": SmallSet(write_packed, open_signed, {"path": "set"}, ("set/index.safetensors",), own_files=True),
    "packed members": SmallSet(
        write_members,
        open_members,
        {"path": "set"},
        ("member.json", "member.json", "member.json", *MEMBERS[1:]),
        own_files=True,
    ),
    "split": SmallSet(
        write_split,
        LabelledFolder,
        {"images": "images", "masks": "masks", "semantic_names": _NAMES},
        ("val.txt", "groups.csv"),
        lambda source, root: Mixture(
            {
                "listed": Split(source, "val", {"train": None, "val": "val.txt"}, root=root),
                "grouped": Split(source, "a", {"a": 0.5, "b": 0.5}, groups_file="groups.csv", root=root),
            }
        ),
    ),
    "cached": SmallSet(
        write_cached,
        LabelledFolder,
        {"images": "images", "masks": "masks", "semantic_names": _NAMES},
        ("cached.index", "cached.data"),
        _cached,
        own_files=True,
    ),
}
"""By name."""
