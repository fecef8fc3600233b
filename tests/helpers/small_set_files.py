"""A tiny sound data set on disk of every format: what writes it, and what opens those that need more than a source."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import stat
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import yaml
from faster_coco_eval.core import mask as mask_api
from PIL import Image
from pyarrow import parquet

from ocrnet_pl.data.readers import coco_index
from ocrnet_pl.data.shards.source import Packed
from ocrnet_pl.data.sources.coco import CocoInstances
from ocrnet_pl.storage.flat_arrays import Texts, save_arrays
from tests.helpers.packed_data import Numbered, packed_folder

HEIGHT, WIDTH = 12, 20


def _photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 30)).save(path)


def _map(path: Path, windows: dict[Any, Any], kind: Any = np.uint8, channels: tuple[int, ...] = ()) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((HEIGHT, WIDTH, *channels), dtype=kind)
    for value, window in windows.items():
        values[window] = value
    Image.fromarray(values).save(path)


def _runs(window: Any, text: bool) -> dict[str, Any]:
    pixels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    pixels[window] = 1
    if text:
        return {"size": [HEIGHT, WIDTH], "counts": mask_api.encode(pixels)["counts"].decode()}
    flat = pixels.ravel(order="F")
    bounds = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    return {"size": [HEIGHT, WIDTH], "counts": np.diff(bounds).tolist()}


def _coco(root: Path, text: bool) -> None:
    for name in ("a.png", "sub/b.png"):
        _photo(root / "images" / name)
    boxes = [(1, [2, 3, 5, 6]), (1, [8, 2, 6.5, 4]), (2, [0, 0, 20, 12]), (2, [4, 4, 0, 3]), (2, [10, 5, 4, 4])]
    masks: list[Any] = [
        _runs(np.s_[3:9, 2:7], text),
        [[8, 2, 14, 2, 14, 6, 8, 6], [9, 3, 12, 3, 12, 5]],
        _runs(np.s_[0:12, 0:20], True),
        None,
        [],
    ]
    content = {
        "info": {"year": 2020},
        "images": [
            {"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},
            {"id": 2, "file_name": "sub/b.png", "height": HEIGHT, "width": WIDTH},
        ],
        "annotations": [
            {"id": i, "image_id": image, "category_id": 3 + i % 2, "bbox": box, "iscrowd": int(i == 2)}
            | ({} if masks[i] is None else {"segmentation": masks[i]})
            for i, (image, box) in enumerate(boxes)
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}],
    }
    (root / "instances.json").write_text(json.dumps(content))


def write_coco(root: Path) -> None:
    _coco(root, text=True)


def write_coco_lists(root: Path) -> None:
    """With runs as a list of numbers, which the fast reader leaves to the plain one."""
    _coco(root, text=False)


def write_coco_kept(root: Path) -> None:
    """With an index that an earlier run has kept."""
    _coco(root, text=True)
    open_kept(root)
    (kept,) = (root / "cache/index").iterdir()
    kept.rename(root / "kept.safetensors")


def open_kept(root: Path) -> CocoInstances:
    """Open with every index kept, and a damaged one in its place if there is one."""
    before, coco_index._KEEP_FROM = coco_index._KEEP_FROM, 0
    try:
        if os.path.lexists(root / "kept.safetensors"):
            # Found by the path of the JSON.
            name = coco_index._kept_file(root / "instances.json", root / "cache")
            assert name is not None
            if stat.S_ISREG(os.lstat(root / "kept.safetensors").st_mode):
                shutil.copyfile(root / "kept.safetensors", name)
            else:
                (root / "kept.safetensors").rename(name)
        return CocoInstances("images", "instances.json", root=root, index_cache=root / "cache")
    finally:
        coco_index._KEEP_FROM = before


def write_panoptic(root: Path) -> None:
    _photo(root / "images/a.png")
    _map(
        root / "masks/a.png",
        {(5, 0, 0): np.s_[:6], (44, 1, 0): np.s_[6:, :9], (112, 17, 1): np.s_[8:, 12:]},
        channels=(3,),
    )
    segments = [
        {"id": 70000, "category_id": 1, "iscrowd": 1, "bbox": [12, 8, 8, 4]},
        {"id": 5, "category_id": 200, "iscrowd": 0, "bbox": [0, 0, 20, 6]},
        {"id": 300, "category_id": 1, "iscrowd": 0, "bbox": [0, 6, 9, 6]},
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [
            {"id": 1, "name": "cat", "isthing": 1, "color": [1, 2, 3]},
            {"id": 200, "name": "sea", "isthing": 0},
        ],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
    }
    (root / "panoptic.json").write_text(json.dumps(content))


def write_stuff(root: Path) -> None:
    _photo(root / "images/a.png")
    _map(root / "masks/a.png", {1: np.s_[:4], 2: np.s_[4:9]})
    categories = [
        {"id": 0, "name": "ground", "color": [9, 9, 9]},
        {"id": 1, "name": "sky"},
        {"id": 2, "name": "cat", "isthing": 1},
    ]
    (root / "names.json").write_text(json.dumps({"categories": categories}))


def write_voc(root: Path) -> None:
    for stem in "ab":
        _photo(root / f"JPEGImages/{stem}.png")
    (root / "Annotations").mkdir()
    (root / "train.txt").write_text("a\nb 1\n")

    def item(name: str, difficult: int, *corners: float) -> str:
        keys = ("xmin", "ymin", "xmax", "ymax")
        box = "".join(f"<{key}>{value}</{key}>" for key, value in zip(keys, corners, strict=True))
        return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{box}</bndbox></object>"

    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    objects = item("cat", 0, 2, 3, 7, 9) + item("dog", 1, 10, 1, 19.5, 12)
    (root / "Annotations/a.xml").write_text(f"<annotation><folder>x</folder>{size}{objects}</annotation>")
    (root / "Annotations/b.xml").write_text(f"<annotation>{item('dog', 0, 1, 1, 4, 4)}</annotation>")
    _map(root / "SegmentationClass/a.png", {1: np.s_[2:9, 1:7], 2: np.s_[0:12, 9:19]})
    _map(root / "SegmentationObject/a.png", {1: np.s_[2:9, 1:7], 2: np.s_[0:12, 9:19]})


def write_cityscapes(root: Path) -> None:
    _photo(root / "leftImg8bit/train/x/x_000000_leftImg8bit.png")
    _map(
        root / "gtFine/train/x/x_000000_gtFine_instanceIds.png",
        {7: np.s_[:6], 26001: np.s_[6:, :9], 24: np.s_[8:, 12:]},
        np.uint16,
    )


def write_bdd(root: Path) -> None:
    for stem in "abc":
        _photo(root / f"images/{stem}.png")

    def label(category: str, *box: float, **attributes: Any) -> dict[str, Any]:
        corners = dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))
        return {"id": "1", "category": category, "attributes": {"occluded": True, **attributes}, "box2d": corners}

    frames = [
        {"name": "b.png", "labels": [label("pedestrian", 1, 2, 4, 5), label("car", 3.5, 0, 6.25, 7.5, crowd=True)]},
        {"name": "a.png", "labels": [label("rider", 2, 2, 5, 5), {"id": "2", "category": "lane", "poly2d": []}]},
        {"name": "c.png", "labels": None},
    ]
    (root / "frames.json").write_text(json.dumps(frames))
    _map(root / "sem_seg/b.png", {3: np.s_[:4], 13: np.s_[4:9], 255: np.s_[11:]})
    _map(
        root / "pan_seg/a.png",
        {(30, 0, 0, 30): np.s_[:6], (7, 0, 0, 7): np.s_[6:], (35, 1, 1, 44): np.s_[5:8, 10:14]},
        channels=(4,),
    )


def write_yolo(root: Path) -> None:
    for name in ("a", "b"):
        _photo(root / f"images/train/{name}.png")
    (root / "labels/train").mkdir(parents=True)
    (root / "labels/train/a.txt").write_text("0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.6 0.1 0.6 0.7\n")
    (root / "labels/train/b.txt").write_text("1 0.2 0.2 0.1 0.1\n")
    (root / "train.txt").write_text("images/train/a.png\n./images/train/b.png\n")
    content = {"path": ".", "train": "train.txt", "val": ["images/train"], "nc": 2, "names": {0: "cat", 1: "dog"}}
    (root / "data.yaml").write_text(yaml.safe_dump(content))


_BOXES = [
    ["image", "x1", "y1", "x2", "y2", "label", "crowd"],
    ["a.png", 1, 2, 8.5, 9, "cat", 0],
    ["b", 0, 0, 20, 12, "dog", 1],
    ["b", 3, 3, 3, 7, "dog", ""],
    ["c.png", "", "", "", "", "", ""],
]


def write_folder(root: Path) -> None:
    for stem in "abc":
        _photo(root / f"images/{stem}.png")
    _map(root / "masks/a.png", {1: np.s_[2:9, 1:8], 2: np.s_[10:]})
    _map(root / "instances/a.png", {700: np.s_[2:9, 1:8]}, np.uint16)
    with (root / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(_BOXES)
    categories = [{"id": 0, "name": "ground"}, {"id": 1, "name": "cat"}, {"id": 2, "name": "sky"}]
    (root / "names.json").write_text(json.dumps(categories))


def _table_rows(root: Path) -> list[dict[str, Any]]:
    for stem in "abc":
        _photo(root / f"images/{stem}.png")
    _map(root / "masks/a.png", {1: np.s_[2:9, 1:8], 2: np.s_[10:]})
    _map(root / "masks/b.png", {(7, 0, 0): np.s_[2:9, 1:8], (9, 1, 0): np.s_[10:]}, channels=(3,))
    boxes = [{"box": [1, 2, 8.5, 9], "label": "cat"}, {"box": [0, 0, 20, 12], "label": "dog", "crowd": 1}]
    segments = [{"id": 7, "label": "cat", "crowd": 0}, {"id": 265, "label": "sky"}]
    return [
        {
            "image": "images/a.png",
            "semantic": "masks/a.png",
            "panoptic": "",
            "segments": "",
            "boxes": json.dumps(boxes),
        },
        {
            "image": "images/b.png",
            "semantic": "",
            "panoptic": "masks/b.png",
            "segments": json.dumps(segments),
            "boxes": "",
        },
        {"image": "images/c.png", "semantic": "", "panoptic": "", "segments": "", "boxes": "[]"},
    ]


def write_table(root: Path) -> None:
    rows = _table_rows(root)
    with (root / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(root: Path) -> None:
    rows = _table_rows(root)
    parquet.write_table(pyarrow.Table.from_pylist(rows), root / "table.parquet")
    values = [dict(zip(_BOXES[0], row, strict=True)) for row in _BOXES[1:-1]]
    parquet.write_table(
        pyarrow.Table.from_pylist([row | {"image": f"images/{row['image'][0]}.png", "crowd": 0} for row in values]),
        root / "boxes.parquet",
    )


def write_packed(root: Path) -> None:
    packed_folder(root / "set", Numbered(length=6, side=12), shard_bytes=6_000)
    packed_folder(root / "planes", Numbered(length=2, side=8, channels=5), shard_bytes=6_000)
    for name in ("packed.json", "index.safetensors", "shard-00000.tar"):
        assert (root / "planes" / name).exists() and (root / "set" / name).exists()


def open_signed(path: str, root: str) -> Packed:
    """Open a packed set whose index was changed by somebody who also changed its check sum in the manifest."""
    folder = Path(root, path)
    index = (folder / "index.safetensors").read_bytes()
    manifest = json.loads((folder / "packed.json").read_text())
    manifest["index"] |= {"size": len(index), "sha256": hashlib.sha256(index).hexdigest()}
    (folder / "packed.json").write_text(json.dumps(manifest))
    return Packed(folder)


MEMBERS = ("member.json", "member.npy", "member.semantic.png", "member.instances.png")


def write_members(root: Path) -> None:
    packed_folder(root / "set", Numbered(length=2, side=12, channels=5))
    with tarfile.open(root / "set/shard-00000.tar") as shard:
        for file, member in zip(MEMBERS, ("json", "npy", "semantic.png", "instances.png"), strict=True):
            held = shard.extractfile(f"000000001.{member}")
            assert held is not None
            (root / file).write_bytes(held.read())


def open_members(path: str, root: str) -> Packed:
    """Open a packed set of one sample out of the files of its members, with all its check sums right."""
    members = [Path(root, file).read_bytes() for file in MEMBERS]
    content = b""
    for number, data in enumerate(members):
        info = tarfile.TarInfo(f"000000000.{number}")
        info.size = len(data)
        content += info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)
    folder = Path(root, path)
    (folder / "shard-00000.tar").write_bytes(content)
    texts = {"ids": Texts.pack(["1"]), "paths": Texts.pack(["number 1"])}
    arrays = {
        "shard": np.zeros(1, dtype=np.int32),
        "start": np.zeros(1, dtype=np.int64),
        "check": np.array([zlib.crc32(content)], dtype=np.int64),
        "lengths": np.array([[len(data) for data in members]], dtype=np.int64),
        "sizes": np.array([[12, 13]], dtype=np.int32),
        **{name: packed.data for name, packed in texts.items()},
        **{f"{name}_ends": packed.ends for name, packed in texts.items()},
    }
    manifest = json.loads((folder / "packed.json").read_text())
    save_arrays(folder / "index.safetensors", arrays, {"identity": manifest["identity"]})
    manifest["samples"] = manifest["index"]["samples"] = 1
    manifest["shards"] = [manifest["shards"][0] | {"size": len(content), "samples": 1}]
    (folder / "packed.json").write_text(json.dumps(manifest))
    return open_signed(path, root)


def write_split(root: Path) -> None:
    for stem in "abcd":
        _photo(root / f"images/{stem}.png")
        _map(root / f"masks/{stem}.png", {1: np.s_[2:9, 1:8]})
    (root / "val.txt").write_text("a.png\nc\n")
    (root / "groups.csv").write_text("image,group\na,1\nb,2\nc.png,1\nd,3\n")
