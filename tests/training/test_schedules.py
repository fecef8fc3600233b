"""Any scheduler of torch: the numbers that torch alone comes to, also in a run that continues or has no end."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    CyclicLR,
    LambdaLR,
    LRScheduler,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    StepLR,
)

from ocrnet_pl.callbacks.ema import EMA
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.storage.checkpoints import read_checkpoint
from ocrnet_pl.training.optimizers import FACTOR
from ocrnet_pl.training.schedules import Schedule, WarmupCosine, warmup_cosine
from tests.helpers.saved_runs import Stop, live, saver
from tests.training.test_resume import PEAK, STEP, STEPS, Watch, broken, train
from tests.training.test_task import make_data, make_task, make_trainer

__all__ = ["broken"]  # A run that was broken off after STEP steps, with the default schedule.

TOTAL = 2 * STEPS


def by_torch(factory: Callable[..., LRScheduler], steps: int, every: int = 1) -> list[tuple[float, float, float]]:
    """Return what torch alone makes of the encoder's rate, the decoders' rate and the first beta, step by step."""
    weights = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    optimizer = AdamW([{"params": [weights[0]], "lr": PEAK * 0.1}, {"params": [weights[1]], "lr": PEAK}])
    schedule = factory(optimizer)
    found = []
    for step in range(1, steps + 1):
        encoder, decoders = optimizer.param_groups
        found.append((encoder["lr"], decoders["lr"], decoders["betas"][0]))
        optimizer.step()
        if step % every == 0:
            schedule.step()
    return found


def seen(watch: Watch) -> list[tuple[float, float, float]]:
    return [(own["encoder"]["lr"], own["decoders"]["lr"], own["decoders"]["betas"][0]) for own in watch.groups]


# What a user writes, and what torch alone would have to be told.
CASES: dict[str, tuple[Any, str, Callable[[Optimizer], LRScheduler]]] = {
    "polynomial": (
        functools.partial(PolynomialLR, power=0.9),
        "step",
        lambda own: PolynomialLR(own, total_iters=TOTAL, power=0.9),
    ),
    "polynomial of a given length": (
        functools.partial(PolynomialLR, total_iters=9),
        "step",
        lambda own: PolynomialLR(own, total_iters=9),
    ),
    "polynomial by epochs": (
        functools.partial(PolynomialLR, total_iters=-1),
        "epoch",
        lambda own: PolynomialLR(own, total_iters=2),
    ),
    "one-cycle": (
        functools.partial(OneCycleLR, max_lr=0.01, total_steps=None),
        "step",
        lambda own: OneCycleLR(own, max_lr=[0.01 * 0.1, 0.01], total_steps=TOTAL),
    ),
    "cosine": (CosineAnnealingLR, "step", lambda own: CosineAnnealingLR(own, T_max=TOTAL)),
    "constant": (functools.partial(ConstantLR, factor=1.0), "step", lambda own: ConstantLR(own, factor=1.0)),
    "steps by epochs": (functools.partial(StepLR, step_size=1), "epoch", lambda own: StepLR(own, step_size=1)),
    "function": (lambda own: StepLR(own, step_size=3), "step", lambda own: StepLR(own, step_size=3)),
}


MORE_OF_A_KIND = ("polynomial of a given length", "cosine", "constant")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in MORE_OF_A_KIND else name for name in CASES]
)
def test_a_run_that_continues_has_the_rates_of_the_schedule_it_is_given(
    name: str, broken: Path, tmp_path: Path
) -> None:
    """The first part ran with another schedule, whose traces must not be seen."""
    factory, interval, reference = CASES[name]
    watch = train(tmp_path, ckpt_path=broken, task={"scheduler": factory, "scheduler_interval": interval})
    assert seen(watch) == by_torch(reference, TOTAL, STEPS if interval == "epoch" else 1)[STEP:]


@pytest.mark.parametrize(
    ("name", "stop"), [("one-cycle", STEP), pytest.param("steps by epochs", STEPS, marks=pytest.mark.slow)]
)
def test_a_run_broken_off_and_continued_is_the_whole_run(name: str, stop: int, tmp_path: Path) -> None:
    factory, interval, reference = CASES[name]
    task = {"scheduler": factory, "scheduler_interval": interval}
    whole = train(tmp_path / "whole", EMA(0.9), task=task)
    with pytest.raises(RuntimeError, match="broken off"):
        stopping = Stop("on_train_batch_start", stop)
        train(tmp_path / "part", EMA(0.9), saver(tmp_path / "part", every_n_steps=1), stopping, task=task)
    again = train(tmp_path / "again", EMA(0.9), ckpt_path=tmp_path / "part" / "last.ckpt", task=task)
    assert seen(whole) == by_torch(reference, TOTAL, STEPS if interval == "epoch" else 1)
    assert again.groups == whole.groups[stop:]
    want, got = (read_checkpoint(tmp_path / name / "last.ckpt") for name in ("whole", "again"))
    assert want["lr_schedulers"] == got["lr_schedulers"]
    assert all(torch.equal(value, live(got)[name]) for name, value in live(want).items())


def test_more_epochs_count_from_the_first_step_that_continues(broken: Path, tmp_path: Path) -> None:
    task = {"scheduler": PolynomialLR, "scheduler_interval": "epoch"}
    watch = train(tmp_path, ckpt_path=broken, task=task, max_epochs=4, max_steps=16)
    # 16 steps begin a third epoch of 7; more there are not.
    assert seen(watch) == by_torch(lambda own: PolynomialLR(own, total_iters=3), 16, STEPS)[STEP:]


class StopAfter(Callback):
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        trainer.should_stop = trainer.global_step >= self.steps


@pytest.mark.parametrize("name", ["constant", "steps by epochs"])
def test_a_schedule_that_asks_for_no_end_trains_until_somebody_stops_it(name: str, tmp_path: Path) -> None:
    factory, interval, reference = CASES[name]
    task = {"scheduler": factory, "scheduler_interval": interval}
    watch = train(tmp_path, StopAfter(9), task=task, max_epochs=-1)
    assert seen(watch) == by_torch(reference, 9, STEPS if interval == "epoch" else 1)


def test_the_default_and_others_that_ask_for_an_end_are_refused_without_one(tmp_path: Path) -> None:
    source = SyntheticSource(length=8, seed=5, size=64)
    for factory, name in ((WarmupCosine, "WarmupCosine"), (CASES["one-cycle"][0], "OneCycleLR")):
        trainer, task = make_trainer(tmp_path, max_epochs=-1), make_task(source.taxonomy, scheduler=factory)
        with pytest.raises(ValueError, match=f"the schedule {name} needs the end of the run; set max_epochs or"):
            trainer.fit(task, make_data(source, source))


def optimizer_of_groups() -> SGD:
    factors = {"encoder": {FACTOR: 0.25}, "decoders": {}}
    groups: list[Any] = [{"params": [torch.zeros(1, requires_grad=True)], "name": n} | f for n, f in factors.items()]
    return SGD(groups, lr=1.0, momentum=0.9)


@pytest.mark.parametrize(
    ("factory", "length", "reason"),
    [
        (ReduceLROnPlateau, 10, "ReduceLROnPlateau follows a figure instead of the steps"),
        (functools.partial(OneCycleLR, max_lr=1.0, total_steps=9), 10, "OneCycleLR ends after 9 steps, before the run"),
        (functools.partial(OneCycleLR, max_lr=[1.0, 1.0, 1.0]), 10, "OneCycleLR: .*max_lr"),
        (functools.partial(WarmupCosine, warmup_steps=-1), 10, "WarmupCosine: warmup_steps: expected at least 0"),
        (
            functools.partial(WarmupCosine, final_lr=2.0),
            10,
            "WarmupCosine: final_lr: expected .* at most 1, got 2.0",
        ),
        (functools.partial(WarmupCosine, total_steps=-2), 10, "WarmupCosine: total_steps: only a task replaces -2"),
        (lambda _: 3, 10, "returns no scheduler of torch, but 3"),
    ],
)
def test_a_schedule_that_cannot_be_is_one_line(factory: Any, length: int, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^model.scheduler: .*{reason}") as refused:
        Schedule(factory, "step").build(optimizer_of_groups(), length)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("rate", [2.0, [2.0, 2.0]], ids=["single", "list"])
@pytest.mark.parametrize("kind", [OneCycleLR, CyclicLR])
def test_rates_that_a_scheduler_names_are_lower_in_the_encoder(kind: Any, rate: Any) -> None:
    optimizer = optimizer_of_groups()
    given = {"base_lr": 0.1, "step_size_up": 3} if kind is CyclicLR else {}
    schedule = Schedule(functools.partial(kind, max_lr=rate, **given), "step").build(optimizer, 10)
    highest = [0.0, 0.0]
    for _ in range(10):
        highest = [max(high, group["lr"]) for high, group in zip(highest, optimizer.param_groups, strict=True)]
        optimizer.step()
        schedule.step()
    assert highest == pytest.approx([0.5, 2.0])


def test_both_lengths_of_one_cycle_are_read() -> None:
    factory = functools.partial(OneCycleLR, max_lr=1.0, epochs=5, steps_per_epoch=4)
    schedule: Any = Schedule(factory, "step").build(optimizer_of_groups(), 10)
    assert schedule.total_steps == 20


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = LambdaLR(optimizer, warmup_cosine(total_steps=110, warmup_steps=10, final=0.1))
    rates = []
    for _ in range(111):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:3] == pytest.approx([2 / 11, 4 / 11, 6 / 11])
    assert rates[10] == max(rates) == 2.0
    assert rates[60] == pytest.approx(2 * (0.1 + 0.9 / 2))
    assert rates[110] == pytest.approx(0.2)


def test_a_short_run_warms_up_for_a_third_of_it_and_reaches_the_peak() -> None:
    factor = warmup_cosine(total_steps=9, warmup_steps=100, final=0.01)
    assert [factor(step) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert factor(9) == pytest.approx(0.01)
    # At most: a warm-up that is shorter stays as it is.
    assert warmup_cosine(total_steps=9, warmup_steps=1, final=0.01)(1) == 1.0
