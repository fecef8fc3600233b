"""The config of a run that takes two seconds, and command lines that must fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ocrnet_pl import OCRNet
from ocrnet_pl.cli.main import main
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.inference.multiscale import MultiScale
from ocrnet_pl.inference.tiled_inference import Tiling

TINY = """
name: tiny
model:
  encoder:
    class_path: tests.helpers.builders.TinyEncoder
  neck:
    class_path: PathAggregationNeck
    init_args:
      width: 8
data:
  train:
    class_path: SyntheticSource
    init_args: {length: 8, seed: 1, size: 64}
  val:
    class_path: SyntheticSource
    init_args: {length: 5, seed: 2, size: 64}
  size: 64
  scales: [1.0]
  batch_size: 4
  num_workers: 0
report:
  enabled: false
trainer:
  max_epochs: 2
  num_sanity_val_steps: 0
  log_every_n_steps: 1
  accelerator: cpu
"""
"""Two steps per epoch, then a validation of five images."""


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Run a command line that must fail; return its status and what it wrote to the error stream."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    return int(stopped.value.code or 0), capsys.readouterr().err


def learnt(config: Path, folder: Path) -> Path:
    """Train a tiny config for 40 steps, after which its network predicts more than one class; return the checkpoint."""
    words = ["--config", str(config), "--trainer.default_root_dir", str(folder), "--trainer.max_epochs=20"]
    main(["fit", *words, "--trainer.check_val_every_n_epoch=20"])
    return folder / "tiny" / "version_0" / "checkpoints" / "last.ckpt"


def summary(folder: Path) -> dict[str, Any]:
    """Return the summary of the run in a folder."""
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def last_figures(folder: Path) -> dict[str, Any]:
    """Return the figures of the only run of a tiny config in a folder."""
    figures: dict[str, Any] = summary(folder / "tiny" / "version_0")["last"]
    return figures


def pixel_accuracy(checkpoint: Path, source: SyntheticSource, **way: Tiling | MultiScale) -> float:
    """Return the share of right pixels in predictions of one image after the other, in several passes."""
    network = OCRNet.from_checkpoint(checkpoint, trust="tests").fuse()
    right = []
    for sample in map(source.__getitem__, range(len(source))):
        found = network.predict(sample.image, **way)[0].semantic  # type: ignore[arg-type]
        assert found is not None and sample.semantic is not None and found.shape == sample.semantic.shape
        right.append((found == sample.semantic.as_subclass(torch.Tensor)).float())
    return torch.stack(right).mean().item()
