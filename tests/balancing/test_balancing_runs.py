"""Balancing and the gradient log in whole runs: configs, checkpoints, averages, two processes."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger

from ocrnet_pl.balancing.methods import Balancing, DynamicWeightAverage, FixedWeights, GradNorm, PCGrad, Uncertainty
from ocrnet_pl.balancing.task_split import TaskSplit
from ocrnet_pl.callbacks.checkpoint import BestCheckpoint
from ocrnet_pl.callbacks.ema import EMA
from ocrnet_pl.callbacks.gradients import GradientLog
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.training.task import OCRNetTask
from tests.training.test_task import PartlyLabelled, always, even, make_data, make_task, make_trainer, odd

SHARES = {"train/grad_share_detection", "train/grad_share_segmentation", "train/grad_cosine"}


def source() -> SyntheticSource:
    return SyntheticSource(length=8, seed=5, size=64)


def fit(tmp_path: Path, task: OCRNetTask, callbacks: list[Callback] | None = None, **options: object) -> Trainer:
    settings = {"num_sanity_val_steps": 0, "limit_val_batches": 0, "callbacks": callbacks or []} | options
    trainer = make_trainer(tmp_path, **settings)
    trainer.fit(task, make_data(source(), source(), batch_size=2))
    return trainer


def seeded(**options: object) -> OCRNetTask:
    seed_everything(0, verbose=False)
    return make_task(source().taxonomy, **options)


def test_the_log_is_written_at_its_steps_only(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="run", version=0)
    task = seeded(balancing=DynamicWeightAverage())
    trainer = fit(tmp_path, task, [GradientLog(3)], max_epochs=2, logger=logger, log_every_n_steps=1)
    logger.save()
    with open(tmp_path / "run" / "version_0" / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/grad_cosine"]]
    assert [int(row["step"]) for row in rows] == [2, 5]
    for row in rows:
        assert float(row["train/grad_share_detection"]) + float(row["train/grad_share_segmentation"]) == pytest.approx(
            1
        )
        assert -1 <= float(row["train/grad_cosine"]) <= 1
        assert float(row["train/weight_detection"]) == 1
    assert set(trainer.callback_metrics) >= SHARES


@pytest.mark.parametrize("every", [1, 2])
def test_accumulated_batches_are_logged_once_a_step(tmp_path: Path, every: int) -> None:
    steps = []

    class Rows(CSVLogger):
        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
            if "train/grad_cosine" in metrics:
                steps.append(step)
            super().log_metrics(metrics, step)

    logger = Rows(tmp_path, name="run", version=0)
    fit(tmp_path, seeded(), [GradientLog(every)], accumulate_grad_batches=2, max_epochs=2, logger=logger)
    assert steps == [0, 1, 2, 3][every - 1 :: every]


def test_the_log_can_be_switched_off_and_a_single_task_has_none(tmp_path: Path) -> None:
    off = fit(tmp_path, seeded(), [GradientLog(0)])
    assert not SHARES & set(off.callback_metrics)
    for alone in ({"detection": None}, {"segmentation": None}):
        task = seeded(balancing=Uncertainty(), **alone)
        assert isinstance(task.balancing, FixedWeights) and not list(task.balancing.parameters())
        figures = fit(tmp_path, task, [GradientLog(1)]).callback_metrics
        assert not SHARES & set(figures) and math.isfinite(figures["train/loss"])
    with pytest.raises(ValueError, match=r"gradients\.every_n_steps: expected 0 or more, got -1"):
        GradientLog(-1)


class Products(Callback):
    """Keeps what every step measured, and how often the split stood in the graph."""

    def __init__(self) -> None:
        self.found: list[torch.Tensor | None] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        split = pl_module.network.split
        assert isinstance(split, TaskSplit)
        self.found.append(split.products)


def test_the_split_stands_in_the_graph_at_measured_steps_only(tmp_path: Path) -> None:
    kept = Products()
    fit(tmp_path, seeded(), [GradientLog(2), kept])
    assert [products is not None for products in kept.found] == [False, True, False, True]


def test_accumulated_batches_are_measured_together(tmp_path: Path) -> None:
    kept = Products()
    trainer = fit(tmp_path, seeded(), [GradientLog(1), kept], accumulate_grad_batches=2)
    first, both, third, _ = kept.found
    assert first is not None and both is not None and third is not None
    assert (both[:2] > first[:2]).all() and trainer.global_step == 2
    share = (both[0].sqrt() / both[:2].sqrt().sum()).item()
    assert share != pytest.approx((first[0].sqrt() / first[:2].sqrt().sum()).item(), rel=1e-4)


def test_the_default_gives_the_numbers_of_the_plain_weighted_sum(tmp_path: Path) -> None:
    class Plain(OCRNetTask):
        def losses(self, output, batch):  # type: ignore[no-untyped-def]
            first, second = self.detection_loss(output, batch), self.segmentation_loss(output, batch)
            return 2.0 * sum(first.values()) + 1.0 * sum(second.values()), first | second

    task = seeded(balancing=FixedWeights(detection=2.0))
    plain = seeded()
    plain.__class__ = Plain
    for each in (task, plain):
        torch.manual_seed(1)
        fit(tmp_path, each)
    for (name, want), got in zip(plain.network.named_parameters(), task.network.parameters(), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0, msg=name)


class StopInSecondEpoch(Callback):
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("stop here")


METHODS = [Uncertainty, lambda: DynamicWeightAverage(window=3), lambda: GradNorm(lr=0.1), PCGrad]


@pytest.mark.parametrize(
    "method",
    [METHODS[0], *(pytest.param(method, marks=pytest.mark.slow) for method in METHODS[1:4])],
    ids=["uncertainty", "dynamic", "gradnorm", "pcgrad"],
)
def test_a_run_continues_with_the_weights_it_had(tmp_path: Path, method: type[Balancing]) -> None:
    options: dict[str, object] = {"max_epochs": 3, "limit_val_batches": 1}
    whole = seeded(balancing=method())
    fit(tmp_path / "whole", whole, [EMA(0.5)], **options)

    checkpoint = BestCheckpoint(monitor="step", mode="min", save_on_exception=False)
    checkpoint.dirpath = str(tmp_path)
    with pytest.raises(RuntimeError, match="stop here"):
        callbacks = [EMA(0.5), StopInSecondEpoch(), checkpoint]
        fit(tmp_path / "half", seeded(balancing=method()), callbacks, **options, enable_checkpointing=True)

    torch.manual_seed(7)
    resumed = make_task(source().taxonomy, balancing=method())
    trainer = make_trainer(tmp_path / "rest", callbacks=[EMA(0.5)], num_sanity_val_steps=0, **options)
    data = make_data(source(), source(), batch_size=2)
    trainer.fit(resumed, data, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    state = resumed.state_dict()
    for name, want in whole.state_dict().items():
        if not name.startswith(("val_metrics", "test_metrics")):
            torch.testing.assert_close(state[name], want, rtol=0, atol=0, msg=name)
    weights = whole.balancing.weights()
    if weights is not None:
        # They have moved, and the average of them is still one that can be trained on.
        assert not torch.equal(weights, torch.ones(2)) and (weights > 0).all()


@pytest.mark.parametrize("method", METHODS, ids=["uncertainty", "dynamic", "gradnorm", "pcgrad"])
def test_every_method_trains_in_bf16_with_tasks_unlabelled_here_and_there(
    tmp_path: Path, method: type[Balancing]
) -> None:
    task = seeded(balancing=method())
    trainer = make_trainer(tmp_path, precision="bf16-mixed", limit_val_batches=0, callbacks=[GradientLog(1)])
    trainer.fit(task, make_data(PartlyLabelled(8, even, always), source(), batch_size=1))
    assert all(torch.isfinite(value).all() for value in task.state_dict().values())


class RankWeights(Callback):
    """Writes each process's weights, and what it logged, to a file of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.set_num_threads(1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        balancing = pl_module.balancing
        assert isinstance(balancing, Balancing)
        # Of the second task only one process has labels.
        dynamic, rank = DynamicWeightAverage(window=1), trainer.global_rank
        dynamic(torch.tensor(1.0 + rank), torch.tensor(4.0 * rank))
        dynamic.update(None)
        share = trainer.callback_metrics["train/grad_share_detection"]
        found = {"weights": balancing.weights(), "share": share, "means": dynamic.means}
        torch.save(found, self.folder / f"{rank}.pt")


def test_two_processes_have_the_same_weights(tmp_path: Path) -> None:
    """At a step one process often has boxes only and the other pixels only."""
    task = seeded(balancing=GradNorm(lr=0.1))
    two: dict[str, object] = {"strategy": "ddp_fork", "devices": 2, "limit_val_batches": 0, "max_epochs": 2}
    trainer = make_trainer(tmp_path, **two, callbacks=[GradientLog(1), RankWeights(tmp_path)])
    trainer.fit(task, make_data(PartlyLabelled(8, even, odd), source(), batch_size=1))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(first["weights"], second["weights"])
    assert torch.equal(first["share"], second["share"]) and 0 <= first["share"] <= 1
    assert not torch.equal(first["weights"], torch.ones(2))
    for found in (first, second):
        assert found["means"].tolist() == [[0, 0], [1.5, 4]]
