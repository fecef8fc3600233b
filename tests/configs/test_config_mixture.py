"""configs/formats/mixture.yaml: its benchmark's four experiments are what they say, and a wrong name is told."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from ocrnet_pl.cli.main import main
from tests.helpers.config_data import write_nuclei
from tests.helpers.project import CONFIGS


def test_the_benchmark_compares_equal_images() -> None:
    path = CONFIGS.parent / "benchmarks" / "partial_labels.py"
    spec = importlib.util.spec_from_file_location("partial_labels", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.experiments(yaml.safe_load((CONFIGS / "formats/mixture.yaml").read_text()))
    trains = {name: config["data"]["train"] for name, config in made.items()}
    assert trains[module.FULL]["class_path"] == "CocoInstances"
    assert trains[module.BOXES]["init_args"]["pixels"] is False and trains[module.MASKS]["init_args"]["boxes"] is False
    assert made[module.BOXES]["model"]["segmentation"] is None and "segmentation" not in made[module.FULL]["model"]
    assert trains[module.PARTIAL]["init_args"]["sources"]["boxes"] == trains[module.BOXES]


def test_a_wrong_category_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_nuclei(tmp_path / "data")
    config = yaml.safe_load((CONFIGS / "formats/mixture.yaml").read_text())
    config["data"]["train"]["init_args"]["sources"]["masks"]["init_args"]["pixels"] = ["background", "nukleus"]
    config["model"]["encoder"] = {"class_path": "TimmEncoder", "init_args": {"name": "mobilenetv4_conv_small"}}
    path = tmp_path / "wrong.yaml"
    path.write_text(json.dumps(config))
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(path), "--data.root", str(tmp_path / "data")])
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert "did you mean 'nucleus'?" in error and error.count("\n") == 1
