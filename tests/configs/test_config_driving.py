"""voc.yaml, cityscapes.yaml, bdd100k.yaml and applications/driving.yaml take a step on data of their shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import yaml
from jsonargparse import ArgumentParser
from PIL import Image

from ocrnet_pl.cli.main import main
from ocrnet_pl.data.sources.bdd100k import Bdd100k
from ocrnet_pl.data.sources.cityscapes import Cityscapes
from ocrnet_pl.data.sources.voc import PascalVoc
from tests.helpers.command_line import command_line_parser
from tests.helpers.project import CONFIGS

SIZE = (48, 96)
STEP = [
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.limit_train_batches=1",
    "--trainer.limit_val_batches=1",
    "--data.num_workers=0",
    "--data.batch_size=2",
    "--data.eval_batch_size=2",
    "--trainer.num_sanity_val_steps=0",
    "--model.encoder.init_args.name=test_efficientnet",
]


def _photo(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def _png(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def write_voc(root: Path) -> None:
    """Two images a split, each with a cat."""
    for split in ("train", "val"):
        stems = [f"{split}_{number}" for number in range(2)]
        (root / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(stems))
        for number, stem in enumerate(stems):
            _photo(root / f"JPEGImages/{stem}.jpg", number)
            mask = np.zeros(SIZE, dtype=np.uint8)
            mask[10:30, 20:50] = 1
            _png(root / f"SegmentationObject/{stem}.png", mask)
            _png(root / f"SegmentationClass/{stem}.png", mask * 8)
            (root / "Annotations").mkdir(exist_ok=True)
            (root / f"Annotations/{stem}.xml").write_text(
                "<annotation><object><name>cat</name><bndbox><xmin>21</xmin><ymin>11</ymin><xmax>50</xmax>"
                "<ymax>30</ymax></bndbox></object></annotation>"
            )


def write_cityscapes(root: Path) -> None:
    """Two images a split, each with a road, the sky and a car."""
    for split in ("train", "val"):
        for number in range(2):
            stem = f"ulm_{number:06}_000019"
            _photo(root / f"leftImg8bit/{split}/ulm/{stem}_leftImg8bit.png", number)
            ids = np.full(SIZE, 7, dtype=np.uint16)
            ids[:20] = 23
            ids[18:36, 40:70] = 26000
            _png(root / f"gtFine/{split}/ulm/{stem}_gtFine_instanceIds.png", ids)


def write_bdd100k(root: Path) -> None:
    """Two images a split with bitmasks, and boxes of one of them and of an image that is not there."""
    for split in ("train", "val"):
        for number in range(2):
            _photo(root / f"images/10k/{split}/{number}.jpg", number)
            rgba = np.zeros((*SIZE, 4), dtype=np.uint8)
            rgba[:20] = (30, 0, 0, 30)
            rgba[20:] = (7, 0, 0, 7)
            rgba[18:36, 40:70] = (35, 0, 0, 31)
            _png(root / f"labels/pan_seg/bitmasks/{split}/{number}.png", rgba)
        box = {"category": "traffic light", "box2d": {"x1": 4, "y1": 4, "x2": 11, "y2": 19}}
        (root / "labels/det_20").mkdir(parents=True, exist_ok=True)
        frames = [{"name": "0.jpg", "labels": [box]}, {"name": "elsewhere.jpg", "labels": [box]}]
        (root / f"labels/det_20/det_{split}.json").write_text(json.dumps(frames))


@pytest.mark.parametrize(
    ("config", "write", "size"),
    [
        ("formats/voc.yaml", write_voc, "64"),
        ("formats/cityscapes.yaml", write_cityscapes, "[64,128]"),
        ("formats/bdd100k.yaml", write_bdd100k, "[64,96]"),
        ("applications/driving.yaml", write_cityscapes, "[64,128]"),
    ],
)
def test_takes_a_step(tmp_path: Path, config: str, write: Any, size: str) -> None:
    write(tmp_path / "data")
    words = ["--config", str(CONFIGS / config), "--data.root", str(tmp_path / "data"), *STEP, f"--data.size={size}"]
    main(["fit", *words, f"--trainer.default_root_dir={tmp_path}"])
    content = yaml.safe_load((CONFIGS / config).read_text())
    summary = json.loads((tmp_path / content["name"] / "version_0/summary.json").read_text())
    assert summary["steps"] == 1


@pytest.fixture(scope="module")
def parser() -> ArgumentParser:
    return command_line_parser()


@pytest.mark.parametrize(
    "config", ["formats/voc.yaml", "formats/cityscapes.yaml", "formats/bdd100k.yaml", "applications/driving.yaml"]
)
def test_what_the_step_above_overrides_is_valid(config: str, parser: ArgumentParser) -> None:
    parsed = parser.parse_args(["fit", "--config", str(CONFIGS / config)]).as_dict()["fit"]
    given = yaml.safe_load((CONFIGS / config).read_text())
    sides = given["data"]["size"]
    assert parsed["data"]["size"] == (sides if isinstance(sides, int) else tuple(sides))
    encoder = parsed["model"]["encoder"]["init_args"]
    assert encoder["weights"] is None and timm.is_model(encoder["name"])
    assert all(side % 32 == 0 for side in ([sides] if isinstance(sides, int) else sides))


@pytest.mark.parametrize(
    ("name", "source", "write"),
    [
        ("voc", PascalVoc, write_voc),
        ("cityscapes", Cityscapes, write_cityscapes),
        ("bdd100k", Bdd100k, write_bdd100k),
    ],
)
def test_the_documented_configs_read_the_documented_tree(
    tmp_path: Path, name: str, source: Any, write: Any, parser: ArgumentParser
) -> None:
    write(tmp_path / "data")
    page = (CONFIGS.parent / f"docs/formats/{name}.md").read_text()
    config = tmp_path / "config.yaml"
    config.write_text(page.split("```yaml\n")[1].split("```")[0])
    words = ["fit", "--config", str(config), "--data.root", str(tmp_path / "data")]
    data = parser.parse_args(words).as_dict()["fit"]["data"]
    for split in ("train", "val"):
        assert data[split]["class_path"].endswith(f".{source.__name__}")
        opened = source(**data[split]["init_args"] | {"root": tmp_path / "data"})
        assert len(opened) == 2 and all(len(opened[index].boxes) for index in range(2))
