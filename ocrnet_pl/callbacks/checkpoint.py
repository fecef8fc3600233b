"""The best and the last checkpoint."""

from __future__ import annotations

from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class BestCheckpoint(ModelCheckpoint):
    """Keeps the best checkpoints and the last one in the run's ``checkpoints/``, with metrics in their names.

    Args:
        monitor: The figure to choose by; ``val/score`` is the mean of box mAP and mIoU, fused where there is fusion.
        mode: Whether more or less of it is better.
        save_top_k: How many of the best to keep; -1 for all, 0 for none.
        save_last: Whether to keep ``last.ckpt``.
        save_on_exception: Whether to save when the run is interrupted.
    """

    def __init__(
        self,
        monitor: str = "val/score",
        mode: Literal["min", "max"] = "max",
        save_top_k: int = 1,
        save_last: bool = True,
        save_on_exception: bool = True,
    ) -> None:
        super().__init__(
            monitor=monitor,
            mode=mode,
            save_top_k=save_top_k,
            save_last=save_last,
            save_on_exception=save_on_exception,
            # Saved after validation, a run continues exactly; saved at an epoch's end, Lightning can skip an epoch.
            save_on_train_epoch_end=False,
            auto_insert_metric_name=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Name the files by the figures that the network's tasks have."""
        network: Any = pl_module.network
        names = {"map": network.detection, "miou": network.segmentation}
        figures = [f"{name}={{val/{name}:.3f}}" for name, decoder in names.items() if decoder is not None]
        self.filename = "-".join(["epoch={epoch:03d}", *figures])
        super().setup(trainer, pl_module, stage)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the best, and the last whether or not it is one of the best."""
        super().on_validation_end(trainer, pl_module)
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
