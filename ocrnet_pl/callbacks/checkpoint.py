"""The best and the last checkpoint."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from ocrnet_pl.callbacks.checkpoint_io import SafeCheckpointIO
from ocrnet_pl.callbacks.guard import LossError

PREVIOUS = "previous.ckpt"
"""The ``last.ckpt`` before the present one."""

_STATE = ("current_score", "best_k_models", "kth_best_model_path", "kth_value", "best_model_path", "best_model_score")
_HEADROOM = 1.1


class BestCheckpoint(ModelCheckpoint):
    """Keeps the best checkpoints and the last two in the run's ``checkpoints/``, with metrics in their names.

    ``last.ckpt`` is written after each validation, every ``every_n_steps`` steps, and when the run is interrupted;
    the one before it stays as ``previous.ckpt``. One that cannot be written costs no other.

    Args:
        monitor: The figure to choose by; ``val/score`` is the mean of box mAP and mIoU, fused where there is fusion.
        mode: Whether more or less of it is better.
        save_top_k: How many of the best to keep; -1 for all, 0 for none.
        save_last: Whether to keep ``last.ckpt``.
        save_on_exception: Whether to save ``last.ckpt`` when the run is interrupted.
        every_n_steps: Optimiser steps from one ``last.ckpt`` to the next inside an epoch; 0 waits for validation.

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
            # Saved after validation, a run continues exactly; saved at an epoch's end, Lightning can skip an epoch.
            save_on_train_epoch_end=False,
            auto_insert_metric_name=False,
        )
        self.every_n_steps = every_n_steps

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Name the files by the figures that the network's tasks have."""
        network: Any = pl_module.network
        names = {"map": network.detection, "miou": network.segmentation}
        figures = [f"{name}={{val/{name}:.3f}}" for name, decoder in names.items() if decoder is not None]
        self.filename = "-".join(["epoch={epoch:03d}", *figures])
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look whether the checkpoints will find room.

        Raises:
            MisconfigurationException: They will not, or their folder cannot be written to.
        """
        super().on_train_start(trainer, pl_module)
        if getattr(trainer, "fast_dev_run", False) or not (self.save_top_k or self.save_last):
            return
        # All processes hear of it, or one would wait for the others.
        complaint = trainer.strategy.broadcast(self._complaint(trainer, pl_module) if trainer.is_global_zero else None)
        if complaint is not None:
            raise MisconfigurationException(complaint)

    def _complaint(self, trainer: Trainer, pl_module: LightningModule) -> str | None:
        if self.dirpath is None or "://" in str(self.dirpath):
            return None
        folder = Path(self.dirpath)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".{os.getpid()}.part"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            return f"{folder}: checkpoints cannot be written there ({error.strerror}); set trainer.default_root_dir"
        weights = sum(p.numel() * p.element_size() for p in pl_module.parameters())
        # The weights, their average, and an optimiser's two moments; the new file stands beside the old ones.
        files = max(self.save_top_k, 0) + 2 * bool(self.save_last) + 1
        needed, free = int(4 * weights * files * _HEADROOM), shutil.disk_usage(folder).free
        if free < needed:
            return (
                f"{folder}: {free / 2**20:.0f} MB are free, {files} checkpoints need about {needed / 2**20:.0f} MB; "
                "make room, or set trainer.default_root_dir"
            )
        return None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save the last within an epoch, if asked to."""
        due = self.every_n_steps > 0 and trainer.global_step % self.every_n_steps == 0
        # Accumulated batches end several times at one step.
        if due and trainer.global_step != self._last_global_step_saved:
            self._save_last(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the best, and the last whether or not it is one of the best."""
        if not self._should_skip(trainer):
            # A step inside the epoch may have been saved already, without these figures.
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
            self._save_last(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the last, unless training itself went wrong: the checkpoint before it is better."""
        if self._should_save_on_exception(trainer) and not isinstance(exception, LossError):
            self._save_last(trainer)

    @staticmethod
    def _should_skip(trainer: Trainer) -> bool:
        trial = bool(getattr(trainer, "fast_dev_run", False)) or trainer.sanity_checking or trainer.state.fn != "fit"
        return trial or trainer.global_step == 0

    def _save_last(self, trainer: Trainer) -> None:
        if not self._should_skip(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        if self.save_last and trainer.is_global_zero and self.dirpath is not None:
            _keep(Path(self.dirpath) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}")
        super()._save_last_checkpoint(trainer, monitor_candidates)

    def _update_best_and_save(self, current: Tensor, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        before = {name: copy.copy(getattr(self, name)) for name in _STATE}
        super()._update_best_and_save(current, trainer, monitor_candidates)
        if self._failed(trainer):
            # What was not written is not the best; what it was to replace has been kept.
            for name, value in before.items():
                setattr(self, name, value)

    def _remove_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        if not self._failed(trainer):
            super()._remove_checkpoint(trainer, filepath)

    @staticmethod
    def _failed(trainer: Trainer) -> bool:
        """Return whether the last file could not be written; the same on all processes."""
        writer = trainer.strategy.checkpoint_io
        failed = isinstance(writer, SafeCheckpointIO) and writer.failure is not None
        return bool(trainer.strategy.broadcast(failed))


def _keep(last: Path) -> None:
    """Keep a file under another name as well, so that there is always one."""
    if not last.is_file():
        return
    unfinished = last.with_name(f".{PREVIOUS}.{os.getpid()}.part")
    try:
        unfinished.unlink(missing_ok=True)
        os.link(last, unfinished)
    except OSError:
        # A file system without links: the last one will be the only one.
        return
    unfinished.replace(last.with_name(PREVIOUS))
