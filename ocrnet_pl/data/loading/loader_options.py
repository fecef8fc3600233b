"""The options of the loaders that training, evaluation and prediction share."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

import torch

_MOST_WORKERS, _WORKERS_PER_CORE = 64, 4
"""Number of loading processes that any machine may start, and per core: each one takes memory, and a turn of a core."""


@dataclass(frozen=True)
class LoaderOptions:
    """How many images are in a batch, and which processes load them.

    Attributes:
        batch_size: Number of training images per step and process, at least 1.
        eval_batch_size: Number of evaluation images per step and process, at least 1.
        num_workers: Number of loading processes per training process; 0 loads in the training process itself.
        worker_timeout: Longest time to wait for a batch, in seconds, before the loading processes are considered lost.
        prefetch_factor: Number of batches that each loading process prepares in advance, at least 1.

    Raises:
        ValueError: An option is out of range.
    """

    batch_size: int
    eval_batch_size: int
    num_workers: int
    worker_timeout: float
    prefetch_factor: int = 2

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("eval_batch_size", 1), ("prefetch_factor", 1)):
            check_at_least(name, getattr(self, name), least)
        check_workers(self.num_workers)
        if self.worker_timeout <= 0:
            raise ValueError(f"data.worker_timeout: expected more than 0 seconds, got {self.worker_timeout}")

    def of_loader(self, training: bool) -> dict[str, Any]:
        """Return the arguments of a :class:`~ocrnet_pl.data.loading.batch_loader.BatchLoader`.

        Args:
            training: Whether it loads training batches.
        """
        return {
            "batch_size": self.batch_size if training else self.eval_batch_size,
            "num_workers": self.num_workers,
            "patience": self.worker_timeout,
            "persistent_workers": self.num_workers > 0,
            "prefetch_factor": self.prefetch_factor if self.num_workers > 0 else None,
            "pin_memory": torch.cuda.is_available(),
        }


def check_at_least(name: str, value: int, least: int) -> None:
    """Raise an error for an option of the data module that is too small, or larger than any count of anything."""
    if not least <= value <= sys.maxsize:
        limit = f"at least {least}" if value < least else f"at most {sys.maxsize}"
        raise ValueError(f"data.{name}: expected {limit}, got {value}")


def check_workers(count: int) -> None:
    """Raise an error for a number of loading processes that is negative or would bring the machine down."""
    check_at_least("num_workers", count, 0)
    cores = os.cpu_count() or 1
    # A config from a larger machine has more of them than this one has cores, and works all the same.
    most = max(_MOST_WORKERS, _WORKERS_PER_CORE * cores)
    if count > most:
        raise ValueError(
            f"data.num_workers: expected at most {most} loading processes on this machine, which has {cores} core(s), "
            f"got {count}"
        )
