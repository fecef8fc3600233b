"""Sums over the batch of all processes, so that a loss equals that of one process with the whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from ocrnet_pl.distributed.deferred_flag import Flag
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


class Answer:
    """The answer to a question that all processes were asked.

    Attributes:
        flag: The answer, on the device; None until it has been sent.
    """

    def __init__(self) -> None:
        self.flag: Flag | None = None

    def read(self) -> bool:
        """Return whether any process said yes; the question must have been sent by now."""
        assert self.flag is not None
        return self.flag.read()


class StepExchange:
    """What the processes tell each other in a training step, in one exchange: sums of losses, and yes or no.

    Attributes:
        broken: bool [], whether anything that was given to :meth:`send` was not finite on any process, in the last
            call; None on one process.
    """

    def __init__(self) -> None:
        self.broken: Tensor | None = None
        self._asked: list[tuple[Tensor, Answer]] = []

    def ask(self, value: Tensor) -> Answer:
        """Ask all processes with the next sums; all of them have to.

        Args:
            value: float [], 1 for yes and 0 for no, on the device.
        """
        answer = Answer()
        self._asked.append((value, answer))
        return answer

    def send(self, sums: Sequence[Tensor], watched: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """Return what :func:`over_all_processes` returns, and find out whether all values are finite.

        Args:
            sums: The sums; where there are none, only the questions are sent.
            watched: Further values of this process, which are not added up.
        """
        asked, self._asked, self.broken = self._asked, [], None
        values = [each.detach().reshape(-1) for each in (*sums, *watched)]
        if not is_distributed() or not (values or asked):
            return tuple(sums)
        flags = [value.detach().float().reshape(1) for value, _ in asked]
        if values:
            flags.append((~torch.cat([value.float() for value in values]).isfinite().all()).float()[None])
        found = over_all_processes(*sums, torch.cat(flags))
        yes = found[-1].detach() > 0
        for (_, answer), each in zip(asked, yes, strict=False):
            answer.flag = Flag(each)
        if values:
            self.broken = yes[-1]
        return found[:-1]


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
