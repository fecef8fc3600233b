"""How far a run is, for whoever watches it from outside: ``status.json``."""

from __future__ import annotations

import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ocrnet_pl.callbacks.run_folder import run_folder
from ocrnet_pl.callbacks.summary import ending
from ocrnet_pl.callbacks.throughput import Throughput
from ocrnet_pl.storage.files import records, write_json

_SECONDS = 5.0
_LONGEST = 600.0


class RunStatus(Callback):
    """Renews ``status.json`` in the run's folder while the run lasts, every few seconds and after each validation.

    The file contains: ``command`` (the subcommand), ``state`` (``running``, and at the end ``finished``,
    ``interrupted``, ``incomplete`` as in ``summary.json``, or ``failed``), ``stage`` (``training``, ``validation``,
    ``test`` or ``prediction``), ``batch`` of ``batches`` of that stage, ``epoch`` of ``epochs`` and ``step`` of
    ``steps`` (null where there is no end), ``images_per_s``, ``seconds_left`` (null while it is unknown), ``loss`` (the
    last one logged), ``figures`` (of the last validation or test, by their logged names), ``started`` and ``updated``
    (UTC), ``host``, ``process`` (the number of the first process) and ``processes``. It is replaced as a whole, so that
    a reader never meets half of it. A run that was killed still says ``running``: ``updated`` then stays behind.

    Args:
        throughput: Callback that measures the images per second.
    """

    def __init__(self, throughput: Throughput) -> None:
        self._throughput = throughput
        self._folder: Path | None = None
        self._started = _now()
        self._due, self._pause = 0.0, _SECONDS
        self._stage, self._epoch, self._batch, self._batches = "training", 0, 0, 0.0
        self._figures: dict[str, float] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the run's folder."""
        folder = run_folder(trainer)
        self._folder = folder if trainer.is_global_zero else None
        self._started = _now()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Renew the file if it is time."""
        self._advance(trainer, "training", batch_idx, trainer.num_training_batches)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Renew the file if it is time."""
        if not trainer.sanity_checking:
            self._advance(trainer, "validation", batch_idx, sum(trainer.num_val_batches))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Renew the file if it is time."""
        self._advance(trainer, "test", batch_idx, sum(trainer.num_test_batches))

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Renew the file if it is time."""
        self._advance(trainer, "prediction", batch_idx, sum(trainer.num_predict_batches))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the figures and renew the file."""
        if not trainer.sanity_checking:
            self._keep(trainer, "val/")
            self._write(trainer, "running")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the figures."""
        self._keep(trainer, "test/")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how it ended."""
        self._write(trainer, ending(trainer))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say how it ended."""
        stopped = isinstance(exception, KeyboardInterrupt | SIGTERMException)
        self._write(trainer, "interrupted" if stopped else "failed")
        self._folder = None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say how it ended, where there is no hook for the end."""
        if stage != "fit" and stage == trainer.state.fn:
            self._write(trainer, "finished")

    def _keep(self, trainer: Trainer, stage: str) -> None:
        self._figures = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith(stage)}

    def _advance(self, trainer: Trainer, stage: str, batch: int, batches: float) -> None:
        self._stage, self._epoch, self._batch, self._batches = stage, trainer.current_epoch + 1, batch + 1, batches
        if time.monotonic() >= self._due:
            self._write(trainer, "running")

    def _write(self, trainer: Trainer, state: str) -> None:
        if self._folder is None:
            return
        fitting = trainer.state.fn == "fit"
        epochs, steps = trainer.max_epochs, trainer.estimated_stepping_batches if fitting else None
        loss = trainer.logged_metrics.get("train/loss")
        content = {
            "command": str(getattr(trainer.state.fn, "value", "")),
            "state": state,
            "stage": self._stage,
            "batch": self._batch,
            "batches": self._batches,
            "epoch": self._epoch if fitting else None,
            "epochs": epochs if fitting and epochs is not None and epochs > 0 else None,
            "step": trainer.global_step if fitting else None,
            "steps": steps,
            "images_per_s": round(self._throughput.images_per_s, 2),
            "seconds_left": self._throughput.seconds_left(trainer) if fitting and state == "running" else None,
            "loss": None if loss is None else float(loss),
            "figures": self._figures,
            "started": self._started,
            "updated": _now(),
            "host": socket.gethostname(),
            "process": os.getpid(),
            "processes": trainer.world_size,
        }
        written = False
        with records("status.json"):
            write_json(self._folder / "status.json", content)
            written = True
        # A full disk is told about, but not every few seconds.
        self._pause = _SECONDS if written else min(2 * self._pause, _LONGEST)
        self._due = time.monotonic() + self._pause


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
