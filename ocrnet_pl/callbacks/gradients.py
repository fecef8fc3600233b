"""The gradients that each task sends into the shared trunk."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from ocrnet_pl.balancing.methods import Balancing
from ocrnet_pl.balancing.task_split import TaskSplit
from ocrnet_pl.distributed.gather import summed_over_processes
from ocrnet_pl.structures import Batch


def shares_and_cosine(products: Tensor) -> Tensor:
    """Return shares and cosine [3] from the products of :class:`~ocrnet_pl.balancing.task_split.TaskSplit`.

    Returns:
        The share of the detection's gradient in the sum of both norms, that of the segmentation's, and the cosine
        between the two; NaN where there is nothing to compare.
    """
    norms = products[:2].sqrt()
    return torch.cat((norms / norms.sum(), (products[2] / norms.prod())[None]))


class GradientLog(Callback):
    """Logs each task's share of the gradient on the shared trunk and how far the tasks agree.

    The gradients are those of the weighted losses over the maps where the trunk ends, with all maps, images,
    accumulated batches and processes as one vector. ``train/grad_share_detection`` and
    ``train/grad_share_segmentation`` are their norms divided by the sum of both norms, ``train/grad_cosine`` is the
    cosine between them. For a balancing whose weights change, ``train/weight_detection`` and
    ``train/weight_segmentation`` are logged with them. Reading them makes the device wait, but only at those steps. A
    network of one task logs nothing.

    Args:
        every_n_steps: Number of optimiser steps between two measurements; 0 never measures.

    Raises:
        ValueError: ``every_n_steps`` is negative.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        if every_n_steps < 0:
            raise ValueError(f"gradients.every_n_steps: expected 0 or more, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self._due: int | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Have the step measured if it is due."""
        network, balancing = pl_module.network, pl_module.balancing
        assert isinstance(network, nn.Module) and isinstance(balancing, Balancing)
        joint = network.detection is not None and network.segmentation is not None
        step = trainer.global_step + 1
        due = joint and self.every_n_steps > 0 and step % self.every_n_steps == 0
        self._due = step if due else None
        split = network.split
        assert isinstance(split, TaskSplit)
        split.measuring = due or balancing.measures_gradients

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        """Log the step once its last batch is in."""
        # Among accumulated batches, only the last one makes the step.
        if trainer.global_step != self._due:
            return
        self._due = None
        products = pl_module.network.split.products  # type: ignore[union-attr]
        if products is None:
            return
        share, other, cosine = shares_and_cosine(summed_over_processes(products)).tolist()
        figures = {"grad_share_detection": share, "grad_share_segmentation": other, "grad_cosine": cosine}
        weights = pl_module.balancing.weights()  # type: ignore[operator, union-attr]
        if weights is not None:
            figures["weight_detection"], figures["weight_segmentation"] = weights.tolist()
        named = {f"train/{name}": value for name, value in figures.items()}
        # Not through `self.log`, which would write the last figures again at every later step of the loggers.
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in named.items()})
        for logger in trainer.loggers:
            logger.log_metrics(named, step=trainer.global_step - 1)
