"""Every kind of fault, planted in a copy of a clean data set, is found at its place; the clean set has none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ocrnet_pl.doctor import check
from tests.helpers.doctor_data import (
    above_note,
    examine,
    findings,
    load,
    of_image,
    recipe,
    run,
    save,
    write_clean,
)
from tests.helpers.doctor_plants import (
    plant_box_on_background,
    plant_box_without_mask,
    plant_climbing_path,
    plant_duplicate,
    plant_empty_file,
    plant_exif,
    plant_exif_quarter,
    plant_exif_with_turned_size,
    plant_image_of_another_size,
    plant_mask_of_another_size,
    plant_missing_image,
    plant_nan,
    plant_near_duplicate,
    plant_negative_area,
    plant_negative_corner,
    plant_no_area,
    plant_no_image,
    plant_partly_outside,
    plant_pixels_without_a_box,
    plant_shift,
    plant_truncated,
    plant_unknown_category,
    plant_unknown_image,
    plant_wholly_outside,
)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clean(tmp_path_factory.mktemp("clean"))


@pytest.fixture
def data(clean: Path, tmp_path: Path) -> Path:
    """A copy to plant faults in."""
    return Path(shutil.copytree(clean, tmp_path / "data"))


def test_the_clean_set_has_no_fault(clean: Path, tmp_path: Path) -> None:
    assert examine(clean, tmp_path) == []


Plant = Callable[[Path, dict[str, Any]], tuple[int, str]]


@pytest.mark.parametrize(
    ("plant", "kind", "level"),
    [
        pytest.param(plant_partly_outside, "box_outside", "warning", marks=pytest.mark.slow),
        (plant_wholly_outside, "box_outside", "error"),
        pytest.param(plant_negative_corner, "box_outside", "warning", marks=pytest.mark.slow),
        (plant_no_area, "box_degenerate", "error"),
        pytest.param(plant_negative_area, "box_degenerate", "error", marks=pytest.mark.slow),
        pytest.param(plant_nan, "box_degenerate", "error", marks=pytest.mark.slow),
        (plant_duplicate, "box_duplicate", "warning"),
        pytest.param(plant_near_duplicate, "box_duplicate", "warning", marks=pytest.mark.slow),
        (plant_box_without_mask, "box_empty", "warning"),
        pytest.param(plant_box_on_background, "box_empty", "warning", marks=pytest.mark.slow),
        (plant_pixels_without_a_box, "pixels_unboxed", "warning"),
        (plant_shift, "mask_shifted", "error"),
        pytest.param(plant_mask_of_another_size, "size", "error", marks=pytest.mark.slow),
        (plant_image_of_another_size, "size", "error"),
        (plant_unknown_category, "unknown_id", "error"),
        pytest.param(plant_unknown_image, "unknown_id", "error", marks=pytest.mark.slow),
        pytest.param(plant_truncated, "image_unreadable", "error", marks=pytest.mark.slow),
        pytest.param(plant_no_image, "image_unreadable", "error", marks=pytest.mark.slow),
        (plant_empty_file, "image_unreadable", "error"),
        (plant_missing_image, "image_missing", "error"),
        (plant_climbing_path, "annotation_broken", "error"),
        (plant_exif, "exif", "error"),
        pytest.param(plant_exif_quarter, "exif", "warning", marks=pytest.mark.slow),
        pytest.param(plant_exif_with_turned_size, "exif", "error", marks=pytest.mark.slow),
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
    run({split: recipe(data, split, semantic=masks) for split in ("train", "val")}, tmp_path / "out")
    found = [row for row in findings(tmp_path / "out") if row["kind"] == "box_format"]
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


def test_an_image_is_compared_even_if_its_labels_are_at_fault(data: Path, tmp_path: Path) -> None:
    """The sizes in the annotation file are wrong, so the reader refuses both; the images are all the same."""
    shutil.copyfile(data / "train" / "train_002.jpg", data / "val" / "val_004.jpg")
    with Image.open(data / "train" / "train_007.jpg") as image:
        image.save(data / "val" / "val_006.jpg", quality=60)
    content = load(data, "val")
    for index in (4, 6):
        content["images"][index]["height"] += 1
        for place in of_image(content, index):
            content["annotations"][place]["segmentation"] = []
    save(data, "val", content)
    found = examine(data, tmp_path / "out")
    assert [Path(row["image"]).name for row in found if row["kind"] == "size"] == ["val_004.jpg", "val_006.jpg"]
    assert [Path(row["image"]).name for row in found if row["kind"] == "same_image"] == ["val_004.jpg"]
    assert [Path(row["image"]).name for row in found if row["kind"] == "similar_image"] == ["val_006.jpg"]
    # The path stands in a column of its own.
    assert not any(str(data) in row["message"] for row in found if row["kind"] == "size")


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


def test_loading_processes_find_the_same(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "IMAGES_PER_WORKER", 8)
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
