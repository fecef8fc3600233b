"""Folders of all formats are recognised, and what is said of them opens them."""

from __future__ import annotations

import contextlib
import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ocrnet_pl.cli.first_config import opened
from ocrnet_pl.data.guessing.recognise import arranged, recognise
from ocrnet_pl.errors import DataError
from tests.helpers import config_data
from tests.helpers.drawn_data import picture, write_json
from tests.helpers.fuzzing import bounded, damage
from tests.helpers.map_files import save
from tests.helpers.small_sets import SETS
from tests.helpers.tool_data import TOOLS

WRITERS = TOOLS | {
    "yolo": config_data.write_yolo,
    "folder": config_data.write_folder,
    "table": config_data.write_table,
    "coco_instances": config_data.write_nuclei,
    "voc": config_data.write_voc,
    "cityscapes": config_data.write_cityscapes,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_is_recognised_and_opened(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    guess = recognise(tmp_path)
    assert guess.page == name and guess.reason
    sources = arranged(guess)
    assert list(sources) == ["train", "val"]
    for kind, options in sources.values():
        source = opened(kind, options, tmp_path)
        samples = [source[index] for index in range(len(source))]
        assert samples and all(sample.supervision.detection.any() or sample.semantic is not None for sample in samples)


def test_a_folder_without_splits_is_divided(tmp_path: Path) -> None:
    for number in range(5):
        picture(tmp_path / f"{number}.jpg")
        corners = [[2, 3], [7, 3], [7, 9]]
        write_json(tmp_path / f"{number}.json", {"shapes": [{"label": "cat", "points": corners}]})
    sources = arranged(recognise(tmp_path))
    assert [len(opened(*source, tmp_path)) for source in sources.values()] == [4, 1]


def test_masks_without_names_are_named_by_their_values(tmp_path: Path) -> None:
    values = np.zeros((24, 40), dtype=np.uint8)
    values[3:9, 2:7], values[0] = 4, 255
    for split in ("train", "valid"):
        config_data.photo(tmp_path / split / "a.jpg", size=(24, 40))
        Image.fromarray(values).save(tmp_path / split / "a_mask.png")
    guess = recognise(tmp_path)
    assert guess.page == "suffixed_masks" and "semantic_names" in guess.missing
    sources = arranged(guess)
    assert sources["val"][1]["semantic_names"] == {0: "background", 4: "class_4"}
    semantic = opened(*sources["train"], tmp_path)[0].semantic
    assert semantic is not None and np.array_equal(semantic, np.select([values == 0, values == 4], [0, 1], 255))


@pytest.mark.parametrize(
    ("separator", "encoding"), [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-16")], ids=["comma", "semicolon", "tab"]
)
def test_boxes_of_a_spreadsheet(tmp_path: Path, separator: str, encoding: str) -> None:
    """Cells with commas are in quotes, and each split lacks a class of the other."""
    for split, label in (("train", "cat, or dog"), ("val", "cow")):
        picture(tmp_path / split / "a.jpg")
        table = io.StringIO(newline="")
        csv.writer(table, delimiter=separator).writerows(
            [["filename", "class", "xmin", "ymin", "xmax", "ymax"], ["a.jpg", label, 1, 2, 7, 9]]
        )
        (tmp_path / f"{split}.csv").write_text(table.getvalue(), encoding=encoding)
    sources = arranged(recognise(tmp_path))
    assert [options["classes"] for _, options in sources.values()] == [["cat, or dog", "cow"]] * 2
    assert opened(*sources["val"], tmp_path)[0].labels.tolist() == [1]


def test_maps_beside_a_csv_of_boxes_are_read_too(tmp_path: Path) -> None:
    config_data.write_folder(tmp_path)
    guess = recognise(tmp_path)
    assert "semantic_names" in guess.missing
    sample = opened(*arranged(guess)["train"], tmp_path)[0]
    assert len(sample.labels) == 1 and sample.semantic is not None


def test_names_of_classes_in_xml_are_read_as_xml(tmp_path: Path) -> None:
    for number in range(2):
        picture(tmp_path / f"images/{number}.jpg")
        box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>7</xmax><ymax>9</ymax></bndbox>"
        names = ("<name>rock &amp; roll</name>", "<name ><![CDATA[a<b]]></name>")
        objects = "".join(f"<object>{name}{box}</object>" for name in names)
        size = "<size><width>10</width><height>12</height><depth>3</depth></size>"
        config_data.text(tmp_path / f"labels/{number}.xml", f"<annotation>{size}{objects}</annotation>")
    _, options = recognise(tmp_path).parts[0][1:]
    assert options["classes"] == ["a<b", "rock & roll"]


def test_semantic_pngs_beside_a_json(tmp_path: Path) -> None:
    config_data.write_nuclei(tmp_path)
    for split in ("train", "val"):
        for number in (1, 2):
            save(tmp_path / f"semantic_{split}/{number}.png", np.zeros((64, 80), dtype=np.uint8))
    for names in ([{"id": 0, "name": "glass"}, {"id": 1, "name": "nucleus"}], ["glass", "nucleus"]):
        write_json(tmp_path / "semantic_names.json", names)
        sources = arranged(recognise(tmp_path))
        assert [options["semantic_masks"] for _, options in sources.values()] == ["semantic_train", "semantic_val"]
        taxonomy = opened(*sources["val"], tmp_path).taxonomy
        assert [category.name for category in taxonomy.semantic_categories] == ["glass", "nucleus"]


def test_instance_maps_and_a_folder_of_masks_for_each_image(tmp_path: Path) -> None:
    for number in range(4):
        ids = np.zeros((24, 40), dtype=np.uint16)
        for value in range(1, 5 + number):
            ids[2 * value % 12, value] = value
        config_data.photo(tmp_path / f"maps/images/{number}.png", number, (24, 40))
        (tmp_path / "maps/labels").mkdir(exist_ok=True)
        Image.fromarray(ids).save(tmp_path / f"maps/labels/{number}.png")
        picture(tmp_path / f"many/{number}/images/{number}.png")
        picture(tmp_path / f"many/{number}/masks/x.png")
    _, options = arranged(recognise(tmp_path / "maps"))["train"]
    assert options["source"]["init_args"]["instances"] == "labels"
    assert recognise(tmp_path / "many").page == "object_masks"


def test_labels_of_images_outside_of_the_folder_of_their_data_yaml(tmp_path: Path) -> None:
    for number in range(2):
        picture(tmp_path / f"images/train2017/{number}.jpg")
        config_data.text(tmp_path / f"boxes/labels/train2017/{number}.txt", "0 0.5 0.5 0.5 0.5\n")
    config_data.text(tmp_path / "boxes/data.yaml", "path: .\ntrain: images/train2017\nnames: [cat]\n")
    kind, options = recognise(tmp_path).parts[0][1:]
    assert options["images"] == "images/train2017" and len(opened(kind, options, tmp_path)) == 2


@pytest.mark.parametrize(("name", "words"), [("a.jpg", "1 images, but no labels"), ("a.csv", "there is no image")])
def test_other_folders(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(DataError, match="the folder is empty"):
        recognise(tmp_path)
    picture(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / name)
    with pytest.raises(DataError, match=words):
        recognise(tmp_path)


@pytest.mark.parametrize("name", ["coco", "labelme", "cvat", "via", "label studio", "voc", "yolo names", "open images"])
def test_damaged_folders_are_recognised_or_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "clean").mkdir()
    SETS[name].write(tmp_path / "clean")
    for seed in range(8):
        root = damage(name, seed, tmp_path / "clean", tmp_path)
        with bounded(), contextlib.suppress(DataError):
            arranged(recognise(root))
