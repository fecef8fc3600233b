"""A run's log if there is no terminal with a progress bar."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ocrnet_pl.callbacks.progress import shows_bar
from ocrnet_pl.callbacks.throughput import Throughput
from ocrnet_pl.drawing.progress import Pace, duration
from ocrnet_pl.metrics.figures import FIGURES, FUSED, SCORE, Figure, Place, figures_of, shown_in, value_text

_TRAINING_SECONDS = 60.0


class LogLines(Callback):
    """Prints the results of every epoch and every validation on the error stream, in one line each.

    Only if no bar shows them: without a terminal, or with ``trainer.enable_progress_bar`` false. Of several processes,
    only the first prints. A long epoch has further lines, at each tenth of it and at least a minute apart. Validation,
    testing and prediction have one at each tenth or once a minute, at least ten seconds apart.

    Args:
        throughput: Callback that measures the images per second.
    """

    def __init__(self, throughput: Throughput) -> None:
        self._throughput = throughput
        self._speaks = False
        self._training, self._evaluation = Pace(None), Pace(None)
        self._losses: Tensor | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check whether anything else shows the results."""
        self._speaks = trainer.is_global_zero and not shows_bar(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's clock and its mean loss."""
        self._training = Pace(trainer.num_training_batches, seconds=None, least=_TRAINING_SECONDS)
        self._losses = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the loss to the epoch's, without waiting for it, and print the progress of a long epoch."""
        if not self._speaks:
            return
        loss: Tensor = outputs["loss"].detach() * trainer.accumulate_grad_batches
        finite = torch.isfinite(loss)
        # Their sum and their number; steps without a finite loss are left out.
        pair = torch.stack((loss.nan_to_num(0.0, 0.0, 0.0), finite.to(loss.dtype))).double()
        self._losses = pair if self._losses is None else self._losses + pair
        if self._training.due(batch_idx + 1) and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._say_training(trainer, f"batch {batch_idx + 1} of {trainer.num_training_batches}, ")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the results of the epoch."""
        if self._speaks:
            self._say_training(trainer)

    def _say_training(self, trainer: Trainer, where: str = "") -> None:
        parts = [f"{where}{_step(trainer)}"]
        if self._losses is not None:
            total, count = self._losses.tolist()
            parts.append(f"loss {total / count if count else math.nan:.4f}")
        rates = sorted({float(group["lr"]) for optimizer in trainer.optimizers for group in optimizer.param_groups})
        parts.append(f"lr {' to '.join(f'{rate:.2e}' for rate in dict.fromkeys((rates[0], rates[-1])))}")
        speed = self._throughput.images_per_s
        parts += [f"{speed:.1f} images/s"] if speed else []
        left = self._throughput.seconds_left(trainer)
        parts += [f"{duration(left)} left"] if left is not None else []
        _say(f"{_epoch(trainer)}, {', '.join(parts)}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._evaluation = Pace(float(sum(batches)))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._evaluation = Pace(float(sum(trainer.num_test_batches)))

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._evaluation = Pace(float(sum(trainer.num_predict_batches)))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Print the progress of a long validation."""
        self._say_batch("validation before training" if trainer.sanity_checking else "validation", batch_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Print the progress of a long test."""
        self._say_batch("test", batch_idx)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Print the progress of a long prediction."""
        self._say_batch("prediction", batch_idx)

    def _say_batch(self, what: str, batch: int) -> None:
        if self._speaks and self._evaluation.due(batch + 1):
            _say(f"{what}, batch {self._evaluation.text(batch + 1)}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the results of the validation."""
        if self._speaks and not trainer.sanity_checking:
            fitting = trainer.state.fn == "fit"
            where = f"{_epoch(trainer)}, {_step(trainer)}, " if fitting else ""
            _say(f"{where}validation: {figures_text(trainer.callback_metrics, 'val', figures_of(pl_module))}")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the results of the test."""
        if self._speaks:
            _say(f"test: {figures_text(trainer.callback_metrics, 'test', figures_of(pl_module))}")


def figures_text(values: Mapping[str, Any], stage: str, figures: Iterable[Figure] = FIGURES) -> str:
    """Return the main figures of a stage in one line, raw and fused.

    Args:
        values: Figures by logged key.
        stage: The stage, "val" or "test".
        figures: Names and titles of the figures that were measured.
    """
    parts = [f"{SCORE.short} {value_text(values.get(f'{stage}/{SCORE.name}'))}"]
    for figure in shown_in(Place.LOG, figures):
        raw, fused = (values.get(f"{stage}/{prefix}{figure.name}") for prefix in ("", FUSED))
        if raw is not None and fused is not None:
            parts.append(f"{figure.short} {value_text(raw)} raw, {value_text(fused)} fused")
        elif raw is not None:
            parts.append(f"{figure.short} {value_text(raw)}")
    return "; ".join(parts)


def _epoch(trainer: Trainer) -> str:
    last = trainer.max_epochs
    return f"epoch {trainer.current_epoch + 1}" + (f" of {last}" if last is not None and last > 0 else "")


def _step(trainer: Trainer) -> str:
    return f"step {trainer.global_step}" + (f" of {trainer.max_steps}" if trainer.max_steps > 0 else "")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
