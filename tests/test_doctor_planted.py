"""Every kind of fault, planted in a copy of a clean data set, is found at its place; the clean set has none."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ocrnet_pl.data.sources.coco import CocoInstances
from ocrnet_pl.doctor.check import Recipe, run_check
from tests.doctor_data import load, of_image, pixels_of, rolled, save, set_pixels, write_clean

Row = dict[str, str]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clean(tmp_path_factory.mktemp("clean"))


@pytest.fixture
def data(clean: Path, tmp_path: Path) -> Path:
    """A copy to plant faults in."""
    return Path(shutil.copytree(clean, tmp_path / "data"))


def recipe(root: Path, split: str, **more: Any) -> Recipe:
    arguments = {"images": split, "annotations": f"instances_{split}.json", "root": str(root)} | more
    return Recipe(lambda **changes: CocoInstances(**(arguments | changes)), CocoInstances, arguments)


def examine(root: Path, output: Path, **more: Any) -> list[Row]:
    run_check(
        {split: recipe(root, split) for split in ("train", "val")},
        output=output,
        fix=more.get("fix"),
        limit=more.get("limit"),
        input_size=(128, 128),
        workers=more.get("workers", 0),
        title="planted",
    )
    with (output / "findings.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def above_note(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["level"] != "note"]


def test_the_clean_set_has_no_fault(clean: Path, tmp_path: Path) -> None:
    assert examine(clean, tmp_path) == []


def big(content: dict[str, Any], index: int) -> int:
    """Return the place of the largest object of an image that its edges do not cut."""
    height, width = (content["images"][index][side] for side in ("height", "width"))
    inside = [
        i
        for i in of_image(content, index)
        if (b := content["annotations"][i]["bbox"])[0] > 1
        and b[1] > 1
        and b[0] + b[2] < width - 1
        and b[1] + b[3] < height - 1
    ]
    return max(inside, key=lambda i: content["annotations"][i]["area"])


def plant_partly_outside(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = big(content, 3)
    box = content["annotations"][place]["bbox"]
    content["annotations"][place]["bbox"] = [box[0], box[1], 140 - box[0], box[3]]
    return 3, f"annotations[{place}].bbox"


def plant_wholly_outside(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = of_image(content, 4)[0]
    content["annotations"][place]["bbox"] = [200, 20, 30, 30]
    return 4, f"annotations[{place}].bbox"


def plant_negative_corner(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = of_image(content, 4)[1]
    content["annotations"][place]["bbox"] = [-30, -20, 50, 50]
    return 4, f"annotations[{place}].bbox"


def plant_no_area(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = of_image(content, 5)[1]
    content["annotations"][place]["bbox"][2] = 0
    return 5, f"annotations[{place}].bbox"


def plant_negative_area(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = of_image(content, 6)[0]
    content["annotations"][place]["bbox"][3] *= -1
    return 6, f"annotations[{place}].bbox"


def plant_nan(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = of_image(content, 7)[0]
    content["annotations"][place]["bbox"][0] = float("nan")
    return 7, f"annotations[{place}].bbox"


def plant_duplicate(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = big(content, 8)
    content["annotations"].append(content["annotations"][place] | {"id": 9999})
    return 8, f"annotations[{len(content['annotations']) - 1}].bbox"


def plant_near_duplicate(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    entry = content["annotations"][big(content, 8)]
    x, y, width, height = entry["bbox"]
    other = {key: value for key, value in entry.items() if key != "segmentation"}
    content["annotations"].append(other | {"id": 9999, "bbox": [x + 0.4, y, width, height + 0.3]})
    return 8, f"annotations[{len(content['annotations']) - 1}].bbox"


def plant_box_without_mask(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = of_image(content, 9)[0]
    content["annotations"][place]["segmentation"] = []
    return 9, f"annotations[{place}].bbox"


def plant_box_on_background(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    """A box whose mask is elsewhere, on a spot where nothing is."""
    place = big(content, 10)
    taken = np.zeros((96, 128), dtype=bool)
    for i in of_image(content, 10):
        taken |= pixels_of(content["annotations"][i])
    x, y = next((x, y) for y in range(0, 84, 2) for x in range(0, 116, 2) if not taken[y : y + 12, x : x + 12].any())
    content["annotations"][place]["bbox"] = [x, y, 12, 12]
    return 10, f"annotations[{place}].bbox"


def plant_pixels_without_a_box(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = big(content, 10)
    box = content["annotations"][place]["bbox"]
    content["annotations"][place]["bbox"] = [box[0], box[1], box[2], box[3] * 0.4]
    return 10, ""


def plant_shift(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    for place in of_image(content, 11):
        entry = content["annotations"][place]
        set_pixels(entry, rolled(pixels_of(entry), 5, -3))
    return 11, ""


def plant_mask_of_another_size(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = of_image(content, 12)[0]
    set_pixels(content["annotations"][place], pixels_of(content["annotations"][place])[::2, ::2])
    return 12, f"annotations[{place}].segmentation"


def plant_image_of_another_size(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    path = root / "train" / content["images"][13]["file_name"]
    Image.open(path).resize((64, 48)).save(path)
    return 13, ""


def plant_unknown_category(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = of_image(content, 14)[0]
    content["annotations"][place]["category_id"] = 77
    return 14, f"annotations[{place}].category_id"


def plant_unknown_image(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    place = of_image(content, 15)[0]
    content["annotations"][place]["image_id"] = 12345
    return -1, f"annotations[{place}].image_id"


def plant_truncated(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    path = root / "train" / content["images"][16]["file_name"]
    path.write_bytes(path.read_bytes()[:1500])
    return 16, ""


def plant_no_image(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    (root / "train" / content["images"][17]["file_name"]).write_text("no image at all")
    return 17, ""


def plant_empty_file(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    (root / "train" / content["images"][17]["file_name"]).write_bytes(b"")
    return 17, ""


def plant_missing_image(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    (root / "train" / content["images"][18]["file_name"]).unlink()
    return 18, "images[18].file_name"


def plant_climbing_path(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    content["images"][18]["file_name"] = "../val/val_000.jpg"
    return -1, "images[18].file_name"


def plant_exif(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    """Turned by half, which no size tells."""
    return _turn(root, content, 3)


def plant_exif_quarter(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    return _turn(root, content, 6)


def plant_exif_with_turned_size(root: Path, content: dict[str, Any]) -> tuple[int, str]:
    """The size in the JSON is that of the turned image, the labels are those of the unturned one."""
    entry = content["images"][19]
    entry["height"], entry["width"] = entry["width"], entry["height"]
    boxes = [content["annotations"][place]["bbox"] for place in of_image(content, 19)]
    assert max(box[0] + box[2] for box in boxes) > 100
    for place in of_image(content, 19):
        content["annotations"][place]["segmentation"] = []
    return _turn(root, content, 6)


def _turn(root: Path, content: dict[str, Any], orientation: int) -> tuple[int, str]:
    path = root / "train" / content["images"][19]["file_name"]
    image = Image.open(path)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, quality=95, exif=exif)
    return 19, ""


Plant = Callable[[Path, dict[str, Any]], tuple[int, str]]


@pytest.mark.parametrize(
    ("plant", "kind", "level"),
    [
        (plant_partly_outside, "box_outside", "warning"),
        (plant_wholly_outside, "box_outside", "error"),
        (plant_negative_corner, "box_outside", "warning"),
        (plant_no_area, "box_degenerate", "error"),
        (plant_negative_area, "box_degenerate", "error"),
        (plant_nan, "box_degenerate", "error"),
        (plant_duplicate, "box_duplicate", "warning"),
        (plant_near_duplicate, "box_duplicate", "warning"),
        (plant_box_without_mask, "box_empty", "warning"),
        (plant_box_on_background, "box_empty", "warning"),
        (plant_pixels_without_a_box, "pixels_unboxed", "warning"),
        (plant_shift, "mask_shifted", "error"),
        (plant_mask_of_another_size, "size", "error"),
        (plant_image_of_another_size, "size", "error"),
        (plant_unknown_category, "unknown_id", "error"),
        (plant_unknown_image, "unknown_id", "error"),
        (plant_truncated, "image_unreadable", "error"),
        (plant_no_image, "image_unreadable", "error"),
        (plant_empty_file, "image_unreadable", "error"),
        (plant_missing_image, "image_missing", "error"),
        (plant_climbing_path, "annotation_broken", "error"),
        (plant_exif, "exif", "error"),
        (plant_exif_quarter, "exif", "warning"),
        (plant_exif_with_turned_size, "exif", "error"),
    ],
)
def test_a_planted_fault_is_found_at_its_place(data: Path, tmp_path: Path, plant: Plant, kind: str, level: str) -> None:
    content = load(data)
    names = [image["file_name"] for image in content["images"]]
    index, field = plant(data, content)
    save(data, "train", content)
    rows = above_note(examine(data, tmp_path / "out"))
    (found,) = [row for row in rows if row["kind"] == kind]
    assert (found["level"], found["split"]) == (level, "train")
    if field:
        assert found["field"] == field
        assert Path(found["annotations"]) == data / "instances_train.json"
    if index >= 0:
        assert Path(found["image"]) == data / "train" / names[index]
        # What follows from the fault is at the same image; nothing is found elsewhere.
        assert {Path(row["image"]).name for row in rows} == {names[index]}
    assert (tmp_path / "out" / "check.html").is_file()


def test_many_faults_of_one_file_are_all_named(data: Path, tmp_path: Path) -> None:
    """A reader stops at the first; the check goes on."""
    content = load(data)
    plants = [plant_unknown_category, plant_unknown_image, plant_nan, plant_missing_image, plant_no_area, plant_shift]
    for plant in plants:
        plant(data, content)
    save(data, "train", content)
    kinds = [row["kind"] for row in above_note(examine(data, tmp_path / "out"))]
    for kind, count in {"unknown_id": 2, "box_degenerate": 2, "image_missing": 1, "mask_shifted": 1}.items():
        assert kinds.count(kind) == count, kind


def corners(box: list[float]) -> list[float]:
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def center(box: list[float]) -> list[float]:
    return [box[0] + box[2] / 2, box[1] + box[3] / 2, box[2], box[3]]


def normalized(box: list[float]) -> list[float]:
    return [box[0] / 128, box[1] / 96, box[2] / 128, box[3] / 96]


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize(
    ("change", "text"),
    [(corners, "two corners (xyxy)"), (normalized, "normalized"), (center, "center and size")],
)
def test_a_wrong_box_format_is_guessed(
    data: Path, tmp_path: Path, change: Callable[[list[float]], list[float]], text: str, masks: bool
) -> None:
    if change is center and not masks:
        pytest.skip("without masks, centers look like corners of other objects")
    for split in ("train", "val"):
        content = load(data, split)
        for entry in content["annotations"]:
            entry["bbox"] = change(entry["bbox"])
            if not masks:
                del entry["segmentation"]
        save(data, split, content)
    run_check(
        {split: recipe(data, split, semantic=masks) for split in ("train", "val")},
        output=tmp_path / "out",
        fix=None,
        limit=None,
        input_size=(128, 128),
        workers=0,
        title="",
    )
    with (tmp_path / "out" / "findings.csv").open(newline="", encoding="utf-8") as file:
        found = [row for row in csv.DictReader(file) if row["kind"] == "box_format"]
    assert [row["split"] for row in found] == ["train", "val"]
    assert all(text in row["message"] for row in found)
    assert Path(found[0]["annotations"]) == data / "instances_train.json"


def test_the_same_image_in_two_splits_is_found(data: Path, tmp_path: Path) -> None:
    """One copy byte for byte, one written anew: smaller, brighter and compressed."""
    shutil.copyfile(data / "train" / "train_002.jpg", data / "val" / "val_004.jpg")
    with Image.open(data / "train" / "train_007.jpg") as image:
        brighter = Image.eval(image.resize((112, 84)).resize((128, 96)), lambda v: min(255, round(v * 1.1 + 4)))
        brighter.save(data / "val" / "val_006.jpg", quality=70)
    rows = examine(data, tmp_path / "out")
    (same,) = [row for row in rows if row["kind"] == "same_image"]
    assert (Path(same["image"]).name, same["level"]) == ("val_004.jpg", "error")
    assert "train_002.jpg" in same["message"]
    (similar,) = [row for row in rows if row["kind"] == "similar_image"]
    assert (Path(similar["image"]).name, similar["level"]) == ("val_006.jpg", "warning")
    assert "train_007.jpg" in similar["message"]


def test_dark_even_images_are_not_taken_for_one_another(tmp_path: Path) -> None:
    """Fluorescence: black but for a few spots and the light's fall-off, the same in all images."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:128, 0:128]
    falloff = 12 * np.exp(-((x - 64) ** 2 + (y - 64) ** 2) / 4000)
    root = write_clean(tmp_path / "data", lengths=(24, 10))
    for path in sorted(root.glob("*/*.jpg")):
        image = falloff + rng.normal(4, 1, falloff.shape)
        for cy, cx in rng.integers(10, 118, (4, 2)):
            image += 25 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 18)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).resize((128, 96)).save(path, quality=95)
    assert not [row for row in examine(root, tmp_path / "out") if row["kind"] in ("same_image", "similar_image")]


def test_categories_that_differ_are_an_error(data: Path, tmp_path: Path) -> None:
    content = load(data, "val")
    content["categories"][1]["name"] = "quadrangle"
    save(data, "val", content)
    (found,) = [row for row in examine(data, tmp_path / "out") if row["kind"] == "categories"]
    assert found["level"] == "error"
    assert "'square'" in found["message"] and "'quadrangle'" in found["message"]


def test_categories_in_another_order_are_an_error(data: Path, tmp_path: Path) -> None:
    content = load(data, "val")
    content["categories"].reverse()
    save(data, "val", content)
    (found,) = [row for row in examine(data, tmp_path / "out") if row["kind"] == "categories"]
    assert "order" in found["message"]


def test_a_class_with_few_examples_is_named(data: Path, tmp_path: Path) -> None:
    content = load(data)
    stars = [entry for entry in content["annotations"] if entry["category_id"] == 10 + 3 * 3]
    content["annotations"] = [e for e in content["annotations"] if e not in stars[4:]]
    save(data, "train", content)
    (found,) = above_note(examine(data, tmp_path / "out"))
    assert (found["kind"], found["field"]) == ("few_examples", "class star")
    assert "4 boxes" in found["message"]


def test_a_file_that_is_no_json_ends_the_split_but_not_the_check(data: Path, tmp_path: Path) -> None:
    (data / "instances_train.json").write_text("{")
    shutil.copyfile(data / "val" / "val_001.jpg", data / "val" / "copy.jpg")
    rows = examine(data, tmp_path / "out")
    (broken,) = [row for row in rows if row["kind"] == "annotation_broken"]
    assert Path(broken["annotations"]) == data / "instances_train.json"
    assert [Path(row["image"]).name for row in rows if row["kind"] == "unlisted"] == ["copy.jpg"]


def test_loading_processes_find_the_same(data: Path, tmp_path: Path) -> None:
    content = load(data)
    for plant in (plant_no_area, plant_duplicate, plant_truncated, plant_shift):
        plant(data, content)
    save(data, "train", content)
    alone = examine(data, tmp_path / "one")
    assert len(above_note(alone)) >= 4
    assert examine(data, tmp_path / "two", workers=2) == alone


def test_a_part_of_the_images_can_be_looked_at(data: Path, tmp_path: Path) -> None:
    (data / "train" / "train_023.jpg").write_bytes(b"")
    (data / "train" / "train_010.jpg").write_bytes(b"")
    rows = examine(data, tmp_path / "out", limit=2)
    assert [Path(row["image"]).name for row in rows] == ["train_023.jpg"]
