"""Images of four channels, from the file through a training step to predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ocrnet_pl.cli.main import main


def _data(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(4):
        pixels = rng.integers(0, 60, (64, 64, 4), dtype=np.uint8)
        pixels[10:40, 20:50] += 100
        Image.fromarray(pixels, "RGBA").save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 64})
        corners = [20, 10, 50, 10, 50, 40, 20, 40]
        annotations.append(
            {"image_id": number, "category_id": 1, "bbox": [20, 10, 30, 30], "segmentation": [corners], "iscrowd": 0}
        )
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "block"}]}
    (folder / "labels.json").write_text(json.dumps(content))


def _config(folder: Path, channels: int) -> Path:
    source = {
        "class_path": "CocoInstances",
        "init_args": {"images": "images", "annotations": "labels.json", "channels": channels},
    }
    config = {
        "name": "four",
        "model": {"encoder": {"class_path": "TimmEncoder", "init_args": {"name": "test_resnet", "in_channels": 4}}},
        "data": {
            "root": str(folder),
            "train": source,
            "val": source,
            "predict_path": str(folder / "images"),
            "predict_channels": channels,
            "size": 64,
            "scales": [1.0],
            "batch_size": 2,
            "num_workers": 0,
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "default_root_dir": str(folder / "runs")},
    }
    path = folder / f"{channels}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_four_channels_train_and_predict(tmp_path: Path) -> None:
    _data(tmp_path)
    config = _config(tmp_path, 4)
    main(["fit", "--config", str(config)])
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    main(["predict", "--config", str(config), "--ckpt_path", str(checkpoint)])
    (results,) = tmp_path.rglob("predictions.json")
    (segments,) = tmp_path.rglob("panoptic.json")
    assert len(json.loads(segments.read_text())) == 4 and isinstance(json.loads(results.read_text()), list)


def test_channels_that_disagree_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _data(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(_config(tmp_path, 3))])
    assert stopped.value.code == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: the images have 3 channels, the encoder takes 4") and "`in_channels`" in last
