"""The config of a run that takes two seconds, and command lines that must fail."""

from __future__ import annotations

import pytest

from ocrnet_pl.cli.main import main

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
