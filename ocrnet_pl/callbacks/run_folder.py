"""The run's folder, for callbacks."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer


def run_folder(trainer: Trainer) -> Path | None:
    """Return the run's folder, or None in a trial run, which writes nothing.

    It must be called on all processes, which agree on the main process's folder.
    """
    if getattr(trainer, "fast_dev_run", False):
        return None
    folder = trainer.log_dir
    return None if folder is None else Path(folder)
