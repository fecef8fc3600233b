"""COCO instances as tools really write them: read as they are meant, or refused in a line that says how to go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as reference

from ocrnet_pl.data.readers import coco_index
from ocrnet_pl.data.sources.coco import CocoInstances
from ocrnet_pl.data.sources.coco_panoptic import CocoPanoptic
from ocrnet_pl.errors import DataError

HEIGHT, WIDTH = 20, 30
CAT, DOG = [2, 3, 10, 6], [15, 4, 8, 12]

Change = Callable[[dict[str, Any]], object]


def _polygon(box: list[int]) -> list[int]:
    x, y, width, height = box
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def _runs(box: list[int]) -> dict[str, Any]:
    x, y, width, height = box
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    return {"size": [HEIGHT, WIDTH], "counts": reference.encode(mask)["counts"].decode()}


def _content() -> dict[str, Any]:
    images = [{"id": n, "file_name": f"{n}.jpg", "height": HEIGHT, "width": WIDTH} for n in (1, 2)]
    annotations = [
        {"image_id": n, "category_id": category, "bbox": list(box), "iscrowd": 0, "segmentation": [_polygon(box)]}
        for n in (1, 2)
        for category, box in ((1, CAT), (2, DOG))
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def _open(root: Path, change: Change = lambda content: None, **options: Any) -> CocoInstances:
    (root / "train").mkdir(exist_ok=True)
    for number in (1, 2):
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / f"train/{number}.jpg")
    content = _content()
    change(content)
    (root / "a.json").write_text(json.dumps(content))
    return CocoInstances("train", "a.json", root=root, **options)


def _said(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


def _as_text(content: dict[str, Any]) -> None:
    for key in ("images", "annotations", "categories"):
        content[key] = [
            {k: str(v) if isinstance(v, int) else [str(part) for part in v] if k == "bbox" else v for k, v in e.items()}
            for e in content[key]
        ]


def _each(key: str, **values: Any) -> Change:
    return lambda content: [entry.update(values) for entry in content[key]]


def _ids_of_images(make: Callable[[int], Any]) -> Change:
    return lambda content: [entry.update(id=make(entry["id"])) for entry in content["images"]]


def _pairs(polygons: list[list[int]]) -> list[Any]:
    return [np.reshape(polygon, (-1, 2)).tolist() for polygon in polygons]


def _without(key: str, *fields: str) -> Change:
    return lambda content: [entry.pop(field) for entry in content[key] for field in fields]


def _named(make: Callable[[str], str]) -> Change:
    return lambda content: [entry.update(file_name=make(entry["file_name"])) for entry in content["images"]]


def _floats(content: dict[str, Any]) -> None:
    for key, field in (("images", "id"), ("categories", "id"), ("annotations", "image_id")):
        for entry in content[key]:
            entry[field] = float(entry[field])


def _entry_per_object(content: dict[str, Any]) -> None:
    images = {entry["id"]: entry for entry in content["images"]}
    content["images"] = []
    for number, annotation in enumerate(content["annotations"], 10):
        content["images"].append(images[annotation["image_id"]] | {"id": number})
        annotation["image_id"] = number


def _runs_as_bytes(content: dict[str, Any]) -> None:
    for entry in content["annotations"]:
        runs = _runs(entry["bbox"])
        entry["segmentation"] = runs | {"counts": str(runs["counts"].encode())}


@pytest.mark.parametrize(
    "change",
    [
        _as_text,
        _floats,
        _ids_of_images(str),
        _without("images", "height", "width"),
        _each("images", height=0, width=0),
        _without("annotations", "bbox"),
        _each("annotations", bbox=[0, 0, 0, 0]),
        _each("annotations", iscrowd="0"),
        _each("annotations", iscrowd=False, ignore=0.0),
        _named(lambda name: f"train/{name}"),
        _named(lambda name: f"D:\\photos\\train\\{name}"),
        _named(lambda name: f"/home/me/{name}"),
        _named(lambda name: name.upper()),
        _entry_per_object,
        _runs_as_bytes,
        lambda content: [e.update(segmentation=e["segmentation"][0]) for e in content["annotations"]],
        lambda content: [e.update(segmentation=_pairs(e["segmentation"])) for e in content["annotations"]],
    ],
)
def test_it_is_read_as_it_is_meant(tmp_path: Path, change: Change) -> None:
    plain = _open(tmp_path)
    source = _open(tmp_path, change)
    assert len(source) == 2 and source.taxonomy == plain.taxonomy
    for index in range(2):
        sample, expected = source[index], plain[index]
        assert sample.boxes.tolist() == expected.boxes.tolist() == [[2, 3, 12, 9], [15, 4, 23, 16]]
        assert sample.labels.tolist() == expected.labels.tolist() and sample.crowd.tolist() == [False, False]
        assert np.array_equal(sample.instances, expected.instances)
        assert np.array_equal(sample.semantic, expected.semantic)


@pytest.mark.parametrize("runs", [False, True])
def test_both_readers_take_the_box_of_a_mask_where_there_is_none(tmp_path: Path, runs: bool) -> None:
    def change(content: dict[str, Any]) -> None:
        for entry in content["annotations"]:
            entry["segmentation"] = _runs(entry["bbox"]) if runs else entry["segmentation"]
            entry["bbox"] = [5, 5, 0, 0]

    source = _open(tmp_path, change)
    fast = coco_index.read_fast(tmp_path / "a.json", coco_index.FolderIndex(tmp_path / "train", "images"))
    assert fast is not None
    assert fast.boxes.tolist() == [source[i].boxes.tolist()[k] for i in range(2) for k in range(2)]
    assert source[0].boxes.tolist() == [[2, 3, 12, 9], [15, 4, 23, 16]]


def test_crowds_are_said_and_can_be_objects(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def brush(content: dict[str, Any]) -> None:
        _each("annotations", iscrowd=1)(content)
        content["annotations"][1]["ignore"] = 1

    source = _open(tmp_path, brush)
    assert source[0].crowd.tolist() == [True, True]
    assert "a.json: 4 of 4 objects are crowds" in _said(caplog) and "crowds: objects" in _said(caplog)
    # What is to be ignored is no target in any case.
    assert _open(tmp_path, brush, crowds="objects")[0].crowd.tolist() == [False, True]
    with pytest.raises(ValueError, match="crowds must be"):
        _open(tmp_path, crowds="none")


def test_one_class_of_crowds_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _open(tmp_path, lambda content: content["annotations"][3].update(iscrowd=1))
    assert not caplog.records
    _open(tmp_path, lambda c: [entry.update(iscrowd=1) for entry in c["annotations"] if entry["category_id"] == 2])
    assert "every object of 'dog' is a crowd" in _said(caplog)


@pytest.mark.parametrize(
    ("first", "left_out"),
    [
        ({"name": "_background_"}, True),
        ({"name": "Background"}, True),
        ({"name": "pets", "supercategory": "none"}, True),
        ({"name": "cat", "supercategory": "none"}, False),
        ({"name": "mouse"}, False),
    ],
)
def test_a_category_that_stands_for_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, first: dict[str, Any], left_out: bool
) -> None:
    def change(content: dict[str, Any]) -> None:
        for category in content["categories"]:
            category["supercategory"] = "pets"
        content["categories"].insert(0, {"id": 0} | first)

    names = [category.name for category in _open(tmp_path, change).taxonomy.detection_categories]
    assert names == (["cat", "dog"] if left_out else list(dict.fromkeys([first["name"], "cat", "dog"])))
    assert ("is left out" in _said(caplog) or "are both" in _said(caplog)) == (first["name"] != "mouse")

    def used(content: dict[str, Any]) -> None:
        change(content)
        content["annotations"][0]["category_id"] = 0

    if first["name"] != "Background":
        assert first["name"] in [c.name for c in _open(tmp_path, used).taxonomy.detection_categories]


def test_categories_of_one_name_are_one_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def change(content: dict[str, Any]) -> None:
        content["categories"].append({"id": 7, "name": "cat"})
        content["annotations"][2]["category_id"] = 7

    source = _open(tmp_path, change)
    assert [category.name for category in source.taxonomy.detection_categories] == ["cat", "dog"]
    assert source[1].labels.tolist() == [0, 1] and "categories 1 and 7 are both named 'cat'" in _said(caplog)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_each("annotations", iscrowd="maybe"), "annotations[0].iscrowd: expected 0 or 1, found 'maybe'"),
        (_named(lambda name: f"x{name}.jpeg"), "there is no file 'x1.jpg.jpeg'"),
        (_named(lambda name: name.replace("1", "11")), "the nearest is '1.jpg'"),
        (_each("images", neg_category_ids=[2]), "each image was labelled for some of the classes only; read it with"),
        (_each("annotations", bbox=None, segmentation=None), "annotations[0].bbox: expected 4 finite numbers"),
        (lambda c: c["images"].append(c["images"][0] | {"id": 5, "width": 31}), "images[2].file_name: '1.jpg' of 31 x"),
        (lambda c: c["images"][1].update(file_name="train/1.jpg"), "images[1].file_name: 'train/1.jpg' of 30 x 20 is"),
        (
            lambda c: c["annotations"][0].update(segmentation={"size": [30, 20], "counts": [600]}),
            "write [height, width]",
        ),
    ],
)
def test_it_is_refused_in_a_line_that_helps(tmp_path: Path, change: Change, words: str) -> None:
    with pytest.raises(DataError) as error:
        _open(tmp_path, change)
    assert words in str(error.value) and "a.json" in str(error.value) and "\n" not in str(error.value)


def test_panoptic_flags_and_names(tmp_path: Path) -> None:
    _open(tmp_path)
    colors = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    colors[3:9, 2:12, 0] = 5
    (tmp_path / "masks").mkdir()
    Image.fromarray(colors).save(tmp_path / "masks/1.PNG")
    segments = [{"id": "5", "category_id": 1.0, "bbox": CAT, "iscrowd": "0"}]
    content = {
        "images": [{"id": 1, "file_name": "train\\1.jpg"}],
        "categories": [{"id": "1", "name": "cat", "isthing": "1"}, {"id": 2, "name": "sky", "isthing": "0"}],
        "annotations": [{"image_id": "1", "file_name": "1.png", "segments_info": segments}],
    }
    (tmp_path / "b.json").write_text(json.dumps(content))
    source = CocoPanoptic("train", "b.json", "masks", root=tmp_path)
    assert source[0].boxes.tolist() == [[2, 3, 12, 9]] and source[0].crowd.tolist() == [False]
    assert [category.is_thing for category in source.taxonomy.categories] == [False, True]
