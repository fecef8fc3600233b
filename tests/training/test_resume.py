"""Runs that continue from a checkpoint follow their own settings, from the first step on."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ocrnet_pl.callbacks.continuation import Continuation
from ocrnet_pl.callbacks.early_stopping import EarlyStopping
from ocrnet_pl.callbacks.ema import EMA
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.storage.checkpoints import read_checkpoint
from ocrnet_pl.structures import Batch
from ocrnet_pl.training.resume import Pace, effects, pace_of
from ocrnet_pl.training.schedules import WarmupCosine
from tests.helpers.builders import TinyEncoder
from tests.helpers.saved_runs import Stop, live, saver
from tests.training.test_task import make_data, make_task, make_trainer

STEP, STEPS = 5, 7
"""The step after which the first run is broken off, and the steps of one of its two epochs."""
PEAK, WARMUP, FINAL = 1e-3, 3, 0.01


class Watch(Callback):
    """Keeps what the optimiser has at each step: by group its settings; and the moments' norm."""

    def __init__(self) -> None:
        self.groups: list[dict[str, dict[str, Any]]] = []
        self.moments: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.groups.append({g["name"]: {k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups})
        averages = [state["exp_avg"] for state in optimizer.state.values() if "exp_avg" in state]
        self.moments.append(float(sum(each.norm() for each in averages)))

    def rates(self, group: str = "decoders") -> list[float]:
        return [own[group]["lr"] for own in self.groups]


class Pretrained(TinyEncoder):
    """Says that it began with pretrained weights."""

    def __init__(self, frozen: bool = False) -> None:
        super().__init__()
        self.pretrained = True
        self.stages[0].requires_grad_(not frozen)


def train(
    folder: Path,
    *callbacks: Callback,
    ckpt_path: Path | None = None,
    task: dict[str, Any] | None = None,
    batch_size: int = 4,
    **options: Any,
) -> Watch:
    """Train on 28 images, two epochs unless asked otherwise, and return what the optimiser had."""
    seed_everything(0, verbose=False)
    source, val = (SyntheticSource(length=length, seed=5, size=64) for length in (4 * STEPS, 2))
    watch = Watch()
    settings: dict[str, Any] = {"max_epochs": 2, "enable_checkpointing": True, "limit_val_batches": 0} | options
    # The command line adds it, for the count of the epoch's batches.
    more = [] if ckpt_path is None else [Continuation(folder, STEP)]
    if not any(isinstance(each, Stop) for each in callbacks):
        callbacks = (*callbacks, saver(folder))
    trainer = make_trainer(folder, callbacks=[watch, *callbacks, *more], **settings)
    parts = {"encoder": Pretrained(), "scheduler": cosine()} | (task or {})
    trainer.fit(
        make_task(source.taxonomy, **parts), make_data(source, val, batch_size), ckpt_path=ckpt_path, weights_only=True
    )
    return watch


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a run that was broken off after :data:`STEP` steps."""
    folder = tmp_path_factory.mktemp("broken")
    with pytest.raises(RuntimeError, match="broken off"):
        train(folder, EMA(0.9), saver(folder, every_n_steps=1), Stop("on_train_batch_start", STEP))
    assert read_checkpoint(folder / "last.ckpt")["global_step"] == STEP
    return folder / "last.ckpt"


def by_hand(total: int, peak: float = PEAK, warmup: int = WARMUP, final: float = FINAL) -> list[float]:
    """Return the rates from the first step that continues to the last."""
    warmup = min(warmup, total // 3)
    rates = []
    for step in range(STEP, total):
        if step < warmup:
            rates.append(peak * (step + 1) / (warmup + 1))
        else:
            share = (step - warmup) / (total - warmup)
            rates.append(peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * share))))
    return rates


def cosine(warmup: int = WARMUP, final: float = FINAL) -> Callable[..., LRScheduler]:
    return functools.partial(WarmupCosine, warmup_steps=warmup, final_lr=final)


def adamw(**options: Any) -> Callable[..., Optimizer]:
    return functools.partial(AdamW, **({"lr": PEAK, "weight_decay": 0.05} | options))


def test_a_run_in_which_nothing_changed_is_the_one_that_was_not_broken_off(broken: Path, tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", EMA(0.9))
    again = train(tmp_path / "again", EMA(0.9), ckpt_path=broken)
    assert again.groups == whole.groups[STEP:]
    want, got = (read_checkpoint(tmp_path / name / "last.ckpt") for name in ("whole", "again"))
    assert want["optimizer_states"][0]["param_groups"] == got["optimizer_states"][0]["param_groups"]
    assert want["lr_schedulers"] == got["lr_schedulers"]
    assert all(torch.equal(value, live(got)[name]) for name, value in live(want).items())


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({"task": {"optimizer": adamw(lr=5e-4)}}, by_hand(14, peak=5e-4)),
        pytest.param({"max_epochs": 3}, by_hand(21), marks=pytest.mark.slow),
        pytest.param({"max_epochs": -1, "max_steps": 9}, by_hand(9), marks=pytest.mark.slow),
        ({"max_epochs": 4, "max_steps": 12}, by_hand(12)),
        ({"max_epochs": 3, "task": {"scheduler": cosine(7, 0.5)}}, by_hand(21, warmup=7, final=0.5)),
        # 5 of 7 steps of the first epoch are done; half as many images per step are twice as many steps.
        ({"batch_size": 2}, by_hand(5 + 4 + 14)),
        ({"accumulate_grad_batches": 2}, by_hand(5 + 2 + 4)),
    ],
    ids=["lr", "max_epochs", "max_steps", "both", "schedule", "batch_size", "accumulate"],
)
def test_the_rate_is_that_of_the_settings_from_the_first_step_on(
    options: dict[str, Any], want: list[float], broken: Path, tmp_path: Path
) -> None:
    watch = train(tmp_path, ckpt_path=broken, **options)
    assert watch.rates() == pytest.approx(want, rel=1e-12)
    assert watch.rates("encoder") == pytest.approx([0.1 * rate for rate in want], rel=1e-12)
    assert watch.moments[0] > 0


def test_steps_of_another_size_count_for_the_epochs_that_they_were_part_of() -> None:
    pace = Pace(7)
    assert pace.continued(7, 5) is pace
    assert pace.total_steps(3) == 21
    half = pace.continued(14, 7)
    assert (half.epochs, half.total_steps(3)) == (1.0, 7 + 28)
    assert half.continued(7, 21) == Pace(7, 21, 2.0)


@pytest.mark.parametrize("entry", [1, {"steps_per_epoch": 0}, {"a": 1}, {"steps_per_epoch": "7"}])
def test_a_pace_that_is_none_is_refused(entry: object) -> None:
    with pytest.raises(CheckpointError, match="its entry 'pace' is not one of this project"):
        pace_of({"pace": entry})


def test_the_optimisers_other_settings_are_the_runs_own(broken: Path, tmp_path: Path) -> None:
    options = {"betas": (0.8, 0.95), "weight_decay": 0.2, "eps": 1e-6, "amsgrad": False}
    watch = train(tmp_path, ckpt_path=broken, task={"optimizer": adamw(**options), "encoder_lr": 0.5})
    for own in watch.groups:
        assert own["encoder"]["lr"] == pytest.approx(0.5 * own["decoders"]["lr"])
        for name, group in own.items():
            wanted = options | {"weight_decay": 0.0 if name.endswith("no_decay") else 0.2}
            assert {key: group[key] for key in wanted} == wanted, name
    assert watch.moments[0] > 0


def test_an_encoder_without_its_weights_file_keeps_the_lower_rate(broken: Path, tmp_path: Path) -> None:
    watch = train(tmp_path, ckpt_path=broken, task={"encoder": TinyEncoder()})
    assert watch.rates("encoder") == pytest.approx([0.1 * rate for rate in by_hand(14)])


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ({"optimizer": functools.partial(SGD, lr=0.1, momentum=0.9)}, r"of torch\.optim\.adamw\.AdamW, this is"),
        ({"optimizer": adamw(amsgrad=True)}, "amsgrad False -> True needs others"),
        ({"encoder": Pretrained(frozen=True)}, "other weights are trained than before .group 'encoder': 3 tensors"),
    ],
    ids=["another class", "switch", "frozen stages"],
)
def test_moments_that_do_not_fit_start_anew_and_a_line_says_so(
    task: dict[str, Any], reason: str, broken: Path, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match=f"the optimiser starts with fresh moments: .*{reason}"):
        watch = train(tmp_path, ckpt_path=broken, task=task)
    peak = 0.1 if "SGD" in str(task) else PEAK
    assert watch.rates() == pytest.approx(by_hand(14, peak=peak))
    assert watch.moments[0] == 0
    # Whose own state a checkpoint then holds, and goes on from.
    train(tmp_path / "third", ckpt_path=tmp_path / "last.ckpt", task=task, max_epochs=3, max_steps=15)


def test_an_average_begins_ends_and_changes_with_its_decay(broken: Path, tmp_path: Path) -> None:
    content = read_checkpoint(broken)
    started: list[dict[str, torch.Tensor]] = []

    class Look(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
            started.append({name: value.detach().clone() for name, value in pl_module.state_dict().items()})

    # Without an average the live weights go on, and not the average, to which the moments do not belong.
    train(tmp_path / "off", Look(), EMA(0.0), ckpt_path=broken, max_steps=7)
    assert all(torch.equal(value, started[0][name]) for name, value in live(content).items())
    assert not all(torch.equal(value, live(content)[name]) for name, value in content["state_dict"].items())
    assert "averaging_state" not in read_checkpoint(tmp_path / "off" / "last.ckpt")
    ema = EMA(0.5)
    train(tmp_path / "on", ema, ckpt_path=tmp_path / "off" / "last.ckpt", max_steps=10)
    assert ema.current_decay(10**6) == 0.5
    last = read_checkpoint(tmp_path / "on" / "last.ckpt")
    assert not all(torch.equal(value, live(last)[name]) for name, value in last["state_dict"].items())


class Steps(Callback):
    """Keeps epoch, batch, step and images of each step, the step that loggers are told, and when validations were."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int, int, int, tuple[int | str, ...]]] = []
        self.validations: list[int] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        told = trainer.fit_loop.epoch_loop._batches_that_stepped
        self.steps.append((trainer.current_epoch, batch_idx, trainer.global_step, told, tuple(batch.image_ids)))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validations.append(trainer.global_step)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"max_epochs": 1, "limit_val_batches": 1}, {"max_epochs": 2}),
        ({"max_epochs": 2, "max_steps": 5}, {"max_epochs": 2, "limit_val_batches": 1}),
        ({"max_epochs": 1}, {"max_steps": 14, "max_epochs": -1, "limit_val_batches": 1}),
        pytest.param(
            {"max_epochs": 1, "limit_val_batches": 1}, {"max_steps": 14, "max_epochs": -1}, marks=pytest.mark.slow
        ),
        pytest.param({"max_steps": 5, "max_epochs": -1}, {"max_steps": 14, "max_epochs": -1}, marks=pytest.mark.slow),
        pytest.param({"max_steps": 7, "max_epochs": -1}, {"max_epochs": 2}, marks=pytest.mark.slow),
    ],
)
def test_whatever_ended_the_first_run_the_second_makes_the_rest(
    first: dict[str, Any], second: dict[str, Any], tmp_path: Path
) -> None:
    """Each image of an epoch once, each validation once, and as many steps as the settings say."""
    whole, before, after = Steps(), Steps(), Steps()
    train(tmp_path / "whole", whole, limit_val_batches=1)
    train(tmp_path / "one", before, **first)
    train(tmp_path / "two", after, ckpt_path=tmp_path / "one" / "last.ckpt", **second)
    assert before.steps + after.steps == whole.steps
    assert len(whole.steps) == 14 and len({images for *_, images in whole.steps[:7]}) == 7
    asked = [step for step in (7, 14) if step > before.steps[-1][2] + 1]
    assert after.validations == (asked if "limit_val_batches" in second else [])


def test_patience_is_the_runs_own(tmp_path: Path) -> None:
    """The figure never gets better: the first validation is the best."""

    class Figure(Callback):
        def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            pl_module.log("figure", -float(trainer.current_epoch))

    def stopping(patience: int) -> EarlyStopping:
        return EarlyStopping("figure", patience=patience, mode="max", check_on_train_epoch_end=False)

    train(tmp_path / "one", Figure(), stopping(30), limit_train_batches=1, limit_val_batches=1, max_epochs=3)
    shorter = stopping(3)
    train(
        tmp_path / "two",
        Figure(),
        shorter,
        limit_train_batches=1,
        max_epochs=9,
        limit_val_batches=1,
        ckpt_path=tmp_path / "one" / "last.ckpt",
    )
    # Two validations without a better figure were behind it.
    assert (shorter.patience, shorter.wait_count) == (3, 3)
    assert read_checkpoint(tmp_path / "two" / "last.ckpt")["epoch"] == 3


def test_the_line_says_what_does_not_take_effect() -> None:
    lines = [
        "model.encoder.init_args.weights 'a.pth' -> None",
        "model.optimizer.class_path 'torch.optim.AdamW' -> 'torch.optim.SGD'",
        "timm 0.9.0 -> 1.0.0",
    ]
    assert effects(lines) == [
        "model.optimizer.class_path 'torch.optim.AdamW' -> 'torch.optim.SGD' (its moments start from zero)",
        "timm 0.9.0 -> 1.0.0",
        "does not take effect: model.encoder.init_args.weights 'a.pth' -> None (the weights are the checkpoint's)",
    ]
