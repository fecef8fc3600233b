"""All processes of a run continue from the same checkpoint, or none does."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from ocrnet_pl.storage.same_checkpoint import check_same_checkpoint


class SameCheckpoint(Callback):
    """Compares the checkpoints from which the processes continue, before anything is loaded or written.

    The command line adds it to every run. In Python, give it the path that ``Trainer.fit`` gets; the trainer itself
    knows it too late.

    Args:
        path: Path of the checkpoint of this process; None for a new start.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = path

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compare the checkpoints.

        Raises:
            CheckpointError: A process has another checkpoint than the others, or none.
        """
        check_same_checkpoint(self.path)
