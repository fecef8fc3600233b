"""What a tracker does that shows the files of a run: its pictures, its plots and its tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from ocrnet_pl.distributed.first_process import tell


class ShowsFiles(ABC):
    """A logger that is given the files which a run writes into its folder, as soon as they are there."""

    @abstractmethod
    def use_folder(self, folder: Path, name: str) -> None:
        """Keep what is logged in the run's folder and show the run as ``name``; called before the first use."""

    @abstractmethod
    def log_config(self, config: dict[str, Any]) -> None:
        """Store the run's whole configuration, in which credentials are references."""

    @abstractmethod
    def show_file(self, name: str, path: Path, step: int) -> None:
        """Show a PNG picture or a CSV table.

        Args:
            name: Under which it is shown; the same for what is written again later.
            path: Path of the file.
            step: Number of optimiser steps so far.
        """


def show_files(loggers: Sequence[Logger], files: Mapping[str, Path], step: int) -> None:
    """Show files in all trackers that can; what fails is said, and stops no run.

    Args:
        loggers: Loggers of the run.
        files: Paths by the names under which they are shown; those that do not exist are left out.
        step: Number of optimiser steps so far.
    """
    for logger in loggers:
        if isinstance(logger, ShowsFiles):
            for name, path in files.items():
                try:
                    if path.is_file():
                        logger.show_file(name, path, step)
                except Exception as error:  # Tracking must not stop a run.
                    tell(f"{type(logger).__name__} could not store {path.name}: {error}")
