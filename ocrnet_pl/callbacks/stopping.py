"""Ends a run on SIGTERM: a training on all processes after the same step, a prediction before the next batch."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ocrnet_pl.distributed.deferred_flag import Flag
from ocrnet_pl.distributed.global_batch import Answer, StepExchange


class GracefulStop(Callback):
    """Makes SIGTERM end training after the step in which any process received it.

    Lightning's own handler lets the processes communicate wherever the signal arrives, which may be in the middle of
    another exchange. Here the signal is only recorded. Before each step all processes learn whether one of them has
    recorded it, and stop together after that step (with accumulated batches, after the last of them): the checkpoint is
    written, and the command line exits with status 143. A single process abandons validation and repeats it on resume;
    several processes finish it first.

    Predictions, which Lightning would make to the end first, stop before the next batch; ``--resume`` goes on there.
    """

    def __init__(self) -> None:
        self._told = False
        self._flag: Answer | Flag | None = None
        self._trainer: Trainer | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle the signal, until Lightning restores the handler from before the run."""
        self._told, self._trainer = False, trainer
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._told = True
        trainer = self._trainer
        if trainer is not None and trainer.world_size == 1 and trainer.validating:
            self._stop(trainer)

    @staticmethod
    def _stop(trainer: Trainer) -> None:
        # Lightning's own handler sets this, and its loops check it after each step.
        trainer._signal_connector.received_sigterm = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Ask all processes."""
        if trainer.world_size > 1:
            # Filled on the device: the device would have to wait for a value from the host.
            told = torch.full((), float(self._told), device=pl_module.device)
            exchange: StepExchange | None = getattr(pl_module, "exchange", None)
            self._flag = Flag.of_any_process(told) if exchange is None else exchange.ask(told)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop after this step if a process received the signal."""
        told = self._told if self._flag is None else self._flag.read()
        if told and not trainer.fit_loop._should_accumulate():
            self._stop(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """On one process, skip the validation before which the signal arrived too late for the step."""
        if self._told and self._trainer is not None and trainer.world_size == 1:
            self._stop(trainer)

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stop before this batch if the process has received the signal, which it handles as Lightning does.

        Raises:
            SIGTERMException: It has.
        """
        if trainer.received_sigterm:
            raise SIGTERMException

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Release the trainer."""
        self._trainer, self._flag = None, None
