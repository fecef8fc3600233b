"""An exponential moving average of the weights."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from ocrnet_pl.distributed.buffers import share_buffers


class EMA(WeightAveraging):
    """Averages the weights over the last steps; validation uses the average, and checkpoints contain it.

    The decay warms up (the schedule of Tan and Le's EfficientNet): at update ``n`` it is ``(1 + n) / (10 + n)`` or
    ``decay``, whichever is smaller, so that the random start is soon forgotten. Statistics of norms are averaged like
    weights. A checkpoint's ``state_dict`` is the average, its ``current_model_state`` the live weights.

    Args:
        decay: Decay per step, from 0 to below 1; the average covers about ``1 / (1 - decay)`` steps. 0 switches
            averaging off.

    Raises:
        ValueError: ``decay`` is out of range.
    """

    def __init__(self, decay: float = 0.998) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema.decay: expected 0 to below 1, got {decay}")
        super().__init__(use_buffers=True)
        self.decay = decay
        self._swapped = False
        # The average's tensors and the network's, in the same order.
        self._floats: tuple[list[Tensor], list[Tensor]] = [], []
        self._counters: tuple[list[Tensor], list[Tensor]] = [], []

    def current_decay(self, updates: int) -> float:
        """Return the decay at the update after ``updates`` others."""
        return min(self.decay, (1 + updates) / (10 + updates))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Create the average, unless it is switched off.

        Raises:
            MisconfigurationException: The weights are sharded.
        """
        # Another run starts a new average.
        self._latest_update_step = 0
        if self.decay > 0:
            if pl_module.device_mesh is not None and stage == "fit":
                raise MisconfigurationException("ema.decay: sharded weights cannot be averaged; set it to 0")
            with warnings.catch_warnings():
                # The hook does nothing if nothing is sharded.
                warnings.filterwarnings("ignore", message="You're using the WeightAveraging callback with a model")
                super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pair each weight with its average, on its device."""
        if self._average_model is None:
            return
        # It was created before the network was moved to its device.
        average = self._average_model.to(pl_module.device).module
        averaged, current = ([*module.parameters(), *module.buffers()] for module in (average, pl_module))
        self._floats = _chosen(averaged, True), _chosen(current, True)
        self._counters = _chosen(averaged, False), _chosen(current, False)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average after an optimiser's step.

        ``AveragedModel.update_parameters`` would wait for the device to return the number of updates, and look through
        all weights again, which takes ten times as long as the update itself.
        """
        if self._average_model is None or trainer.global_step <= self._latest_update_step:
            return
        (averaged, current), (old, new) = self._floats, self._counters
        if self._latest_update_step == 0:
            torch._foreach_copy_(averaged, current)
        else:
            torch._foreach_lerp_(averaged, current, 1 - self.current_decay(self._latest_update_step))
        if old:
            torch._foreach_copy_(old, new)
        self._average_model.n_averaged += 1
        self._latest_update_step = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the live weights in the network: the last checkpoint is still to be written.

        The average's statistics, which each process has from its own images, become those of the first process.
        """
        if self._average_model is not None:
            share_buffers(self._average_model.module.buffers())

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average into the network."""
        if self._average_model is not None:
            self._copy_average_to_current(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the live weights if validation was cut off."""
        if self._swapped:
            self._swap_models(pl_module)

    def _swap_models(self, pl_module: LightningModule) -> None:
        super()._swap_models(pl_module)
        self._swapped = not self._swapped

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the average as the checkpoint's weights."""
        if self._average_model is not None:
            super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore both sets of weights; outside of training only the average is needed.

        A run that continues without an average continues with the live weights, to which the moments belong.
        """
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
        elif trainer.state.fn == TrainerFn.FITTING and (live := checkpoint.get("current_model_state")) is not None:
            if pl_module.device_mesh is None:
                pl_module.load_state_dict(live)
            else:
                rank_zero_warn(
                    "ema.decay: the run continues from the averaged weights; sharding cannot load the others"
                )


def _chosen(tensors: list[Tensor], floating: bool) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor.is_floating_point() == floating]
