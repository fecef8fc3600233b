"""The memory that the steps of each input size take."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ocrnet_pl.structures import Batch
from ocrnet_pl.training.step_memory import MIB


class PeakMemory(Callback):
    """Records the GPU's peak memory for each size of batch, without waiting for it.

    Attributes:
        by_size: Peak in MiB by "HEIGHTxWIDTH"; empty on the CPU, where ``train.py memory`` measures it.
        size: (height, width) of the current batch; None before the first.
        count: Number of images of the current batch.
    """

    def __init__(self) -> None:
        self.by_size: dict[str, float] = {}
        self.size: tuple[int, int] | None = None
        self.count = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Record the shape and start to measure."""
        height, width = batch.images.shape[-2:]
        self.size, self.count = (height, width), len(batch)
        if batch.images.is_cuda:
            torch.cuda.reset_peak_memory_stats(batch.images.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Record the peak."""
        if batch.images.is_cuda and self.size is not None:
            name = "{}x{}".format(*self.size)
            peak = torch.cuda.max_memory_allocated(batch.images.device) / MIB
            self.by_size[name] = max(self.by_size.get(name, 0.0), round(peak, 1))
