"""The results of a run: ``summary.json`` and a table."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from ocrnet_pl.callbacks.guard import LossGuard
from ocrnet_pl.callbacks.memory import PeakMemory
from ocrnet_pl.callbacks.progress import stop_bar
from ocrnet_pl.callbacks.run_folder import run_folder
from ocrnet_pl.callbacks.throughput import Throughput
from ocrnet_pl.distributed.gather import compute_on_first
from ocrnet_pl.drawing.results_table import results_tables
from ocrnet_pl.metrics.figures import FIGURES, SCORE, figures_of
from ocrnet_pl.storage.checkpoints import versions
from ocrnet_pl.storage.files import records, write_json
from ocrnet_pl.training.step_memory import peak_memory_mb

_SCORE = f"val/{SCORE.name}"
_MOST_LISTED = 20


class Summary(Callback):
    """Writes ``summary.json`` at the end of fit, validate and test, and prints the figures, raw next to fused.

    The file contains: ``name``, ``version``, ``command`` (the subcommand), ``status`` (``finished``, ``interrupted``,
    or ``incomplete`` if its last or best checkpoint could not be written), ``own_figures`` (``name``, ``title``,
    ``per_class`` and ``higher_is_better`` of each figure of ``model.metrics``), ``last`` and ``best`` (figures by their
    logged names; the best by the figure that the best checkpoint is chosen by), ``best_checkpoint`` (for validate and
    test: the one that was evaluated), ``epochs``, ``steps``, ``time_s``, ``images_per_s``, ``peak_memory_mb`` (``ram``
    of this process and ``gpu``, null without one), ``peak_memory_by_size_mb`` (of the GPU, by size of the training
    batch), ``seed``, ``init_from`` (the file that training started from and what was taken of it, null for none),
    ``versions``, ``skipped`` (the number of files that could not be read), ``skipped_files`` (the
    reason by file), ``skipped_steps`` (the number of optimiser steps that were skipped because their loss was not
    finite) and ``skipped_step_numbers`` (the first 100 of them, counted from 0 as in ``metrics.csv``).

    Args:
        throughput: Callback that measures the images per second.
        memory: Callback that measures the memory of training steps.
    """

    def __init__(self, throughput: Throughput, memory: PeakMemory) -> None:
        self._throughput = throughput
        self._memory = memory
        self._command = ""
        self._folder: Path | None = None
        self._start = time.perf_counter()
        self._best: dict[str, float] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the clock and find the run's folder."""
        self._folder = run_folder(trainer)
        self._command = str(getattr(trainer.state.fn, "value", ""))
        self._start = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Return the best figures, so that a continued run knows them."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best figures."""
        self._best = state_dict["best"]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the figures if they are the best so far."""
        figures = self._figures(trainer)
        monitor, sign = self._monitor(trainer)
        score, best = sign * figures.get(monitor, math.nan), sign * self._best.get(monitor, -sign * math.inf)
        # A score of NaN compares as larger than None; of equal ones the first is the best, as among the checkpoints.
        if not trainer.sanity_checking and score > best:
            self._best = {key: value for key, value in figures.items() if key.startswith("val/")}

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file and print the table."""
        self._finish(trainer, ending(trainer))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write what is known."""
        self._write(trainer, "interrupted")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write and print after validate and test, which have no hook for their end."""
        if stage in ("validate", "test") and stage == self._command:
            self._finish(trainer, "finished")

    def _peak(self) -> dict[str, float | None]:
        found = peak_memory_mb()
        if found["gpu"] is not None:
            # Each step's peak is measured separately.
            found["gpu"] = max([found["gpu"], *self._memory.by_size.values()])
        return found

    @staticmethod
    def _monitor(trainer: Trainer) -> tuple[str, int]:
        """Return the figure that checkpoints are chosen by, and -1 if less of it is better, else 1."""
        checkpoint = trainer.checkpoint_callback
        if isinstance(checkpoint, ModelCheckpoint) and str(checkpoint.monitor).startswith("val/"):
            return str(checkpoint.monitor), -1 if checkpoint.mode == "min" else 1
        return _SCORE, 1

    @staticmethod
    def _figures(trainer: Trainer) -> dict[str, float]:
        # Figures that are only for the progress bar have no stage in their name.
        return {key: float(value) for key, value in trainer.callback_metrics.items() if "/" in key}

    def _finish(self, trainer: Trainer, status: str) -> None:
        # All processes come here, unlike after an exception.
        skipped = _of_all_processes(_skipped(trainer))
        self._write(trainer, status, skipped)
        if trainer.is_global_zero:
            from rich.console import Console

            stop_bar(trainer)
            for path, reason in list(skipped.items())[:_MOST_LISTED]:
                print(f"skipped: {path}: {reason}")
            if len(skipped) > _MOST_LISTED:
                print(f"skipped: {len(skipped)} files in all; summary.json lists them")

            stage = "test" if self._command == "test" else "val"
            for table in results_tables(self._figures(trainer), stage, figures_of(trainer.lightning_module)):
                Console().print(table)
            if self._folder is not None:
                print(f"Run folder: {self._folder}")

    def _write(self, trainer: Trainer, status: str, skipped: dict[str, str] | None = None) -> None:
        if self._folder is None or not trainer.is_global_zero:
            return
        checkpoint = trainer.checkpoint_callback
        best = trainer.ckpt_path
        if self._command == "fit" and isinstance(checkpoint, ModelCheckpoint):
            best = checkpoint.best_model_path
        seed = os.environ.get("PL_GLOBAL_SEED")
        last = self._figures(trainer)
        skipped = _skipped(trainer) if skipped is None else skipped
        guard = next((each for each in trainer.callbacks if isinstance(each, LossGuard)), None)  # type: ignore[attr-defined]
        origin = getattr(trainer.lightning_module, "origin", None)
        content = {
            "name": self._folder.parent.name,
            "version": self._folder.name,
            "command": self._command,
            "status": status,
            "own_figures": [each.to_dict() for each in figures_of(trainer.lightning_module)[len(FIGURES) :]],
            "last": last,
            "best": self._best if self._command == "fit" else last,
            "best_checkpoint": str(best) if best else None,
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "time_s": round(time.perf_counter() - self._start, 2),
            "images_per_s": round(self._throughput.images_per_s, 2),
            "peak_memory_mb": self._peak(),
            "peak_memory_by_size_mb": self._memory.by_size,
            "seed": None if seed is None else int(seed),
            "init_from": None if origin is None else origin.report,
            "skipped": len(skipped),
            "skipped_files": skipped,
            "skipped_steps": guard.skipped if guard else 0,
            "skipped_step_numbers": guard.skipped_steps if guard else [],
            "versions": versions(),
        }
        with records("summary.json"):
            write_json(self._folder / "summary.json", content)


def ending(trainer: Trainer) -> str:
    """Return how a training ended: ``finished``, ``interrupted``, or ``incomplete`` if a checkpoint is missing."""
    missing = getattr(trainer.checkpoint_callback, "missing", None) is not None
    return "interrupted" if trainer.interrupted else "incomplete" if missing else "finished"


def _skipped(trainer: Trainer) -> dict[str, str]:
    """Return this process's files that could not be read, and why."""
    return dict(getattr(getattr(trainer, "datamodule", None), "skipped", ()))


def _of_all_processes(own: dict[str, str]) -> dict[str, str]:
    """Return the files of all processes, in the order of the files; to be called on all of them."""
    return compute_on_first(own, lambda parts: dict(sorted(item for part in parts for item in part.items())))
