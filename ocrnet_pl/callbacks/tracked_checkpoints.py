"""Checkpoints and the data that they are trained on, for Weights & Biases."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.tracking.wandb_tracker import WandbTracker


class TrackedCheckpoints(Callback):
    """Tells Weights & Biases what a run is trained on, and gives it the best and the last checkpoint at the end.

    A run that is interrupted stores none: the run that continues it does.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the fingerprints of the data."""
        data = getattr(trainer, "datamodule", None)
        if trainer.is_global_zero and isinstance(data, JointDataModule):
            fingerprints = data.fingerprints()
            for logger in trainer.loggers:
                if isinstance(logger, WandbTracker):
                    logger.describe_data(fingerprints)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the checkpoints."""
        for logger in trainer.loggers:
            if isinstance(logger, WandbTracker) and isinstance(trainer.checkpoint_callback, ModelCheckpoint):
                logger.log_checkpoints(trainer.checkpoint_callback)
