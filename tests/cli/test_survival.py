"""Runs that are killed, and go on as if they had not been."""

from __future__ import annotations

import csv
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ocrnet_pl.tracking.wandb_history import STEP, has_item, kept_rows, kept_versions
from tests.helpers.processes import in_a_process

CONFIG = """
name: run
seed_everything: 3
model:
  encoder: {class_path: tests.helpers.builders.TinyEncoder}
  neck: {class_path: PathAggregationNeck, init_args: {width: 8}}
  balancing: {class_path: GradNorm}
  warmup_steps: 2
data:
  train:
    class_path: Mixture
    init_args:
      sources:
        many: {class_path: SyntheticSource, init_args: {length: 24, seed: 1, size: 64}}
        few: {class_path: SyntheticSource, init_args: {length: 9, seed: 4, size: 64}}
      shares: {many: 3, few: 1}
  val: {class_path: SyntheticSource, init_args: {length: 4, seed: 2, size: 64}}
  size: 64
  scales: [0.5, 1.0]
  batch_size: 4
  num_workers: 1
  train_transforms: [{class_path: Mosaic}, {class_path: RandomFlip}, {class_path: ColorJitter}]
trainer:
  max_epochs: 2
  log_every_n_steps: 1
  accelerator: cpu
  logger:
    - class_path: WandbTracker
      init_args: {log_model: all}
checkpoint: {every_n_steps: 3}
pictures: {count: 1, every_n_epochs: 1}
report: {in_training: true, pictures: 1}
"""
STEPS = 8  # an epoch


class KillAt(Callback):
    """Kills its own process when so many steps are done.

    Args:
        step: Counted over the run.
        where: The hook.
    """

    def __init__(self, step: int, where: str = "on_train_batch_end") -> None:
        self.step = step
        setattr(self, where, self._look)

    def _look(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        if trainer.global_step == self.step and not trainer.sanity_checking:
            os.kill(os.getpid(), signal.SIGKILL)


def words_of(folder: Path, version: str, *more: str) -> list[str]:
    config = folder / "config.yaml"
    config.write_text(CONFIG)
    return ["fit", "--config", str(config), "--trainer.default_root_dir", str(folder), "--version", version, *more]


def killed_at(folder: Path, version: str, step: int, where: str, *more: str) -> int | None:
    kill = ["--trainer.callbacks+=tests.cli.test_survival.KillAt", f"--trainer.callbacks.step={step}"]
    return in_a_process(words_of(folder, version, *kill, f"--trainer.callbacks.where={where}", *more))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert in_a_process(words_of(folder, "whole")) == 0
    return folder / "run" / "whole"


def content(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def points(rows: list[dict[str, Any]], step: str) -> list[tuple[int, str, float]]:
    """Return every figure that does not measure time, in order of step and name."""
    found = []
    for row in rows:
        for key, value in row.items():
            if value not in ("", None) and key.startswith(("train/", "val/", "lr-")) and "images_per_s" not in key:
                number = float(value)
                found.append((int(float(row[step])), key, -1.0 if math.isnan(number) else number))
    return sorted(found)


def table(run: Path) -> list[tuple[int, str, float]]:
    with (run / "metrics.csv").open(newline="") as file:
        return points(list(csv.DictReader(file)), "step")


def shown(run: Path, run_id: str) -> list[tuple[int, str]]:
    """Return step and name of each picture, table and chart in Weights & Biases, over all starts of a run."""
    names = ("pictures", *(f"report/{name}" for name in ("box_curves", "f1", "box_confusion", "boxes", "worst")))
    rows = list(kept_rows(run, run_id))
    return sorted((int(row[STEP]), name) for row in rows for name in names if has_item(row, name))


def stored(run: Path, run_id: str) -> list[tuple[str, int]]:
    """Return alias and step of each version of the checkpoint, over all starts of a run."""
    return sorted((alias, each["step"]) for each in kept_versions(run, run_id) for alias in each["aliases"])


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "where"),
    [
        (2 * STEPS - 2, "on_train_batch_end"),
        (STEPS, "on_validation_batch_end"),
        (STEPS + 1, "on_train_batch_start"),
    ],
    ids=["in an epoch", "in validation", "after an epoch's first step"],
)
def test_a_killed_run_ends_with_the_same_weights_and_records(
    step: int, where: str, whole: Path, tmp_path: Path
) -> None:
    assert killed_at(tmp_path, "one", step, where) == -signal.SIGKILL
    one, two = tmp_path / "run" / "one", tmp_path / "run" / "two"
    last = content(one)["global_step"]
    assert 0 < last <= step
    assert in_a_process(words_of(tmp_path, "two", "--ckpt_path", str(one / "checkpoints" / "last.ckpt"))) == 0
    reference, continued = content(whole), content(two)
    for key in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert equal(reference[key], continued[key]), key
    assert table(two) == table(whole)
    run_id = continued["wandb_run"]
    assert run_id == content(one)["wandb_run"] != reference["wandb_run"]
    tracked = points(list(kept_rows(two, run_id)), "trainer/global_step")
    assert tracked == points(list(kept_rows(whole, reference["wandb_run"])), "trainer/global_step")
    # What W&B had not written to the disk when the process was killed is lost; nothing is there twice.
    for kind in (shown, stored):
        own, all_of_it = kind(two, run_id), kind(whole, reference["wandb_run"])
        assert len(own) == len(set(own))
        assert {item for item in own if 2 * STEPS in item} == {item for item in all_of_it if 2 * STEPS in item}
    assert set(shown(two, run_id)) <= set(shown(whole, reference["wandb_run"]))
    assert {alias for alias, _ in stored(two, run_id)} == {"best", "last"}
    assert [p for p in tracked if not p[1].startswith("lr-")] == [p for p in table(whole) if not p[1].startswith("lr-")]
