"""A run that is told to stop, on one process or on one of several."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from PIL import Image

from ocrnet_pl.callbacks.checkpoint import BestCheckpoint
from ocrnet_pl.callbacks.stopping import GracefulStop
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.storage.checkpoints import read_checkpoint
from tests.helpers.processes import run_together
from tests.training.test_task import make_data, make_task, make_trainer


class TellAt(Callback):
    """Sends SIGTERM to one of the processes, in the middle of a step or of validation."""

    def __init__(self, step: int, rank: int, hook: str) -> None:
        self.step, self.rank = step, rank
        setattr(self, hook, self._tell)

    def _tell(self, trainer: Trainer, *args: object) -> None:
        if trainer.global_step == self.step and trainer.global_rank == self.rank and not trainer.sanity_checking:
            os.kill(os.getpid(), signal.SIGTERM)


def stopped_at(
    folder: Path,
    rank: int = 0,
    hook: str = "on_before_backward",
    step: int = 2,
    late: bool = False,
    length: int = 64,
    **options: object,
) -> int:
    source = SyntheticSource(length=length, seed=5, size=64)
    callbacks = [TellAt(step, rank, hook), GracefulStop(), BestCheckpoint()]
    if late:
        callbacks[:2] = callbacks[1::-1]
    trainer = make_trainer(folder, callbacks=callbacks, enable_checkpointing=True, max_epochs=9, **options)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SIGTERMException):
        trainer.fit(make_task(source.taxonomy), make_data(source, source))
    assert signal.getsignal(signal.SIGTERM) == before
    assert trainer.received_sigterm
    return trainer.global_step


def last(folder: Path) -> int:
    return int(read_checkpoint(next(folder.rglob("last.ckpt")))["global_step"])


def test_one_process_stops_after_its_step(tmp_path: Path) -> None:
    assert stopped_at(tmp_path) == 3
    assert last(tmp_path) == 3


def test_accumulated_batches_come_to_their_end(tmp_path: Path) -> None:
    # Told in the first of four batches.
    assert stopped_at(tmp_path, step=1, accumulate_grad_batches=4) == 2
    progress = read_checkpoint(next(tmp_path.rglob("last.ckpt")))["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    assert progress["current"]["completed"] == 8


def test_one_process_leaves_validation(tmp_path: Path) -> None:
    # 4 steps an epoch.
    assert stopped_at(tmp_path, hook="on_validation_batch_end", step=4, length=16) == 4
    assert last(tmp_path) == 4


def test_one_process_leaves_the_validation_before_which_it_is_told(tmp_path: Path) -> None:
    # After the epoch's last step has asked.
    assert stopped_at(tmp_path, hook="on_train_batch_end", step=4, length=16, late=True) == 4
    assert last(tmp_path) == 4


def test_a_prediction_stops_before_the_next_batch(tmp_path: Path) -> None:
    """After what it has found in the batch is written, wherever the callback that writes stands."""

    class Count(Callback):
        batches = 0

        def on_predict_batch_end(self, trainer: Trainer, *args: object) -> None:
            Count.batches += 1

    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    for name in "bcd":
        shutil.copy(tmp_path / "a.png", tmp_path / f"{name}.png")
    source = SyntheticSource(length=4, seed=5, size=64)
    trainer = make_trainer(tmp_path, callbacks=[GracefulStop(), TellAt(0, 0, "on_predict_batch_end"), Count()])
    data = JointDataModule(source, predict_path=str(tmp_path), size=64, eval_batch_size=1, num_workers=0)
    with pytest.raises(SIGTERMException):
        trainer.predict(make_task(source.taxonomy), data, return_predictions=False)
    assert Count.batches == 1


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_all_processes_stop_after_the_same_step_whichever_is_told(rank: int, tmp_path: Path) -> None:
    options = {"devices": 2, "strategy": "ddp"}
    steps = run_together(tmp_path / "results", 2, stopped_at, tmp_path / "run", rank, **options)
    # Told in the middle of the third step, after the processes agreed to make it: the fourth is the last.
    assert steps == [4, 4]
    assert last(tmp_path / "run") == 4
