"""Data for the configs that read some: two small images a split, in the folders that the config's page describes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ocrnet_pl.data.shards.writer import pack
from ocrnet_pl.data.sources.coco import CocoInstances
from tests.helpers.map_files import save

SIZE = (48, 64)
BOX = (20, 10, 50, 30)
POLYGON = "0.3125 0.2083 0.7813 0.2083 0.7813 0.625 0.3125 0.625"
"""The box, as a row of YOLO."""
STREET = (48, 96)


def photo(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> None:
    """Write noise in colour."""
    save(path, np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def filled(value: int, rest: int = 0) -> np.ndarray:
    """Return a map with one object."""
    values = np.full(SIZE, rest, dtype=np.uint8)
    values[BOX[1] : BOX[3], BOX[0] : BOX[2]] = value
    return values


def text(path: Path, content: str) -> None:
    """Write a file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def write_nuclei(root: Path) -> None:
    """Two images of two square nuclei each, a split."""
    for split in ("train", "val"):
        images, annotations = [], []
        for number in (1, 2):
            photo(root / split / f"{number}.png", number + 2 * (split == "val"), (64, 80))
            images.append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 80})
            for x in (10, 40):
                polygon = [x, 20, x + 12, 20, x + 12, 34, x, 34]
                entry = {"image_id": number, "category_id": 1, "bbox": [x, 20, 12, 14], "area": 168, "iscrowd": 0}
                annotations.append(entry | {"id": len(annotations) + 1, "segmentation": [polygon]})
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "nucleus"}]}
        text(root / f"instances_{split}.json", json.dumps(content))


def write_camvid(root: Path) -> None:
    """The nuclei, called cars, and index maps with them on the road."""
    write_nuclei(root)
    for split in ("train", "val"):
        path = root / f"instances_{split}.json"
        text(path, path.read_text().replace("nucleus", "car"))
        for number in (1, 2):
            save(root / f"semantic_{split}/{number}.png", np.full((64, 80), 3, dtype=np.uint8))


def write_packed_nuclei(root: Path) -> None:
    """The nuclei, packed."""
    write_nuclei(root / "unpacked")
    for split in ("train", "val"):
        pack(CocoInstances(split, f"instances_{split}.json", root=root / "unpacked"), root / split, "nuclei")


def write_yolo(root: Path) -> None:
    """A cat and a dog a split."""
    text(root / "data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n")
    for split in ("train", "val"):
        for number in range(2):
            photo(root / f"images/{split}/{number:04}.jpg", number)
            text(root / f"labels/{split}/{number:04}.txt", f"{number} {POLYGON}\n")


def write_folder(root: Path) -> None:
    """Masks of the images' names, and boxes in a CSV."""
    for split in ("train", "val"):
        for number, stem in enumerate("ab"):
            photo(root / f"{split}/images/{stem}.jpg", number)
            save(root / f"{split}/masks/{stem}.png", filled(2, rest=1))
        rows = [f"{stem}.jpg,{','.join(map(str, BOX))},cat,0\n" for stem in "ab"]
        text(root / f"{split}/boxes.csv", "image,x1,y1,x2,y2,label,crowd\n" + "".join(rows))


def write_table(root: Path) -> None:
    """A table a split with classes, objects and boxes."""
    root.mkdir(exist_ok=True)
    for split in ("train", "val"):
        with (root / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "semantic", "instances", "boxes"])
            for number, stem in enumerate("ab"):
                photo(root / f"photos/{split}/{stem}.jpg", number)
                save(root / f"labels/{split}_{stem}_classes.png", filled(3))
                save(root / f"labels/{split}_{stem}_objects.png", filled(7))
                names = [f"photos/{split}/{stem}.jpg"] + [
                    f"labels/{split}_{stem}_{kind}.png" for kind in ("classes", "objects")
                ]
                writer.writerow([*names, json.dumps([{"box": BOX, "label": "dog"}])])


def write_stuff(root: Path) -> None:
    """A person on a road, in maps of stuff and things."""
    categories = [{"id": 1, "name": "person", "isthing": 1}, {"id": 149, "name": "road", "isthing": 0}]
    text(root / "categories.json", json.dumps(categories))
    for split in ("train2017", "val2017"):
        for stem in ("000000000009", "000000000025"):
            photo(root / f"{split}/{stem}.jpg")
            save(root / f"stuffthingmaps/{split}/{stem}.png", filled(0, rest=148))


def write_coco(root: Path) -> None:
    """A person on a road, as instances and as panoptic maps."""
    x0, y0, x1, y1 = BOX
    categories = [{"id": 1, "name": "person", "isthing": 1}, {"id": 149, "name": "road", "isthing": 0}]
    for split in ("train2017", "val2017"):
        images, instances, panoptic = [], [], []
        for number, stem in ((9, "000000000009"), (25, "000000000025")):
            photo(root / f"{split}/{stem}.jpg")
            box = [x0, y0, x1 - x0, y1 - y0]
            images.append({"id": number, "file_name": f"{stem}.jpg", "height": SIZE[0], "width": SIZE[1]})
            polygon = [x0, y0, x1, y0, x1, y1, x0, y1]
            entry = {"id": number, "image_id": number, "category_id": 1, "bbox": box, "iscrowd": 0}
            instances.append(entry | {"segmentation": [polygon]})
            segments = [
                {"id": 5, "category_id": 1, "bbox": box, "iscrowd": 0},
                {"id": 6, "category_id": 149, "bbox": [0, 0, SIZE[1], SIZE[0]], "iscrowd": 0},
            ]
            panoptic.append({"image_id": number, "file_name": f"{stem}.png", "segments_info": segments})
            red = filled(5, rest=6)
            save(root / f"annotations/panoptic_{split}/{stem}.png", np.stack([red, red * 0, red * 0], -1))
        for kind, entries, kept in (("instances", instances, categories[:1]), ("panoptic", panoptic, categories)):
            content = {"images": images, "annotations": entries, "categories": kept}
            text(root / f"annotations/{kind}_{split}.json", json.dumps(content))


def write_voc(root: Path) -> None:
    """Two images a split, each with a cat."""
    for split in ("train", "val"):
        stems = [f"{split}_{number}" for number in range(2)]
        text(root / f"ImageSets/Segmentation/{split}.txt", "\n".join(stems))
        for number, stem in enumerate(stems):
            photo(root / f"JPEGImages/{stem}.jpg", number)
            save(root / f"SegmentationObject/{stem}.png", filled(1))
            save(root / f"SegmentationClass/{stem}.png", filled(8))
            text(
                root / f"Annotations/{stem}.xml",
                "<annotation><object><name>cat</name><bndbox><xmin>21</xmin><ymin>11</ymin><xmax>50</xmax>"
                "<ymax>30</ymax></bndbox></object></annotation>",
            )


def write_cityscapes(root: Path) -> None:
    """Two images a split, each with a road, the sky and a car."""
    for split in ("train", "val"):
        for number in range(2):
            stem = f"ulm_{number:06}_000019"
            photo(root / f"leftImg8bit/{split}/ulm/{stem}_leftImg8bit.png", number, STREET)
            ids = np.full(STREET, 7, dtype=np.uint16)
            ids[:20] = 23
            ids[18:36, 40:70] = 26000
            save(root / f"gtFine/{split}/ulm/{stem}_gtFine_instanceIds.png", ids)


def write_bdd100k(root: Path) -> None:
    """Two images a split with bitmasks, and boxes of one of them and of an image that is not there."""
    for split in ("train", "val"):
        for number in range(2):
            photo(root / f"images/10k/{split}/{number}.jpg", number, STREET)
            rgba = np.zeros((*STREET, 4), dtype=np.uint8)
            rgba[:20] = (30, 0, 0, 30)
            rgba[20:] = (7, 0, 0, 7)
            rgba[18:36, 40:70] = (35, 0, 0, 31)
            save(root / f"labels/pan_seg/bitmasks/{split}/{number}.png", rgba)
        box = {"category": "traffic light", "box2d": {"x1": 4, "y1": 4, "x2": 11, "y2": 19}}
        frames = [{"name": "0.jpg", "labels": [box]}, {"name": "elsewhere.jpg", "labels": [box]}]
        text(root / f"labels/det_20/det_{split}.json", json.dumps(frames))


def write_medical(root: Path) -> None:
    """A slice of 8 bits, and one of 16."""
    for split in ("train", "val"):
        rng = np.random.default_rng(0)
        save(root / f"{split}/images/case01/slice_001.png", rng.integers(0, 256, SIZE, dtype=np.uint8))
        save(root / f"{split}/images/case01/slice_002.png", rng.integers(0, 65536, SIZE, dtype=np.uint16))
        for number in (1, 2):
            save(root / f"{split}/masks/case01/slice_00{number}.png", filled(2, rest=1))
            save(root / f"{split}/instances/case01/slice_00{number}.png", filled(9))


def write_agriculture(root: Path) -> None:
    """Two images a split, one of them without a mask."""
    text(root / "data.yaml", "train: images/train\nval: images/val\nnames: [crop, weed]\n")
    for split in ("train", "val"):
        for number in range(2):
            photo(root / f"images/{split}/field_{number}.jpg", number)
            text(root / f"labels/{split}/field_{number}.txt", f"1 {POLYGON}\n0 0 0 0.2 0 0.2 0.2\n")
        save(root / f"masks/{split}/field_0.png", filled(2))


def write_retail(root: Path) -> None:
    """A shelf of 330 small products a split with a mask, and one without."""
    text(root / "data.yaml", "train: images/train\nval: images/val\nnames: [product, price tag]\n")
    rows = [f"0 {(x + 0.5) / 22:.4f} {(y + 0.5) / 15:.4f} 0.045 0.06" for x in range(22) for y in range(15)]
    for split in ("train", "val"):
        for number in range(2):
            photo(root / f"images/{split}/store_{number}.jpg", number)
            text(root / f"labels/{split}/store_{number}.txt", "\n".join(rows))
        save(root / f"masks/{split}/store_0.png", filled(1))


DATA: dict[str, Callable[[Path], None]] = {
    "nuclei.yaml": write_nuclei,
    "auto.yaml": write_nuclei,
    "formats/mixture.yaml": write_nuclei,
    "formats/packed.yaml": write_packed_nuclei,
    "formats/yolo.yaml": write_yolo,
    "formats/folder.yaml": write_folder,
    "formats/table.yaml": write_table,
    "formats/coco_instances.yaml": write_coco,
    "formats/coco_panoptic.yaml": write_coco,
    "formats/voc.yaml": write_voc,
    "formats/cityscapes.yaml": write_cityscapes,
    "formats/bdd100k.yaml": write_bdd100k,
    "applications/driving.yaml": write_cityscapes,
    "applications/medical.yaml": write_medical,
    "applications/agriculture.yaml": write_agriculture,
    "applications/retail.yaml": write_retail,
    "overlays/samples/camvid.yaml": write_camvid,
    "overlays/samples/nuclei.yaml": write_nuclei,
}
"""What writes a config's data below a folder, which is then its ``--data.root``; the other configs draw theirs."""
