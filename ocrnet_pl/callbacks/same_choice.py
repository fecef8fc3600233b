"""All processes of a run train with the settings that the first one chose by measurement."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ocrnet_pl.data.datamodule import JointDataModule


class SameChoice(Callback):
    """Passes batch size, transforms, length, interval of validations and rates from the first process to the others.

    The first process measures before the processes can talk to each other; the others were built without.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set what the first process chose, before any loader is made."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, JointDataModule):
            return
        own = (
            *(data.batch_size, data.loading.eval_batch_size, data.train_transforms),
            *(trainer.max_epochs, trainer.max_steps),
            *(trainer.check_val_every_n_epoch, trainer.val_check_interval),
        )
        batch, evaluated, data.train_transforms, epochs, steps, every, interval = trainer.strategy.broadcast(own)
        data.loading = replace(data.loading, batch_size=batch, eval_batch_size=evaluated)
        if epochs is not None:
            trainer.fit_loop.max_epochs = epochs
        trainer.fit_loop.epoch_loop.max_steps = steps
        trainer.check_val_every_n_epoch, trainer.val_check_interval = every, interval

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the rates that the first process begins with, of the optimiser and of its schedule."""
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        schedulers = [each.scheduler for each in trainer.lr_scheduler_configs]
        own: list[dict[str, Any]] = [
            {key: group[key] for key in ("lr", "initial_lr") if key in group} for group in groups
        ]
        rates, bases = trainer.strategy.broadcast((own, [list(scheduler.base_lrs) for scheduler in schedulers]))
        for group, rate in zip(groups, rates, strict=True):
            group.update(rate)
        for scheduler, base in zip(schedulers, bases, strict=True):
            scheduler.base_lrs = base
