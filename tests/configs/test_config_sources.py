"""The configs and files on the pages of the formats read the pages' trees."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from jsonargparse import ArgumentParser

import ocrnet_pl.data.sources.bdd100k
import ocrnet_pl.data.sources.cityscapes
import ocrnet_pl.data.sources.coco
import ocrnet_pl.data.sources.coco_panoptic
import ocrnet_pl.data.sources.coco_stuff
import ocrnet_pl.data.sources.labelled_folder
import ocrnet_pl.data.sources.table
import ocrnet_pl.data.sources.voc
import ocrnet_pl.data.sources.yolo
from ocrnet_pl.cli.main import main
from tests.configs.test_configs import STEP, Run
from tests.helpers.config_data import (
    filled,
    photo,
    text,
    write_bdd100k,
    write_cityscapes,
    write_coco,
    write_folder,
    write_stuff,
    write_table,
    write_voc,
    write_yolo,
)
from tests.helpers.map_files import save
from tests.helpers.project import ROOT

PAGES = ROOT / "docs/formats"
SOURCES = {
    "yolo": ocrnet_pl.data.sources.yolo.Yolo,
    "folder": ocrnet_pl.data.sources.labelled_folder.LabelledFolder,
    "table": ocrnet_pl.data.sources.table.Table,
    "coco_stuff": ocrnet_pl.data.sources.coco_stuff.CocoStuff,
    "coco_instances": ocrnet_pl.data.sources.coco.CocoInstances,
    "coco_panoptic": ocrnet_pl.data.sources.coco_panoptic.CocoPanoptic,
    "voc": ocrnet_pl.data.sources.voc.PascalVoc,
    "cityscapes": ocrnet_pl.data.sources.cityscapes.Cityscapes,
    "bdd100k": ocrnet_pl.data.sources.bdd100k.Bdd100k,
}
WRITERS: dict[str, Callable[[Path], None]] = {
    "yolo": write_yolo,
    "folder": write_folder,
    "table": write_table,
    "coco_stuff": write_stuff,
    "coco_instances": write_coco,
    "coco_panoptic": write_coco,
    "voc": write_voc,
    "cityscapes": write_cityscapes,
    "bdd100k": write_bdd100k,
}


@pytest.mark.parametrize("name", SOURCES)
def test_the_documented_configs_read_the_documented_tree(tmp_path: Path, name: str, parser: ArgumentParser) -> None:
    WRITERS[name](tmp_path / "data")
    config = tmp_path / "config.yaml"
    config.write_text((PAGES / f"{name}.md").read_text().split("```yaml\n")[1].split("```")[0])
    words = ["fit", "--config", str(config), "--data.root", str(tmp_path / "data")]
    data = parser.parse_args(words).as_dict()["fit"]["data"]
    boxes = {"coco_stuff": [0, 0], "bdd100k": [2, 1]}.get(name, [1, 1])
    for split in ("train", "val"):
        source = SOURCES[name]
        assert data[split]["class_path"].endswith(f".{source.__name__}")
        opened: Any = source(**data[split]["init_args"] | {"root": tmp_path / "data"})
        samples = [opened[index] for index in range(len(opened))]
        assert [len(sample.boxes) for sample in samples] == boxes
        assert all(sample.semantic is not None for sample in samples)


def _yolo_masks(root: Path) -> None:
    write_yolo(root)
    for split in ("train", "val"):
        for number in range(2):
            save(root / f"masks/{split}/{number:04}.png", filled(1, rest=3))


def _cells(root: Path) -> None:
    for stem in "ab":
        photo(root / f"train/images/{stem}.png")
        save(root / f"train/instances/{stem}.png", filled(200))


def _coco_masks(root: Path) -> None:
    write_coco(root)
    for stem in ("000000000009", "000000000025"):
        save(root / f"semantic/train2017/{stem}.png", filled(1, rest=149))


@pytest.mark.parametrize(
    ("page", "write", "things", "expected"),
    [
        ("yolo", _yolo_masks, ["cat", "dog"], filled(1, rest=255)),
        ("folder", _cells, ["cell"], filled(1)),
        ("coco_instances", _coco_masks, ["person"], filled(3, rest=2)),
    ],
)
def test_the_second_config_of_a_page(
    tmp_path: Path, page: str, write: Callable[[Path], None], things: list[str], expected: np.ndarray
) -> None:
    write(tmp_path)
    block = (PAGES / f"{page}.md").read_text().split("```yaml\n")[2].split("```")[0]
    given = yaml.safe_load(block)["data"]["train"]
    source: Any = SOURCES[page]
    assert given["class_path"] == source.__name__
    opened = source(**given["init_args"] | {"root": tmp_path})
    assert [c.name for c in opened.taxonomy.detection_categories] == things and len(opened) == 2
    for index in range(2):
        assert len(opened[index].boxes) == 1 and np.array_equal(opened[index].semantic, expected)


def test_the_documented_rows_of_csv_files(tmp_path: Path) -> None:
    """The samples of files on the pages, as they stand there."""
    blocks = {name: re.findall(r"```\n(.*?)```", (PAGES / f"{name}.md").read_text(), re.DOTALL) for name in SOURCES}
    text(tmp_path / "boxes.csv", blocks["folder"][1])
    for stem in "ab":
        save(tmp_path / f"images/{stem}.jpg", np.zeros((128, 128, 3), dtype=np.uint8))
    folder = SOURCES["folder"]("images", ["cat", "dog"], boxes="boxes.csv", root=tmp_path)  # type: ignore[call-arg]
    assert folder[0].boxes.tolist() == [[12, 30.5, 96, 120], [0, 0, 40, 22]] and folder[0].crowd.tolist() == [0, 1]
    assert len(folder[1].boxes) == 0
    text(tmp_path / "train.csv", blocks["table"][1])
    for stem in "abc":
        save(tmp_path / f"photos/2024/{stem}.jpg", np.zeros((128, 128, 3), dtype=np.uint8))
    for kind in ("a_classes", "a_objects", "c_classes"):
        save(tmp_path / f"labels/{kind}.png", np.full((128, 128), 2, dtype=np.uint8))
    names = {0: "background", 1: "grass", 2: "cat", 3: "dog"}
    table = SOURCES["table"]("train.csv", ["cat", "dog"], names, root=tmp_path)  # type: ignore[call-arg]
    assert [table[i].boxes.tolist() for i in range(3)] == [[[12, 30, 96, 120]], [], []]
    assert [table[i].semantic is not None for i in range(3)] == [True, False, True]
    assert [bool(table[i].supervision.detection.all()) for i in range(3)] == [True, True, False]
    text(tmp_path / "data.yaml", blocks["yolo"][1])
    text(tmp_path / "labels/train/a.txt", "1 0.5 0.5 0.5 0.5")
    save(tmp_path / "images/train/a.jpg", np.zeros((128, 128, 3), dtype=np.uint8))
    assert SOURCES["yolo"](root=tmp_path)[0].labels.tolist() == [1]  # type: ignore[call-arg]


def test_stuff_alone_takes_a_step(tmp_path: Path) -> None:
    write_stuff(tmp_path / "data")
    config = tmp_path / "config.yaml"
    config.write_text((PAGES / "coco_stuff.md").read_text().split("```yaml\n")[1].split("```")[0])
    words = ["--config", str(config), "--data.root", str(tmp_path / "data"), "--model.encoder=TimmEncoder", *STEP]
    encoder = ["--model.encoder.init_args.name=test_resnet", "--data.size=64"]
    main(["fit", *words, *encoder, f"--trainer.default_root_dir={tmp_path}"])
    assert Run(tmp_path).summary["steps"] == 1


def test_every_format_has_a_page_in_the_index() -> None:
    index = (PAGES / "README.md").read_text()
    for page in PAGES.glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index
    for name in SOURCES:
        assert f"`{SOURCES[name].__name__}`" in index
