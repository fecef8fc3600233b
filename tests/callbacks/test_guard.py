from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from ocrnet_pl.balancing.methods import GradNorm
from ocrnet_pl.callbacks.ema import EMA
from ocrnet_pl.callbacks.guard import LossGuard, running_statistics
from ocrnet_pl.cli.main import main
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.errors import LossError
from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.structures import Batch, Output
from ocrnet_pl.training.task import OCRNetTask
from tests.helpers.processes import run_together
from tests.helpers.tiny_run import TINY
from tests.training.test_task import make_data, make_task, make_trainer


class BrokenAt(SegmentationLoss):
    """A loss whose first term is NaN in some batches of one process."""

    def __init__(self, batches: set[int], rank: int = 0) -> None:
        super().__init__()
        self.batches, self.rank, self.seen = batches, rank, -1

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        terms = super().forward(output, batch)
        self.seen += self.training
        here = not dist.is_initialized() or dist.get_rank() == self.rank
        if self.training and self.seen in self.batches and here:
            first = next(iter(terms))
            terms[first] = terms[first] * math.nan
        return terms


class Record(Callback):
    """Keeps weights, moments and running statistics after every step."""

    def __init__(self) -> None:
        self.steps: list[list[Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        state = trainer.optimizers[0].state
        moments = [value.clone() for own in state.values() for key, value in own.items() if key != "step"]
        weights = [p.detach().clone() for p in pl_module.parameters()]
        self.steps.append([*weights, *moments, *(s.clone() for s in running_statistics(pl_module))])


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def train(folder: Path, broken: set[int], guard: LossGuard, rank: int = 0, **options: Any) -> tuple[Record, OCRNetTask]:
    source, val = (SyntheticSource(length=length, seed=5, size=64) for length in (24, 2))
    torch.manual_seed(0)
    task = make_task(source.taxonomy, segmentation_loss=BrokenAt(broken, rank), balancing=GradNorm())
    record = Record()
    # Statistics of norms would be spoiled for good by a NaN in the forward pass.
    assert running_statistics(task)
    trainer = make_trainer(folder, callbacks=[guard, record, EMA(0.9)], num_sanity_val_steps=0, **options)
    trainer.fit(task, make_data(source, val))
    return record, task


def test_a_step_without_a_finite_loss_changes_nothing_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guard = LossGuard()
    with caplog.at_level(logging.WARNING):
        record, task = train(tmp_path, {2, 3}, guard)
    moved = [not same(a, b) for a, b in zip(record.steps, record.steps[1:], strict=False)]
    assert moved == [True, False, False, True, True]
    assert guard.skipped == 2
    assert guard.skipped_steps == [2, 3]
    assert all(torch.isfinite(value).all() for value in task.state_dict().values())
    lines = [entry.getMessage() for entry in caplog.records if "skipped" in entry.getMessage()]
    assert len(lines) == 2
    assert lines[0].startswith("step 2 skipped: the loss is nan (segmentation: ")
    assert lines[0].count("synthetic-5-") == 4


def test_too_many_in_a_row_end_the_run_with_a_diagnosis(tmp_path: Path) -> None:
    with pytest.raises(LossError, match=r"step 3: 3 steps in a row .*synthetic-5-\d+.*; the weights are finite"):
        train(tmp_path, {1, 2, 3}, LossGuard(patience=3))


def test_weights_that_are_no_numbers_are_told_apart(tmp_path: Path) -> None:
    class Spoil(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
            nn.init.constant_(next(pl_module.parameters()), math.nan)

    source = SyntheticSource(length=8, seed=5, size=64)
    trainer = make_trainer(tmp_path, callbacks=[Spoil(), LossGuard(patience=2)])
    with pytest.raises(LossError, match="the weights are not finite: training has diverged"):
        trainer.fit(make_task(source.taxonomy), make_data(source, source))


def test_accumulated_batches_are_left_out_together(tmp_path: Path) -> None:
    guard = LossGuard()
    record, _ = train(tmp_path, {2}, guard, accumulate_grad_batches=2)
    # Batches 2 and 3 make the second step.
    assert not same(record.steps[0], record.steps[1])
    assert same(record.steps[1], record.steps[3])
    assert not same(record.steps[3], record.steps[5])
    assert guard.skipped == 1


def test_steps_left_out_stand_in_the_summary(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    own = ("--config", str(tmp_path / "tiny.yaml"), "--trainer.default_root_dir", str(tmp_path))
    quick = ("--trainer.max_epochs=1", "--pictures.enabled=false", "--trainer.num_sanity_val_steps=0")
    loss = ("--model.segmentation_loss", "tests.callbacks.test_guard.BrokenAt", "--model.segmentation_loss.batches=[0]")
    main(["fit", *own, *quick, *loss])
    content = json.loads((tmp_path / "tiny" / "version_0" / "summary.json").read_text())
    assert (content["skipped_steps"], content["skipped_step_numbers"]) == (1, [0])


def test_a_continued_run_counts_on(tmp_path: Path) -> None:
    first, second = LossGuard(), LossGuard()
    train(tmp_path, {2}, first)
    second.load_state_dict(first.state_dict())
    train(tmp_path, {4}, second)
    assert (second.skipped, second.skipped_steps) == (2, [2, 4])
    second.load_state_dict({"skipped": 5, "in_a_row": 0})
    assert (second.skipped, second.skipped_steps) == (5, [])


def test_patience_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"guard\.patience: expected 1 or more, got 0"):
        LossGuard(0)


def member(folder: Path) -> tuple[int, list[bool], list[str]]:
    """Train on two processes, of which the second has a broken loss at its second step."""
    guard, lines = LossGuard(), []
    handler = logging.Handler()
    handler.emit = lambda entry: lines.append(entry.getMessage())  # type: ignore[method-assign]
    logging.getLogger("ocrnet_pl").addHandler(handler)
    record, _ = train(folder, {1}, guard, rank=1, devices=2, strategy="ddp")
    return guard.skipped, [same(a, b) for a, b in zip(record.steps, record.steps[1:], strict=False)], lines


def test_all_processes_leave_out_the_step_of_one(tmp_path: Path) -> None:
    first, second = run_together(tmp_path / "results", 2, member, tmp_path)
    assert first[:2] == second[:2] == (1, [True, False])
    assert first[2] == []
    assert len(second[2]) == 1
    assert "the loss on process 1 is nan (segmentation: " in second[2][0]
