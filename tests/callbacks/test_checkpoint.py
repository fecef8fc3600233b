"""When checkpoints are saved, and that a run which continues from one loses nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ocrnet_pl.callbacks.checkpoint import BestCheckpoint
from ocrnet_pl.callbacks.ema import EMA
from ocrnet_pl.callbacks.guard import LossGuard
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.storage.checkpoints import read_checkpoint
from tests.callbacks.test_guard import BrokenAt
from tests.helpers.saved_runs import Figure, Stop, fit, live, saver
from tests.training.test_task import make_data, make_task, make_trainer


def test_steps_inside_an_epoch_are_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"checkpoint\.every_n_steps: expected 0 or more, got -1"):
        BestCheckpoint(every_n_steps=-1)
    seen: list[int] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
            path = Path(trainer.checkpoint_callback.dirpath) / "last.ckpt"
            seen.append(read_checkpoint(path)["global_step"] if path.is_file() else 0)

    source = SyntheticSource(length=28, seed=5, size=64)
    trainer = make_trainer(
        tmp_path, callbacks=[Watch(), BestCheckpoint(every_n_steps=3)], enable_checkpointing=True, max_epochs=1
    )
    trainer.fit(make_task(source.taxonomy), make_data(source, source))
    assert seen == [0, 0, 0, 3, 3, 3, 6]


@pytest.mark.parametrize("length", [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 5}], ids=["epochs", "steps"])
def test_what_comes_after_the_last_validation_is_saved_too(tmp_path: Path, length: dict[str, int]) -> None:
    """With the live weights, from which training goes on, beside the average."""
    seen: dict[str, torch.Tensor] = {}

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
            seen.update({name: value.detach().clone() for name, value in pl_module.state_dict().items()})

    trainer = fit(tmp_path, Watch(), EMA(0.9), saver(tmp_path), check_val_every_n_epoch=2, **length)
    last = read_checkpoint(tmp_path / "last.ckpt")
    assert last["global_step"] == trainer.global_step
    assert all(torch.equal(value, seen[name]) for name, value in live(last).items())
    averaged = trainer.lightning_module.state_dict()
    assert all(torch.equal(value, averaged[name]) for name, value in last["state_dict"].items())
    assert not all(torch.equal(value, seen[name]) for name, value in last["state_dict"].items())


def test_a_continued_run_has_the_best_of_the_one_before(tmp_path: Path) -> None:
    first = saver(tmp_path / "first", monitor="figure")
    fit(tmp_path, Figure(), first, max_epochs=2)
    second = saver(tmp_path / "second", monitor="figure")
    fit(tmp_path, Figure(), second, max_epochs=4, ckpt_path=tmp_path / "first" / "last.ckpt")
    best = Path(second.best_model_path)
    assert best.parent == tmp_path / "second"
    assert best.samefile(first.best_model_path)
    assert float(second.best_model_score) == 1
    assert sorted(path.name for path in best.parent.iterdir()) == [best.name, "last.ckpt", "previous.ckpt"]
    # The folder of the first run is no longer needed.
    shutil.rmtree(tmp_path / "first")
    (tmp_path / "second").rename(tmp_path / "moved")
    third = saver(tmp_path / "third", monitor="figure")
    fit(tmp_path, Figure(), third, max_epochs=5, ckpt_path=tmp_path / "moved" / "last.ckpt")
    assert Path(third.best_model_path).samefile(tmp_path / "moved" / best.name)
    (tmp_path / "moved" / best.name).unlink()
    fourth = saver(tmp_path / "fourth", monitor="figure")
    fit(tmp_path, Figure(), fourth, max_epochs=5, ckpt_path=tmp_path / "moved" / "last.ckpt")
    assert Path(fourth.best_model_path).parent == tmp_path / "fourth"
    assert float(fourth.best_model_score) == pytest.approx(1 / 5)


def test_while_steps_are_left_out_no_checkpoint_is_replaced(tmp_path: Path) -> None:
    saved: list[int] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
            path = tmp_path / "last.ckpt"
            saved.append(read_checkpoint(path)["global_step"] if path.is_file() else 0)

    guards = LossGuard(), Watch(), saver(tmp_path, every_n_steps=1)
    fit(tmp_path, *guards, loss=BrokenAt({2, 3}), length=28, max_epochs=1)
    assert saved == [0, 1, 2, 2, 2, 5, 6]


def test_accumulated_batches_are_not_parted(tmp_path: Path) -> None:
    saved: list[tuple[int, int]] = []

    class Watch(BestCheckpoint):
        def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: Any) -> None:
            progress = trainer.fit_loop.epoch_loop.batch_progress.current
            saved.append((trainer.global_step, progress.processed))

    class Break(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
        ) -> None:
            if batch_idx == 6:
                raise RuntimeError("broken off")

    watch = Watch(every_n_steps=1)
    with pytest.raises(RuntimeError, match="broken off"):
        fit(tmp_path, watch, Break(), accumulate_grad_batches=4, length=40)
    assert saved == [(1, 4)]


class Count(Callback):
    """Counts the images of each validation."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append(0)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: object
    ) -> None:
        self.seen[-1] += len(batch)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The last checkpoint of a run that nobody broke off."""
    folder = tmp_path_factory.mktemp("undisturbed")
    fit(folder, saver(folder), max_epochs=3)
    return read_checkpoint(folder / "last.ckpt")


BREAKS = [
    ("on_validation_batch_end", 2, [5, 5, 5]),
    ("on_validation_start", 2, [5, 5, 5]),
    ("on_before_backward", 3, [5, 5]),
    ("on_train_batch_start", 2, [5, 5]),
    ("on_validation_batch_end", 6, [5]),
]
"""Where a run is broken off, and the images of each validation that is then left."""


@pytest.mark.parametrize(
    ("hook", "step", "left", "every"),
    [
        *(pytest.param(*case, 0, id=f"{case[0]}-{case[1]}-after validation") for case in BREAKS),
        # Steps inside of an epoch matter where it is broken off; the others differ by nothing that is saved in one.
        *(
            pytest.param(
                *case, 2, id=f"{case[0]}-{case[1]}-every second step", marks=[pytest.mark.slow] * (place not in (0, 2))
            )
            for place, case in enumerate(BREAKS)
        ),
    ],
)
def test_no_validation_is_lost_where_a_run_was_broken_off(
    tmp_path: Path, undisturbed: dict[str, Any], hook: str, step: int, left: list[int], every: int
) -> None:
    """Two steps and a validation an epoch; the continued run ends with the weights of one that nobody broke off."""
    with pytest.raises(RuntimeError, match="broken off"):
        saved = saver(tmp_path / "one", every_n_steps=every)
        # Two batches.
        fit(tmp_path, Stop(hook, step), LossGuard(), saved, max_epochs=3, val=5)
    count = Count()
    fit(tmp_path, count, saver(tmp_path / "two"), max_epochs=3, val=5, ckpt_path=tmp_path / "one" / "last.ckpt")
    assert count.seen == left
    want, got = undisturbed, read_checkpoint(tmp_path / "two" / "last.ckpt")
    assert (want["global_step"], want["epoch"]) == (got["global_step"], got["epoch"])
    # A norm of a fixed momentum counts its batches and makes no use of the number.
    weights = {name: value for name, value in want["state_dict"].items() if "num_batches_tracked" not in name}
    assert all(torch.equal(value, got["state_dict"][name]) for name, value in weights.items())
