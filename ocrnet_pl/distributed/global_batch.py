"""Sums over the batch of all processes, so that a loss equals that of one process with the whole batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from ocrnet_pl.distributed.gather import is_distributed


def over_all_processes(*sums: Tensor) -> tuple[Tensor, ...]:
    """Return sums over the batches of all processes, from the sums over each process's own batch.

    A ratio of two such sums is the same number on every process, and its gradients, which the processes average, are
    those of one process with the whole batch, however unevenly boxes and labelled pixels are distributed. Every process
    has to call this equally often in a step; all sums of a call are sent together. On one process nothing happens.

    A sum that is not finite is kept on its own process and left out on the others, so that its images can be
    identified.

    Args:
        sums: float tensors of any shapes, the same shapes on every process.

    Returns:
        The same shapes; each process's gradient counts as many times as there are processes.
    """
    if not is_distributed():
        return sums
    together = _SumOverProcesses.apply(torch.cat([each.reshape(-1) for each in sums]))
    parts = together.split([each.numel() for each in sums])
    return tuple(part.view_as(each) for part, each in zip(parts, sums, strict=True))


class _SumOverProcesses(torch.autograd.Function):
    """A sum over the processes; backward needs no exchange, since every process holds the same loss."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        finite = torch.isfinite(values)
        total = torch.where(finite, values, 0.0)
        dist.all_reduce(total)
        return torch.where(finite, total, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # The processes' gradients are averaged afterwards, and each contains only the part of its own images.
        return gradient * dist.get_world_size()
