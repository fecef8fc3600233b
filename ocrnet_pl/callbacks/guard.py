"""Stops a run whose loss is no number any more."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ocrnet_pl.structures import Batch


class LossError(ValueError):
    """The training loss is NaN or infinite."""


class LossGuard(Callback):
    """Ends training with a diagnosis when the loss is NaN or infinite.

    All processes look at the same steps and decide together, so that none waits for another. Looking makes the device
    wait, so it is done every few steps only: a NaN stays in the weights and is still there.

    Args:
        every_n_steps: Steps from one look to the next; 0 never looks.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        """Look at the loss.

        Raises:
            LossError: It is no finite number on at least one process.
        """
        if not self.every_n_steps or (batch_idx and batch_idx % self.every_n_steps):
            return
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        finite = isinstance(loss, torch.Tensor) and bool(torch.isfinite(loss))
        if trainer.strategy.reduce_boolean_decision(finite, all=True):
            return
        terms = [
            name
            for name, value in trainer.callback_metrics.items()
            if name.startswith("train/loss_") and not torch.isfinite(value)
        ]
        raise LossError(
            f"step {trainer.global_step}: the loss is {float(loss) if isinstance(loss, torch.Tensor) else loss} "
            f"(terms: {', '.join(terms) or 'finite on this process'}); images: {', '.join(batch.paths)}; "
            "lower the learning rate, or check these images' labels"
        )
