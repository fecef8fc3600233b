"""``convert``: from any format to COCO, by the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ocrnet_pl.cli.main import main
from ocrnet_pl.data.sources.coco import CocoInstances
from tests.helpers.config_data import write_yolo


def test_yolo_becomes_coco(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_yolo(tmp_path / "data")
    (tmp_path / "config.yaml").write_text("data:\n  train: {class_path: Yolo, init_args: {split: val}}\n")
    words = ["convert", "--config", str(tmp_path / "config.yaml"), "--data.root", str(tmp_path / "data")]
    main([*words, "--output", str(tmp_path / "coco")])
    assert "instances_train.json: 2 images, 2 boxes" in capsys.readouterr().out
    data = yaml.safe_load((tmp_path / "coco/data.yaml").read_text())["data"]
    assert data["train"]["class_path"] == "CocoInstances"
    source = CocoInstances(**data["train"]["init_args"], root=data["root"])
    assert [len(source[index].boxes) for index in range(2)] == [1, 1]


def test_what_cannot_be_read_is_left_out_and_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_yolo(tmp_path / "data")
    broken = tmp_path / "data" / "images" / "val" / "0001.jpg"
    broken.write_bytes(broken.read_bytes()[:100])
    (tmp_path / "config.yaml").write_text("data:\n  train: {class_path: Yolo, init_args: {split: val}}\n")
    words = ["convert", "--config", str(tmp_path / "config.yaml"), "--data.root", str(tmp_path / "data")]
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--output", str(tmp_path / "coco"), "--data.on_error=skip"])
    assert stopped.value.code == 3
    printed, said = capsys.readouterr()
    assert "instances_train.json: 1 images, 1 boxes" in printed
    lines = [line for line in said.splitlines() if line.startswith("skipped: ")]
    assert len(lines) == 1 and lines[0].count(broken.name) == 1
