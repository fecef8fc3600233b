"""The best and the last checkpoint."""

from __future__ import annotations

import copy
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from torch import Tensor

from ocrnet_pl.callbacks.checkpoint_io import SafeCheckpointIO
from ocrnet_pl.callbacks.guard import LossGuard
from ocrnet_pl.distributed.first_process import tell
from ocrnet_pl.metrics.figures import SCORE
from ocrnet_pl.storage.linked_files import link_or_copy
from ocrnet_pl.storage.unfinished import remove_abandoned, unfinished_path

PREVIOUS = "previous.ckpt"
"""Name of the file that keeps the previous ``last.ckpt``."""

_STATE = ("current_score", "best_k_models", "kth_best_model_path", "kth_value", "best_model_path", "best_model_score")
_HEADROOM = 1.1


class _Lost(NamedTuple):
    """The best figure whose checkpoint could not be written, and when it was reached."""

    score: Tensor
    epoch: int
    step: int


class BestCheckpoint(ModelCheckpoint):
    """Keeps the best checkpoints and the last two in the run's ``checkpoints/``, with metrics in their names.

    ``last.ckpt`` is written after each validation, every ``every_n_steps`` steps, at the end, and when the run is
    interrupted; the previous one is kept as ``previous.ckpt``. If one cannot be written, earlier ones are kept, and it
    is tried again at the end; :attr:`missing` names what could not be written then either.

    A run that continues another one starts with the checkpoint from which it continues as its ``last.ckpt``, and with
    the best one of the earlier run. So if it is killed before it has saved anything, it can be continued from its own
    folder, whatever happened to the other. These files are hard links where the file system allows it.

    Args:
        monitor: Name of the figure to choose by; ``val/score`` is the mean of box mAP and mIoU, fused where there is
            fusion.
        mode: Whether a larger ("max") or a smaller ("min") figure is better.
        save_top_k: Number of the best checkpoints to keep; -1 for all, 0 for none.
        save_last: Whether ``last.ckpt`` is kept.
        save_on_exception: Whether ``last.ckpt`` is saved when the run is interrupted.
        every_n_steps: Number of optimiser steps between two ``last.ckpt`` within an epoch; 0 saves after validation
            only.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(
        self,
        monitor: str = "val/score",
        mode: Literal["min", "max"] = "max",
        save_top_k: int = 1,
        save_last: bool = True,
        save_on_exception: bool = True,
        every_n_steps: int = 0,
    ) -> None:
        if every_n_steps < 0:
            raise ValueError(f"checkpoint.every_n_steps: expected 0 or more, got {every_n_steps}")
        super().__init__(
            monitor=monitor,
            mode=mode,
            save_top_k=save_top_k,
            save_last=save_last,
            save_on_exception=save_on_exception,
            # Saved after validation, a run continues exactly; if saved at an epoch's end, Lightning can skip an epoch.
            save_on_train_epoch_end=False,
            auto_insert_metric_name=False,
        )
        self.every_n_steps = every_n_steps
        self._saved_at = 0
        self._last_failed = False
        self._before: Path | None = None
        self._lost: _Lost | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Name the files by the figures that the network's tasks have."""
        network: Any = pl_module.network
        names = {"map": network.detection, "miou": network.segmentation}
        shown = [name for name, decoder in names.items() if decoder is not None]
        chosen_by = str(self.monitor).removeprefix("val/")
        if f"val/{chosen_by}" == self.monitor and chosen_by not in (*shown, SCORE.name) and "/" not in chosen_by:
            shown.append(chosen_by)
        figures = [f"{name}={{val/{name}:.3f}}" for name in shown]
        self.filename = "-".join(["epoch={epoch:03d}", *figures])
        super().setup(trainer, pl_module, stage)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember the checkpoint from which the run continues."""
        path = trainer.ckpt_path
        if trainer.state.fn == "fit" and path and "://" not in f"{path}{self.dirpath}":
            self._before = Path(path)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with the checkpoint from which the run continues, before anything can end the run."""
        if self._before is None or self.dirpath is None or getattr(trainer, "fast_dev_run", False):
            return
        if trainer.is_global_zero:
            # A run that was killed may have left part of a file there.
            remove_abandoned(self._before.parent)
        if self.save_last:
            last = Path(self.dirpath) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"
            self._carried(trainer, {str(self._before): str(last)})
            # Lightning would write last-v1.ckpt next to a file that it does not know.
            self.last_model_path = str(last)

    def _carried(self, trainer: Trainer, names: dict[str, str]) -> dict[str, str]:
        """Give files of the earlier run a name in this one.

        Args:
            trainer: The trainer; all processes learn what the first one has done.
            names: The new path of each old one.

        Returns:
            The paths for which it was done.
        """
        done = {}
        for old, new in names.items() if trainer.is_global_zero else ():
            if Path(new).exists():
                continue
            try:
                link_or_copy(Path(old), Path(new))
                done[old] = new
            except OSError as error:
                tell(f"{new}: {old} could not be copied there ({error.strerror or error}); it stays where it is")
        return trainer.strategy.broadcast(done)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that there is space for the checkpoints.

        Raises:
            MisconfigurationException: There is not, or their folder cannot be written to.
        """
        super().on_train_start(trainer, pl_module)
        self._saved_at = trainer.global_step
        if getattr(trainer, "fast_dev_run", False) or not (self.save_top_k or self.save_last):
            return
        # All processes need the result, or one would wait for the others.
        complaint = trainer.strategy.broadcast(self._complaint(trainer, pl_module) if trainer.is_global_zero else None)
        if complaint is not None:
            raise MisconfigurationException(complaint)
        self._take_best(trainer)

    def _take_best(self, trainer: Trainer) -> None:
        """Put the best checkpoint of the earlier run into this run's folder."""
        if self._before is None or self.dirpath is None:
            return
        paths = [path for path in self.best_k_models if Path(path).parent != Path(self.dirpath)]
        new = self._carried(trainer, {path: str(Path(self.dirpath, Path(path).name)) for path in paths})
        self.best_k_models = {new.get(path, path): score for path, score in self.best_k_models.items()}
        self.best_model_path = new.get(self.best_model_path, self.best_model_path)
        self.kth_best_model_path = new.get(self.kth_best_model_path, self.kth_best_model_path)

    def _complaint(self, trainer: Trainer, pl_module: LightningModule) -> str | None:
        if self.dirpath is None or "://" in str(self.dirpath):
            return None
        folder = Path(self.dirpath)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = unfinished_path(folder / "probe")
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            return f"{folder}: checkpoints cannot be written there ({error.strerror}); set trainer.default_root_dir"
        weights = sum(p.numel() * p.element_size() for p in pl_module.parameters())
        # The weights, their average, and an optimiser's two moments; the new file exists in addition to the old ones.
        files = max(self.save_top_k, 0) + 2 * bool(self.save_last) + 1
        needed, free = int(4 * weights * files * _HEADROOM), shutil.disk_usage(folder).free
        if free < needed:
            return (
                f"{folder}: {free / 2**20:.0f} MB are free, {files} checkpoints need about {needed / 2**20:.0f} MB; "
                "free some space, or set trainer.default_root_dir"
            )
        return None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save the last checkpoint within an epoch, if requested.

        Not in the middle of accumulated batches, nor before validation or the next epoch: a run that continues from
        there would leave them out.
        """
        if not 0 < self.every_n_steps <= trainer.global_step - self._saved_at:
            return
        loop: Any = trainer.fit_loop.epoch_loop
        over = loop._num_ready_batches_reached() or loop._should_check_val_fx(trainer.fit_loop._data_fetcher)
        if not over and not loop._should_accumulate():
            self._save_last(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the best, and the last whether or not it is one of the best."""
        if not self._should_skip(trainer):
            # A step inside the epoch may have been saved already, without these figures.
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
            self._save_last(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last, unless the run ended with a validation, and retry what could not be written then."""
        if self._lost is not None and self._lost.step == trainer.global_step and not self._should_skip(trainer):
            # The trainer has counted on; the file's name must be that of the epoch to which the figures belong.
            own = {"epoch": torch.tensor(self._lost.epoch)}
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer) | own)
        if self._saved_at != trainer.global_step or self._last_failed:
            with _epoch_as_it_is(trainer):
                self._save_last(trainer)

    @property
    def missing(self) -> str | None:
        """What the run could not write although it should, in one line; None if nothing is missing."""
        parts = []
        if self._last_failed:
            parts.append(f"last.ckpt of step {self._saved_at}")
        if self._lost is not None and (
            self.best_model_score is None or self._better(self._lost.score, self.best_model_score)
        ):
            lost = self._lost
            parts.append(f"the best, with {self.monitor} {float(lost.score):.4f} after epoch {lost.epoch}")
        if not parts:
            return None
        return (
            f"{self.dirpath}: the disk refused {' and '.join(parts)}; other checkpoints there are complete, but older"
        )

    def _better(self, one: Tensor, other: Tensor) -> bool:
        return bool(one < other) if self.mode == "min" else bool(one > other)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the last, if all processes come here together and no gradients are left over.

        An error belongs to one process; the others wait for it elsewhere.
        """
        together = trainer.world_size == 1 or isinstance(exception, SIGTERMException)
        loop: Any = trainer.fit_loop.epoch_loop
        between = loop.batch_progress.current.completed % trainer.accumulate_grad_batches == 0
        unsaved = trainer.validating or self._saved_at != trainer.global_step or self._last_failed
        if not (self.save_on_exception and together and unsaved) or self._should_skip(trainer):
            return
        if trainer.validating:
            # Lightning would regard the validation as done, or continue in its middle, where its loader starts again.
            progress = loop.val_loop.batch_progress
            progress.reset()
            progress.increment_ready()
            progress.increment_started()
        elif between:
            # A step that was cut off counts as not begun.
            for progress in (loop.batch_progress.total, loop.batch_progress.current):
                progress.ready = progress.started = progress.processed = progress.completed
        else:
            return
        self._save_last(trainer)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best of the earlier run, as far as its files are where they were, or next to its checkpoint."""
        found = {path: self._found(path) for path in state_dict["best_k_models"]}
        best = {found[path]: score for path, score in state_dict["best_k_models"].items() if found[path]}
        if state_dict["monitor"] != self.monitor or not found.get(state_dict["best_model_path"]):
            return
        worst = (min if self.mode == "max" else max)(best, key=lambda path: float(best[path]))
        full = len(best) == self.save_top_k
        own = {
            "dirpath": self.dirpath,
            "last_model_path": self.last_model_path,
            "best_model_path": found[state_dict["best_model_path"]],
            "best_k_models": best,
            "kth_best_model_path": worst if full else "",
            "kth_value": best[worst] if full else self.kth_value,
        }
        super().load_state_dict(state_dict | own)

    def _found(self, path: str) -> str:
        """Return where a checkpoint of the earlier run is, or an empty text if it is gone.

        The path comes from a file that anybody may have written, so it must at least lead to a checkpoint.
        """
        places = [Path(path), *([self._before.with_name(Path(path).name)] if self._before else [])]
        found = (str(place) for place in places if place.suffix == self.FILE_EXTENSION and zipfile.is_zipfile(place))
        return next(found, "")

    @staticmethod
    def _should_skip(trainer: Trainer) -> bool:
        trial = bool(getattr(trainer, "fast_dev_run", False)) or trainer.sanity_checking or trainer.state.fn != "fit"
        return trial or trainer.global_step == 0

    def _save_last(self, trainer: Trainer) -> None:
        # While steps are skipped because training goes wrong, the previous checkpoint is the better one.
        fails = any(isinstance(each, LossGuard) and each.fails for each in trainer.callbacks)  # type: ignore[attr-defined]
        if not self._should_skip(trainer) and not fails:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        if not self.save_last or self.dirpath is None:
            return
        self._saved_at = trainer.global_step
        last = Path(self.dirpath) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"
        with _kept(last, trainer):
            super()._save_last_checkpoint(trainer, monitor_candidates)
        self._last_failed = self._failed(trainer)

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Return whether a figure is among the best; NaN is not, but all files are kept if all are requested."""
        if current is not None and self.save_top_k != -1 and bool(torch.isnan(current)):
            return False
        return super().check_monitor_top_k(trainer, current)

    def _update_best_and_save(self, current: Tensor, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        before = {name: copy.copy(getattr(self, name)) for name in _STATE}
        super()._update_best_and_save(current, trainer, monitor_candidates)
        if bool(torch.isnan(current)):
            # Lightning counts it as infinitely bad, which would be the best if it is the first of a run.
            self.best_model_path, self.best_model_score = before["best_model_path"], before["best_model_score"]
        if self._failed(trainer):
            # A checkpoint that was not written is not the best; the one that it was to replace has been kept.
            for name, value in before.items():
                setattr(self, name, value)
            if not bool(torch.isnan(current)) and (self._lost is None or self._better(current, self._lost.score)):
                self._lost = _Lost(current.clone(), trainer.current_epoch, trainer.global_step)

    def _remove_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        if not self._failed(trainer):
            super()._remove_checkpoint(trainer, filepath)

    @staticmethod
    def _failed(trainer: Trainer) -> bool:
        """Return whether the last file could not be written; the same on all processes."""
        return bool(trainer.strategy.broadcast(_refused(trainer)))


def _refused(trainer: Trainer) -> bool:
    """Return whether the last file that this process wrote could not be written."""
    writer = trainer.strategy.checkpoint_io
    return isinstance(writer, SafeCheckpointIO) and writer.failure is not None


@contextmanager
def _epoch_as_it_is(trainer: Trainer) -> Iterator[None]:
    """Let an epoch that a limit of steps or of time ended count as unfinished, so that another run can finish it.

    Lightning counts it among the finished ones, and would go on with the next, as far as this one was from its end.
    """
    fit: Any = trainer.fit_loop
    counts = (fit.epoch_progress.total, fit.epoch_progress.current)
    unfinished = 0 if fit.epoch_loop._num_ready_batches_reached() else 1
    for count in counts:
        count.processed -= unfinished
        count.completed -= unfinished
    try:
        yield
    finally:
        for count in counts:
            count.processed += unfinished
            count.completed += unfinished


@contextmanager
def _kept(last: Path, trainer: Trainer) -> Iterator[None]:
    """Keep a file under another name as well, once its successor is written, so that there are always two."""
    if not trainer.is_global_zero or not last.is_file():
        yield
        return
    kept = unfinished_path(last.with_name(PREVIOUS))
    try:
        kept.unlink(missing_ok=True)
        os.link(last, kept)
    except OSError:
        # On a file system without links, the last one will be the only one.
        yield
        return
    try:
        yield
        if not _refused(trainer):
            kept.replace(last.with_name(PREVIOUS))
    finally:
        kept.unlink(missing_ok=True)
