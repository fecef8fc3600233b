"""Exports of annotation tools for the configs that read them: a cat on grass, two small images a split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.config_data import BOX, SIZE, filled, photo, text
from tests.helpers.map_files import save

CORNERS = [[BOX[0], BOX[1]], [BOX[2], BOX[1]], [BOX[2], BOX[3]], [BOX[0], BOX[3]]]
GRASS = [[0, 40], [64, 40], [64, 48], [0, 48]]
SPLITS = ("train", "val")


def _colored(values: np.ndarray, *colors: tuple[int, int, int]) -> np.ndarray:
    return np.array([(0, 0, 0), *colors], dtype=np.uint8)[values]


def _labelme(root: Path) -> None:
    for split in SPLITS:
        for stem in "ab":
            photo(root / split / f"{stem}.jpg")
            shapes = [{"label": "cat", "points": CORNERS}, {"label": "grass", "points": GRASS}]
            text(root / split / f"{stem}.json", json.dumps({"imagePath": f"{stem}.jpg", "shapes": shapes}))


def _cvat(root: Path) -> None:
    entries = ""
    for subset in ("Train", "Validation"):
        for stem in "ab":
            name = f"{subset}/{stem}.jpg"
            photo(root / "images" / name)
            points = ";".join(f"{x},{y}" for x, y in CORNERS)
            shape = f'<polygon label="cat" points="{points}"/>'
            entries += f'<image name="{name}" subset="{subset}" width="64" height="48">{shape}</image>'
    text(root / "annotations.xml", f"<annotations>{entries}</annotations>")


def _via(root: Path) -> None:
    for split in SPLITS:
        content = {}
        for stem in "ab":
            photo(root / split / f"{stem}.jpg")
            columns, rows = zip(*CORNERS, strict=True)
            shape = {"name": "polygon", "all_points_x": columns, "all_points_y": rows}
            regions = [{"shape_attributes": shape, "region_attributes": {"type": "cat"}}]
            content[stem] = {"filename": f"{stem}.jpg", "regions": regions}
        text(root / split / "via.json", json.dumps(content))


def _label_studio(root: Path) -> None:
    for split in SPLITS:
        tasks: list[dict[str, Any]] = []
        for stem in "ab":
            photo(root / f"images/{split}_{stem}.jpg")
            points = [[x * 100 / SIZE[1], y * 100 / SIZE[0]] for x, y in CORNERS]
            value = {"points": points, "polygonlabels": ["cat"]}
            result = {"type": "polygonlabels", "value": value, "original_width": 64, "original_height": 48}
            tasks.append({"data": {"image": f"/x/{split}_{stem}.jpg"}, "annotations": [{"result": [result]}]})
        text(root / f"{split}.json", json.dumps(tasks))


def _suffixed(root: Path) -> None:
    text(root / "class_dict.csv", "name,r,g,b\nroad,0,0,0\ncar,64,0,128\n")
    for split in SPLITS:
        for stem in ("0001", "0002"):
            photo(root / split / f"{stem}.png")
            save(root / f"{split}_labels/{stem}_L.png", _colored(filled(1), (64, 0, 128)))


def _cvat_masks(root: Path) -> None:
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83::\ndog:1,2,3::\n")
    for split in SPLITS:
        for stem in "ab":
            photo(root / f"JPEGImages/{split}/{stem}.jpg")
            save(root / f"SegmentationClass/{split}/{stem}.png", _colored(filled(1), (250, 50, 83)))
            save(root / f"SegmentationObject/{split}/{stem}.png", _colored(filled(1), (128, 0, 0)))


def _object_masks(root: Path) -> None:
    for split in SPLITS:
        for stem in "ab":
            photo(root / f"{split}/images/{stem}.jpg")
            save(root / f"{split}/masks/{stem}_cat_0.png", filled(255))


def _lvis(root: Path) -> None:
    for split in SPLITS:
        images, annotations = [], []
        for number in range(2):
            photo(root / f"{split}2017/{number}.jpg")
            size = {"height": SIZE[0], "width": SIZE[1]}
            images.append({"id": number, "file_name": f"{number}.jpg", "neg_category_ids": [2]} | size)
            box = [BOX[0], BOX[1], BOX[2] - BOX[0], BOX[3] - BOX[1]]
            annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": box})
        categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        text(root / f"lvis_v1_{split}.json", json.dumps(content))


def _open_images(root: Path) -> None:
    text(root / "class-descriptions-boxable.csv", "/m/1,Cat\n/m/2,Dog\n")
    for folder, split in (("train", "train"), ("validation", "validation")):
        rows = ""
        for stem in "ab":
            photo(root / folder / f"{stem}.jpg")
            rows += f"{stem},/m/1,0.3125,0.7813,0.2083,0.625,0\n"
        text(root / f"{split}-annotations-bbox.csv", f"ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n{rows}")
        labels = f"{split}-annotations-human-imagelabels-boxable.csv"
        text(root / labels, "ImageID,LabelName,Confidence\na,/m/2,0\n")


def _yolo_names(root: Path) -> None:
    text(root / "classes.txt", "cat\ndog\n")
    for split in SPLITS:
        for stem in "ab":
            photo(root / f"images/{split}/{stem}.jpg")
            text(root / f"labels/{split}/{stem}.txt", "0 0.5 0.4 0.4 0.4\n")


TOOLS: dict[str, Callable[[Path], None]] = {
    "labelme": _labelme,
    "cvat_images": _cvat,
    "via": _via,
    "label_studio": _label_studio,
    "suffixed_masks": _suffixed,
    "cvat_masks": _cvat_masks,
    "object_masks": _object_masks,
    "lvis": _lvis,
    "open_images": _open_images,
    "yolo_names": _yolo_names,
}
"""What writes the data of a config in ``configs/formats/`` and of the page of its name."""
