"""A run that continues from another one's checkpoint keeps its records."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ocrnet_pl.structures import Taxonomy
from ocrnet_pl.tracking.files import ShowsFiles
from ocrnet_pl.tracking.wandb_tracker import WandbTracker

TABLE = "metrics.csv"


class Continuation(Callback):
    """Starts the run's records with what was logged up to the checkpoint, so that its curves are complete.

    Args:
        folder: Folder of the run that wrote the checkpoint.
        steps: Number of optimiser steps before the checkpoint.
        tracked: Id of the run in Weights & Biases; None if it is not tracked there.
        taxonomy: The run's categories if they are more than those of its data; None if they are the data's.
        pretrained: Whether the run's encoder began with pretrained weights; None if the checkpoint does not say.
    """

    def __init__(
        self,
        folder: Path,
        steps: int,
        tracked: str | None = None,
        taxonomy: Taxonomy | None = None,
        pretrained: bool | None = None,
    ) -> None:
        self.folder = folder
        self.steps = steps
        self.tracked = tracked
        self.taxonomy = taxonomy
        self.pretrained = pretrained

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the trainer count the batches of the epoch as the loader does, and copy the records."""
        progress = trainer.fit_loop.epoch_loop.batch_progress.current
        shift = getattr(getattr(trainer, "datamodule", None), "shift", 0)
        for name in ("ready", "started", "processed", "completed"):
            setattr(progress, name, getattr(progress, name) + shift)
        self._copy_rows(trainer)

    @rank_zero_only
    def _copy_rows(self, trainer: Trainer) -> None:
        """Copy the rows; a tracker that continues its run adds those that it lost with the process."""
        for step, figures in rows_before(self.folder / TABLE, self.steps):
            for logger in trainer.loggers:
                if isinstance(logger, CSVLogger | ShowsFiles) or (isinstance(logger, WandbTracker) and logger.goes_on):
                    logger.log_metrics(figures, step)
        for logger in trainer.loggers:
            logger.save()


def rows_before(table: Path, steps: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield step and figures of the rows of a table that were logged in the first ``steps`` optimiser steps."""
    if not table.is_file():
        return
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            try:
                step = int(row.pop("step"))
                figures: dict[str, Any] = {key: float(value) for key, value in row.items() if key and value}
            except (ValueError, KeyError, TypeError):
                # The line that was being written when the run was killed.
                continue
            # The first step is logged as number 0.
            if step < steps:
                yield step, figures
