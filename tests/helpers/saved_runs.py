"""Short runs that save checkpoints, that end early, and whose validations have a known score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ocrnet_pl.callbacks.checkpoint import BestCheckpoint
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from tests.training.test_task import make_data, make_task, make_trainer


def fit(folder: Path, *callbacks: Callback, ckpt_path: Path | None = None, **options: Any) -> Trainer:
    """Train on eight images, two steps an epoch unless ``length`` says otherwise, and validate on two or ``val``."""
    lengths = options.pop("length", 8), options.pop("val", 2)
    source, val = (SyntheticSource(length=length, seed=5, size=64) for length in lengths)
    torch.manual_seed(0)
    loss = options.pop("loss", None)
    settings: dict[str, Any] = {"enable_checkpointing": True, "num_sanity_val_steps": 0} | options
    trainer = make_trainer(folder, callbacks=list(callbacks), **settings)
    data = make_data(source, val)
    trainer.fit(make_task(source.taxonomy, segmentation_loss=loss), data, ckpt_path=ckpt_path, weights_only=True)
    return trainer


def saver(folder: Path, **options: Any) -> BestCheckpoint:
    callback = BestCheckpoint(**options)
    callback.dirpath = str(folder)
    return callback


def live(content: dict[str, Any]) -> dict[str, torch.Tensor]:
    return content.get("current_model_state", content["state_dict"])


class Figure(Callback):
    """Gives the validations' score: 1 / (1 + epoch)."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log("figure", 1 / (1 + trainer.current_epoch))


class Stop(Callback):
    """Breaks a run off, in a hook, at a step."""

    def __init__(self, hook: str, step: int) -> None:
        self.step = step
        setattr(self, hook, self._look)

    def _look(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("broken off")
