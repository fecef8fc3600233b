"""What earlier versions wrote names classes where they stood then, and keeps working.

``old_layout.ckpt.xz`` is such a checkpoint: a small network after one step, with all weights set to 0 so that it
compresses well.
"""

from __future__ import annotations

import importlib
import importlib.util
import lzma
from pathlib import Path

import pytest

from ocrnet_pl import OCRNet
from ocrnet_pl.balancing.methods import Uncertainty
from ocrnet_pl.cli.main import main
from ocrnet_pl.storage.checkpoints import differences
from ocrnet_pl.storage.earlier_settings import config_now
from ocrnet_pl.storage.import_paths import _MOVED, current_path, with_current_paths
from ocrnet_pl.training.task import OCRNetTask

CONFIG = """
name: old
model:
  encoder: {class_path: TimmEncoder, init_args: {name: test_efficientnet}}
  neck: {class_path: PathAggregationNeck, init_args: {width: 8}}
  balancing: {class_path: ocrnet_pl.losses.weighting.Uncertainty}
  tile: {class_path: ocrnet_pl.inference.tiling.Tiling}
data:
  train:
    class_path: ocrnet_pl.data.sources.split.Split
    init_args:
      part: train
      parts: {train: 0.5, val: 0.5}
      source: &scenes {class_path: SyntheticSource, init_args: {length: 8, seed: 1, size: 64}}
  val: {class_path: ocrnet_pl.data.sources.partial.Partial, init_args: {source: *scenes}}
  size: 64
  scales: [1.0]
  batch_size: 4
  num_workers: 0
trainer: {accelerator: cpu, max_steps: 2, limit_val_batches: 1}
pictures: {enabled: false}
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("old") / "old.ckpt"
    path.write_bytes(lzma.decompress(Path(__file__).with_name("old_layout.ckpt.xz").read_bytes()))
    return path


def test_every_old_path_leads_to_a_module_that_exists() -> None:
    for old, new in _MOVED.items():
        importlib.import_module(new)
        # A module of the old name would have the classes itself.
        spec = importlib.util.find_spec(old)
        assert spec is None or spec.submodule_search_locations is not None, old
        assert current_path(f"{old}.Some") == f"{new}.Some"


def test_only_whole_paths_are_replaced() -> None:
    for text in (
        "ocrnet_pl.losses.pixels.Dice",
        "ocrnet_pl.tracking.wandb_tracker.WandbTracker",
        "split.Split",
        "",
        ".",
    ):
        assert current_path(text) == text
    parsed = {"a": [{"class_path": "ocrnet_pl.tracking.WandbTracker"}], "b": 1.5, "c": None}
    assert with_current_paths(parsed) == {
        "a": [{"class_path": "ocrnet_pl.tracking.wandb_tracker.WandbTracker"}],
        "b": 1.5,
        "c": None,
    }


def test_one_call_brings_keys_and_paths_up_to_date() -> None:
    old = {"model": {"tile": "ocrnet_pl.inference.tiling.Tiling", "final_lr": 0.5}, "trainer": {"logger": []}}
    now = {
        "model": {
            "tile": "ocrnet_pl.inference.tiled_inference.Tiling",
            "scheduler": {
                "class_path": "ocrnet_pl.training.schedules.WarmupCosine",
                "init_args": {"final_lr": 0.5},
            },
        },
        "trainer": {"logger": []},
    }
    assert config_now(old) == now and config_now(now) == now and "final_lr" in old["model"]
    # A path in a list is no difference either.
    listed = {"metrics": ["ocrnet_pl.inference.tiling.Tiling"]}
    assert differences({"config": listed}, config_now(listed))[1:] == []


def test_python_code_loads_an_old_checkpoint(checkpoint: Path) -> None:
    assert OCRNet.from_checkpoint(checkpoint).taxonomy.num_detection == 5
    assert isinstance(OCRNetTask.load_from_checkpoint(checkpoint).balancing, Uncertainty)


def test_an_old_run_continues_and_is_evaluated_with_old_configs(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "old.yaml"
    config.write_text(CONFIG)
    root = f"--trainer.default_root_dir={tmp_path}"
    main(["fit", "--config", str(config), "--ckpt_path", str(checkpoint), root])
    # Paths alone are no difference between the two runs, a default that has changed since is one.
    lines = capfd.readouterr().err.splitlines()
    told = next(line for line in lines if line.startswith("Different from"))
    assert "trainer.max_steps 1 -> 2" in told and "'rare': 0.05" in told
    assert "losses.weighting" not in told and "inference.tiling" not in told
    # One that decides on the shape of the weights is the checkpoint's.
    assert "model.detection.bins: None, as in the checkpoint; the default is now 16" in lines and "bins" not in told
    assert "model.segmentation.skip: False, as in the checkpoint; the default is now None" in lines
    wanted = "--model.detection.init_args.bins=8"
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(config), "--ckpt_path", str(checkpoint), root, wanted])
    assert "weights of another network" in capfd.readouterr().err
    main(["validate", "--ckpt_path", str(checkpoint), "--trainer.limit_val_batches=1", root])
    assert "config: the checkpoint's own" in capfd.readouterr().err
