"""Skips optimiser steps whose loss is not finite, and stops a run with too many of them."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from ocrnet_pl.distributed.deferred_flag import Flag
from ocrnet_pl.distributed.global_batch import StepExchange
from ocrnet_pl.errors import LossError
from ocrnet_pl.structures import Batch

_log = logging.getLogger(__name__)

_MOST_STEPS = 100


class _Seen(NamedTuple):
    """One batch of an optimiser's step: its images, and its loss and terms on this process."""

    paths: list[str]
    loss: Tensor
    terms: dict[str, dict[str, Tensor]]
    flag: Flag


class LossGuard(Callback):
    """Skips an optimiser's step, on all processes together, if the loss of any of them is NaN or infinite.

    The weights, the optimiser's moments and the running statistics of norms keep their values from before the step; the
    schedule continues. The process on which it happened names the images, the task and the terms. After ``patience``
    skipped steps in a row, training ends with a diagnosis.

    Whether a loss is finite is known when the forward pass is done, so reading it does not make the device wait: it is
    read after the backward pass has been queued.

    Args:
        patience: Number of skipped steps in a row that ends the run, at least 1.

    Attributes:
        skipped: Number of skipped steps of the run.
        skipped_steps: Numbers of the first 100 of them, counted from 0 as in ``metrics.csv``.

    Raises:
        ValueError: ``patience`` is out of range.
    """

    def __init__(self, patience: int = 10) -> None:
        if patience < 1:
            raise ValueError(f"guard.patience: expected 1 or more, got {patience}")
        self.patience = patience
        self.skipped = 0
        self.skipped_steps: list[int] = []
        self._in_a_row = 0
        self._seen: list[_Seen] = []
        self._paths: list[str] = []
        self._statistics: list[Tensor] = []
        self._kept: list[Tensor] = []
        self._in_step = False

    @property
    def fails(self) -> bool:
        """Whether the last step was skipped."""
        return self._in_a_row > 0

    def state_dict(self) -> dict[str, Any]:
        """Return the counts."""
        return {"skipped": self.skipped, "skipped_steps": self.skipped_steps, "in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counts."""
        self.skipped, self._in_a_row = state_dict["skipped"], state_dict["in_a_row"]
        # Older checkpoints have only the number.
        self.skipped_steps = list(state_dict.get("skipped_steps", ()))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the running statistics."""
        self._statistics = running_statistics(pl_module)
        self._kept = [statistic.clone() for statistic in self._statistics]
        self._seen, self._in_step = [], False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Keep the values that the forward pass will change."""
        self._paths = batch.paths
        if not self._in_step and self._statistics:
            torch._foreach_copy_(self._kept, self._statistics)
        self._in_step = True

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Compute, on the device, whether all processes' losses are finite."""
        loss = loss.detach()
        terms: dict[str, dict[str, Tensor]] = getattr(pl_module, "terms", {})
        exchange: StepExchange | None = getattr(pl_module, "exchange", None)
        bad = ~torch.isfinite(loss)
        if exchange is not None and exchange.broken is not None:
            # All processes know from the exchange of the losses.
            flag = Flag(bad | exchange.broken)
        else:
            flag = Flag.of_any_process(bad)
        self._seen.append(_Seen(self._paths, loss, terms, flag))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Remove the gradients of a step that must not be made: optimisers skip weights without gradients.

        Raises:
            LossError: The number of skipped steps in a row has reached ``patience``.
        """
        seen, self._seen, self._in_step = self._seen, [], False
        if not any([batch.flag.read() for batch in seen]):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        self.skipped += 1
        if len(self.skipped_steps) < _MOST_STEPS:
            self.skipped_steps.append(trainer.global_step)
        if self._statistics:
            torch._foreach_copy_(self._statistics, self._kept)
        optimizer.zero_grad(set_to_none=True)
        finding = self._finding(seen, trainer)
        if finding is not None:
            _log.warning("step %d skipped: %s", trainer.global_step, finding)
        if self._in_a_row >= self.patience:
            raise LossError(self._diagnosis(finding, trainer, pl_module))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Undo what the forward passes of an interrupted step have changed."""
        if self._in_step and self._statistics:
            torch._foreach_copy_(self._statistics, self._kept)

    @staticmethod
    def _finding(seen: list[_Seen], trainer: Trainer) -> str | None:
        """Return what is wrong with this process's batches, or None if the fault is on another process."""
        bad = [batch for batch in seen if not torch.isfinite(batch.loss)]
        if not bad:
            return None
        tasks: dict[str, set[str]] = {}
        for batch in bad:
            for task, terms in batch.terms.items():
                for name, value in terms.items():
                    if not torch.isfinite(value):
                        tasks.setdefault(task, set()).add(f"{name} {float(value)}")
        where = f" on process {trainer.global_rank}" if trainer.world_size > 1 else ""
        named = "; ".join(f"{task}: {', '.join(sorted(terms))}" for task, terms in tasks.items())
        paths = [path for batch in bad for path in batch.paths]
        return (
            f"the loss{where} is {float(bad[0].loss)} ({named or 'every term is finite'}); images: {', '.join(paths)}"
        )

    def _diagnosis(self, finding: str | None, trainer: Trainer, pl_module: LightningModule) -> str:
        whole = all(bool(torch.isfinite(parameter).all()) for parameter in pl_module.parameters())
        advice = (
            "the weights are finite: check the labels of these images, and, with fp16, try bf16-mixed"
            if whole
            else "the weights are not finite: training has diverged; continue from an earlier checkpoint with a lower "
            "learning rate or a lower trainer.gradient_clip_val"
        )
        return (
            f"step {trainer.global_step}: {self._in_a_row} steps in a row had no finite loss: "
            f"{finding or 'the fault is on another process'}; {advice}"
        )


def running_statistics(module: nn.Module) -> list[Tensor]:
    """Return the running means and variances of the norms inside a module."""
    norms = [each for each in module.modules() if isinstance(each, _NormBase)]
    found = [statistic for norm in norms for statistic in (norm.running_mean, norm.running_var)]
    return [statistic for statistic in found if statistic is not None]
