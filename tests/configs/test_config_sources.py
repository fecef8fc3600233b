"""The configs of each format take a step, and the pages' configs read the pages' trees."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import yaml
from PIL import Image

import ocrnet_pl.data.sources.coco
import ocrnet_pl.data.sources.coco_panoptic
import ocrnet_pl.data.sources.coco_stuff
import ocrnet_pl.data.sources.labelled_folder
import ocrnet_pl.data.sources.table
import ocrnet_pl.data.sources.yolo
from ocrnet_pl.cli.main import main
from tests.helpers.project import ROOT

CONFIGS, PAGES = ROOT / "configs", ROOT / "docs/formats"
SIZE = (48, 64)
BOX = (20, 10, 50, 30)
STEP = [
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.limit_train_batches=1",
    "--trainer.limit_val_batches=1",
    "--data.num_workers=0",
    "--data.batch_size=2",
    "--data.eval_batch_size=2",
    "--data.size=64",
    "--model.encoder.init_args.name=test_resnet",
]
POLYGON = "0.3125 0.2083 0.7813 0.2083 0.7813 0.625 0.3125 0.625"


def photo(path: Path, seed: int = 0) -> None:
    png(path, np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8))


def png(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def filled(value: int, rest: int = 0) -> np.ndarray:
    """A map with one object."""
    values = np.full(SIZE, rest, dtype=np.uint8)
    values[BOX[1] : BOX[3], BOX[0] : BOX[2]] = value
    return values


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def write_yolo(root: Path) -> None:
    text(root / "data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n")
    for split in ("train", "val"):
        for number in range(2):
            photo(root / f"images/{split}/{number:04}.jpg", number)
            text(root / f"labels/{split}/{number:04}.txt", f"{number} {POLYGON}\n")


def write_folder(root: Path) -> None:
    for split in ("train", "val"):
        for number, stem in enumerate("ab"):
            photo(root / f"{split}/images/{stem}.jpg", number)
            png(root / f"{split}/masks/{stem}.png", filled(2, rest=1))
        rows = [f"{stem}.jpg,{','.join(map(str, BOX))},cat,0\n" for stem in "ab"]
        text(root / f"{split}/boxes.csv", "image,x1,y1,x2,y2,label,crowd\n" + "".join(rows))


def write_table(root: Path) -> None:
    root.mkdir()
    for split in ("train", "val"):
        with (root / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "semantic", "instances", "boxes"])
            for number, stem in enumerate("ab"):
                photo(root / f"photos/{split}/{stem}.jpg", number)
                png(root / f"labels/{split}_{stem}_classes.png", filled(3))
                png(root / f"labels/{split}_{stem}_objects.png", filled(7))
                names = [f"photos/{split}/{stem}.jpg"] + [
                    f"labels/{split}_{stem}_{kind}.png" for kind in ("classes", "objects")
                ]
                writer.writerow([*names, json.dumps([{"box": BOX, "label": "dog"}])])


def write_stuff(root: Path) -> None:
    categories = [{"id": 1, "name": "person", "isthing": 1}, {"id": 149, "name": "road", "isthing": 0}]
    text(root / "categories.json", json.dumps(categories))
    for split in ("train2017", "val2017"):
        for stem in ("000000000009", "000000000025"):
            photo(root / f"{split}/{stem}.jpg")
            png(root / f"stuffthingmaps/{split}/{stem}.png", filled(0, rest=148))


def write_coco(root: Path) -> None:
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
            png(root / f"annotations/panoptic_{split}/{stem}.png", np.stack([red, red * 0, red * 0], -1))
        for kind, entries, kept in (("instances", instances, categories[:1]), ("panoptic", panoptic, categories)):
            content = {"images": images, "annotations": entries, "categories": kept}
            text(root / f"annotations/{kind}_{split}.json", json.dumps(content))


WRITERS: dict[str, Callable[[Path], None]] = {
    "yolo": write_yolo,
    "folder": write_folder,
    "table": write_table,
    "coco_stuff": write_stuff,
    "coco_instances": write_coco,
    "coco_panoptic": write_coco,
}


FORMATS = [
    "formats/yolo.yaml",
    "formats/folder.yaml",
    "formats/table.yaml",
    "formats/coco_instances.yaml",
    "formats/coco_panoptic.yaml",
]


def steps(folder: Path, name: str) -> int:
    return int(json.loads((folder / name / "version_0/summary.json").read_text())["steps"])


@pytest.mark.parametrize("config", FORMATS)
def test_takes_a_step(tmp_path: Path, config: str) -> None:
    WRITERS[config.removesuffix(".yaml")](tmp_path / "data")
    words = ["--config", str(CONFIGS / config), "--data.root", str(tmp_path / "data"), *STEP]
    main(["fit", *words, f"--trainer.default_root_dir={tmp_path}"])
    assert steps(tmp_path, yaml.safe_load((CONFIGS / config).read_text())["name"]) == 1


@pytest.mark.parametrize("config", FORMATS)
def test_what_the_step_above_overrides_is_valid(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(CONFIGS / config), "--print_config"])
    printed = capsys.readouterr()
    assert not stopped.value.code, printed.err
    given, parsed = yaml.safe_load((CONFIGS / config).read_text()), yaml.safe_load(printed.out)
    assert parsed["data"]["size"] == given["data"]["size"] and given["data"]["size"] % 32 == 0
    encoder = parsed["model"]["encoder"]["init_args"]
    assert encoder["weights"] is None and timm.is_model(encoder["name"])


SOURCES = {
    "yolo": ocrnet_pl.data.sources.yolo.Yolo,
    "folder": ocrnet_pl.data.sources.labelled_folder.LabelledFolder,
    "table": ocrnet_pl.data.sources.table.Table,
    "coco_stuff": ocrnet_pl.data.sources.coco_stuff.CocoStuff,
    "coco_instances": ocrnet_pl.data.sources.coco.CocoInstances,
    "coco_panoptic": ocrnet_pl.data.sources.coco_panoptic.CocoPanoptic,
}


@pytest.mark.parametrize("name", SOURCES)
def test_the_documented_configs_read_the_documented_tree(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITERS[name](tmp_path / "data")
    config = tmp_path / "config.yaml"
    config.write_text((PAGES / f"{name}.md").read_text().split("```yaml\n")[1].split("```")[0])
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(config), "--data.root", str(tmp_path / "data"), "--print_config"])
    printed = capsys.readouterr()
    assert not stopped.value.code, printed.err
    data = yaml.safe_load(printed.out)["data"]
    for split in ("train", "val"):
        source = SOURCES[name]
        assert data[split]["class_path"].endswith(f".{source.__name__}")
        opened: Any = source(**data[split]["init_args"] | {"root": tmp_path / "data"})
        assert len(opened) == 2 and all(opened[index].semantic is not None for index in range(2))
        assert name == "coco_stuff" or all(len(opened[index].boxes) == 1 for index in range(2))


def _yolo_masks(root: Path) -> None:
    write_yolo(root)
    for split in ("train", "val"):
        for number in range(2):
            png(root / f"masks/{split}/{number:04}.png", filled(1, rest=3))


def _cells(root: Path) -> None:
    for stem in "ab":
        photo(root / f"train/images/{stem}.png")
        png(root / f"train/instances/{stem}.png", filled(200))


def _coco_masks(root: Path) -> None:
    write_coco(root)
    for stem in ("000000000009", "000000000025"):
        png(root / f"semantic/train2017/{stem}.png", filled(1, rest=149))


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
        png(tmp_path / f"images/{stem}.jpg", np.zeros((128, 128, 3), dtype=np.uint8))
    folder = SOURCES["folder"]("images", ["cat", "dog"], boxes="boxes.csv", root=tmp_path)  # type: ignore[call-arg]
    assert folder[0].boxes.tolist() == [[12, 30.5, 96, 120], [0, 0, 40, 22]] and folder[0].crowd.tolist() == [0, 1]
    assert len(folder[1].boxes) == 0
    text(tmp_path / "train.csv", blocks["table"][1])
    for stem in "abc":
        png(tmp_path / f"photos/2024/{stem}.jpg", np.zeros((128, 128, 3), dtype=np.uint8))
    for kind in ("a_classes", "a_objects", "c_classes"):
        png(tmp_path / f"labels/{kind}.png", np.full((128, 128), 2, dtype=np.uint8))
    names = {0: "background", 1: "grass", 2: "cat", 3: "dog"}
    table = SOURCES["table"]("train.csv", ["cat", "dog"], names, root=tmp_path)  # type: ignore[call-arg]
    assert [table[i].boxes.tolist() for i in range(3)] == [[[12, 30, 96, 120]], [], []]
    assert [table[i].semantic is not None for i in range(3)] == [True, False, True]
    assert [bool(table[i].supervision.detection.all()) for i in range(3)] == [True, True, False]
    text(tmp_path / "data.yaml", blocks["yolo"][1])
    text(tmp_path / "labels/train/a.txt", "1 0.5 0.5 0.5 0.5")
    png(tmp_path / "images/train/a.jpg", np.zeros((128, 128, 3), dtype=np.uint8))
    assert SOURCES["yolo"](root=tmp_path)[0].labels.tolist() == [1]  # type: ignore[call-arg]


def test_stuff_alone_takes_a_step(tmp_path: Path) -> None:
    write_stuff(tmp_path / "data")
    config = tmp_path / "config.yaml"
    config.write_text((PAGES / "coco_stuff.md").read_text().split("```yaml\n")[1].split("```")[0])
    words = ["--config", str(config), "--data.root", str(tmp_path / "data"), "--model.encoder=TimmEncoder", *STEP]
    main(["fit", *words, f"--trainer.default_root_dir={tmp_path}"])
    assert steps(tmp_path, "coco_stuff") == 1


def test_every_format_has_a_page_in_the_index() -> None:
    index = (PAGES / "README.md").read_text()
    for page in PAGES.glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index
    for name in SOURCES:
        assert f"`{SOURCES[name].__name__}`" in index
