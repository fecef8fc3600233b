"""What a whole split shows: crowds, void, masks that miss their boxes or differ from the map, boxes a pixel off."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as reference

from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.coco import CocoInstances
from ocrnet_pl.data.sources.labelled_folder import LabelledFolder
from ocrnet_pl.data.sources.voc import PascalVoc
from ocrnet_pl.doctor.check import check
from ocrnet_pl.doctor.findings import FindingLog
from ocrnet_pl.doctor.result import Recipe

HEIGHT, WIDTH = 40, 60
BOXES = [(5, 6, 17, 26), (30, 12, 54, 24)]


def _findings(tmp_path: Path, source: type[Source], **arguments: Any) -> list[Mapping[str, str]]:
    def make(**changes: Any) -> Source:
        return source(**arguments | changes)

    with (tmp_path / "findings.csv").open("w", newline="") as file:
        recipes = {"train": Recipe(make, source, arguments)}
        options: dict[str, Any] = {"input_size": (64, 64), "object_limit": None, "workers": 0, "limit": None}
        check(recipes, **options, log=FindingLog(file), folder=tmp_path)
    with (tmp_path / "findings.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _of(rows: list[Mapping[str, str]], kind: str) -> list[tuple[str, str]]:
    return [(row["level"], row["message"]) for row in rows if row["kind"] == kind]


def _mask(box: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = 1
    return mask


def _pictures(root: Path, count: int = 3) -> None:
    (root / "images").mkdir(exist_ok=True)
    for number in range(count):
        pixels = np.full((HEIGHT, WIDTH, 3), 40 + number, dtype=np.uint8)
        for box in BOXES:
            pixels[_mask(box) > 0] = 200
        Image.fromarray(pixels).save(root / f"images/{number}.png")


def _coco(root: Path, **values: Any) -> dict[str, Any]:
    _pictures(root)
    annotations = []
    for number in range(3):
        for category, box in enumerate(BOXES):
            counts = reference.encode(np.asfortranarray(_mask(box)))["counts"].decode()
            entry = {
                "image_id": number,
                "category_id": category,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts},
            }
            annotations.append(entry | {"bbox": [*box[:2], box[2] - box[0], box[3] - box[1]]} | values)
    images = [{"id": n, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for n in range(3)]
    categories = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def _check_coco(root: Path, content: dict[str, Any], **options: Any) -> list[Mapping[str, str]]:
    (root / "a.json").write_text(json.dumps(content))
    return _findings(root, CocoInstances, images="images", annotations="a.json", root=root, **options)


NEW = ("only_crowds", "only_void", "masks_elsewhere", "masks_disagree", "first_pixel")


def test_a_sound_set_has_none_of_these(tmp_path: Path) -> None:
    assert not [row for row in _check_coco(tmp_path, _coco(tmp_path)) if row["kind"] in NEW]


def test_crowds_only(tmp_path: Path) -> None:
    content = _coco(tmp_path, iscrowd=1)
    ((level, message),) = _of(_check_coco(tmp_path, content), "only_crowds")
    assert level == "error" and message.startswith("6 of 6 objects are crowds")
    assert not _of(_check_coco(tmp_path, content, crowds="objects"), "only_crowds")
    content = _coco(tmp_path)
    for entry in content["annotations"][1::2]:
        entry["ignore"] = 1
    ((level, message),) = _of(_check_coco(tmp_path, content), "only_crowds")
    assert level == "error" and "every object of 'dog'" in message


def test_runs_along_the_rows(tmp_path: Path) -> None:
    content = _coco(tmp_path)
    for entry, box in zip(content["annotations"], BOXES * 3, strict=True):
        flat = _mask(box).ravel()
        edges = np.flatnonzero(np.diff(flat)) + 1
        entry["segmentation"]["counts"] = np.diff([0, *edges, flat.size]).tolist()
    ((level, message),) = _of(_check_coco(tmp_path, content), "masks_elsewhere")
    assert level == "error" and "6 of 6 boxes" in message and "fit by 100% if the runs of the masks go along" in message


def test_masks_of_other_objects(tmp_path: Path) -> None:
    content = _coco(tmp_path)
    for entry, other in zip(content["annotations"], content["annotations"][::-1], strict=True):
        entry["bbox"] = [1, 30, 9, 9] if entry["category_id"] else other["bbox"]
    ((level, message),) = _of(_check_coco(tmp_path, content), "masks_elsewhere")
    assert level == "error" and "along the rows" not in message


def _save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(values).save(path)


def test_objects_that_are_void(tmp_path: Path) -> None:
    _pictures(tmp_path)
    for number in range(3):
        _save(tmp_path / f"masks/{number}.png", _mask(BOXES[0]) * 255)
    options: dict[str, Any] = {"images": "images", "masks": "masks", "root": tmp_path}
    rows = _findings(tmp_path, LabelledFolder, **options, semantic_names=["background", "object"])
    assert _of(rows, "only_void") == [
        ("error", "255, which is ignored, holds 10% of the pixels, and 'object' has none")
    ]
    rows = _findings(tmp_path, LabelledFolder, **options, semantic_names={0: "background", 255: "object"})
    assert not _of(rows, "only_void")


@pytest.mark.parametrize(("thin", "share"), [(1, "8%"), (6, "50%"), (12, None)])
def test_coarse_masks_over_a_fine_map(tmp_path: Path, thin: int, share: str | None) -> None:
    """The masks are whole boxes, the pixels of the class only some of their columns."""
    _pictures(tmp_path)
    for number in range(3):
        x, y, _, bottom = BOXES[0]
        _save(tmp_path / f"maps/{number}.png", _mask(BOXES[0]))
        _save(tmp_path / f"masks/{number}.png", _mask((x, y, x + thin, bottom)))
    (tmp_path / "boxes.csv").write_text(
        "image,x1,y1,x2,y2,label\n" + "".join(f"{n},{','.join(map(str, BOXES[0]))},cat\n" for n in range(3))
    )
    options: dict[str, Any] = {"images": "images", "classes": ["cat"], "masks": "masks", "boxes": "boxes.csv"}
    options |= {"instances": "maps", "semantic_names": ["grass", "cat"], "root": tmp_path}
    found = _of(_findings(tmp_path, LabelledFolder, **options), "masks_disagree")
    assert [level for level, _ in found] == ([] if share is None else ["warning"])
    if share is not None:
        counting = 3 if thin == 6 else 0
        assert f"by {share}; for {counting} of 3 it is at least 50 %" in found[0][1]


def _voc(root: Path, shift: int, bad: str = "") -> dict[str, Any]:
    _pictures(root, 12)
    (root / "xml").mkdir(exist_ok=True)
    for number in range(12):
        objects = "".join(
            f"<object><name>cat</name><bndbox><xmin>{x0 + shift}</xmin><ymin>{y0 + shift}</ymin><xmax>{x1}</xmax>"
            f"<ymax>{y1}</ymax></bndbox></object>"
            for x0, y0, x1, y1 in BOXES
        )
        (root / f"xml/{number}.xml").write_text(f"<annotation>{objects}{bad if number == 1 else ''}</annotation>")
    folders = {"images": "images", "annotations": "xml", "class_masks": None, "object_masks": None}
    return folders | {"classes": ["cat"], "root": root}


@pytest.mark.parametrize("shift", [0, 1])
def test_boxes_that_are_a_pixel_off(tmp_path: Path, shift: int) -> None:
    options = _voc(tmp_path, shift)
    assert not _of(_findings(tmp_path, PascalVoc, **options, first_pixel=shift), "first_pixel")
    ((level, message),) = _of(_findings(tmp_path, PascalVoc, **options, first_pixel=1 - shift), "first_pixel")
    assert level == "warning" and f"with `first_pixel: {shift}` as with {1 - shift}" in message


def test_bad_objects_of_voc_are_all_named(tmp_path: Path) -> None:
    bad = "<object><name>mouse</name></object><object><name>cat</name><bndbox><xmin>x</xmin></bndbox></object>"
    options = _voc(tmp_path, 1, bad)
    shutil.copy(tmp_path / "images/10.png", tmp_path / "images/11.png")
    rows = _findings(tmp_path, PascalVoc, **options)
    found = [
        (row["kind"], row["field"], Path(row["annotations"]).name) for row in rows if "would stop" in row["message"]
    ]
    assert found == [
        ("unknown_id", "object[2].name", "1.xml"),
        ("annotation_broken", "object[3].bndbox.xmin", "1.xml"),
    ]
    # The rest is examined.
    assert len(_of(rows, "image_repeated")) == 1
