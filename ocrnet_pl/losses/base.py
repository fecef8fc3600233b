"""The protocol of the losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ocrnet_pl.distributed.global_batch import StepExchange, over_all_processes
from ocrnet_pl.storage.recording import Recorded
from ocrnet_pl.structures import Batch, Output


class Loss(Recorded, nn.Module, ABC):
    """Computes named, weighted loss terms of one task.

    Every term is a float32 scalar, finite for every empty case, keeps all of the decoder's outputs in the graph,
    and gives exactly zero gradient for what the batch's supervision does not cover.
    """

    @abstractmethod
    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Return the terms by name; their sum is the task's loss."""


class Measured(NamedTuple):
    """What a loss measures in the batch of this process.

    Attributes:
        sums: float32 tensors that are added up over all processes.
        own: Complete terms, which do not depend on those sums.
    """

    sums: dict[str, Tensor]
    own: dict[str, Tensor]


class SummedLoss(Loss):
    """A loss whose terms follow from sums over the batch of all processes.

    The sums of all such losses of a step are sent together (:func:`joint_terms`), and :meth:`measure`, which has all of
    the work and no exchange between processes, is compiled with the network.
    """

    @abstractmethod
    def measure(self, output: Output, batch: Batch) -> Measured:
        """Measure the batch of this process; nothing for a network without the decoder."""

    @abstractmethod
    def combine(self, totals: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the terms by name.

        Args:
            totals: What ``Measured.sums`` are together over all processes.
            own: ``Measured.own`` of this process.
        """

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Return the terms by name; their sum is the task's loss."""
        sums, own = self.measure(output, batch)
        totals = over_all_processes(*sums.values()) if sums else ()
        return self.combine(dict(zip(sums, totals, strict=True)), own)


Measure = Callable[[Sequence[SummedLoss], Output, Batch], list[Measured]]


def measure_all(losses: Sequence[SummedLoss], output: Output, batch: Batch) -> list[Measured]:
    """Measure the batch of this process for several losses, without any exchange; to be compiled as one."""
    return [loss.measure(output, batch) for loss in losses]


def compiled_measure(backend: str | Callable[..., Any], mode: str | None = None) -> Measure:
    """Return :func:`measure_all` compiled, with one graph for each input size, however many boxes a batch has.

    Args:
        backend: Name of a backend of :func:`torch.compile`, or a function that is one.
        mode: What the backend ``inductor`` optimises for; None for its default.
    """
    compiled = torch.compile(measure_all, backend=backend, mode=mode, dynamic=False, fullgraph=True)

    def measure(losses: Sequence[SummedLoss], output: Output, batch: Batch) -> list[Measured]:
        for rows in (batch.boxes, batch.labels, batch.valid, batch.crowd):
            torch._dynamo.maybe_mark_dynamic(rows, 1)
        return compiled(losses, output, batch)

    return measure


def joint_terms(
    losses: Sequence[Loss],
    output: Output,
    batch: Batch,
    measure: Measure = measure_all,
    exchange: StepExchange | None = None,
    watched: Sequence[Tensor] = (),
) -> list[dict[str, Tensor]]:
    """Return the terms of each loss, with one exchange between the processes for all that are sums.

    Args:
        losses: The losses.
        output: Output of the network.
        batch: The batch.
        measure: :func:`measure_all`, or what it was compiled to.
        exchange: The exchange of the step, for what else is sent in it; None for one of its own.
        watched: Further terms of this process, which the exchange watches as well.
    """
    # A subclass that computes its terms in another way is called as a whole.
    summed = [loss for loss in losses if isinstance(loss, SummedLoss) and type(loss).forward is SummedLoss.forward]
    others = {id(loss): loss(output, batch) for loss in losses if all(loss is not each for each in summed)}
    measured = measure(summed, output, batch)
    sums = [each for part in measured for each in part.sums.values()]
    own = [each for part in (*(part.own for part in measured), *others.values()) for each in part.values()]
    totals = iter((exchange or StepExchange()).send(sums, (*own, *watched)))
    found = {
        id(loss): loss.combine({name: next(totals) for name in part.sums}, part.own)
        for loss, part in zip(summed, measured, strict=True)
    }
    return [(found | others)[id(loss)] for loss in losses]


def zero_of(output: Tensor) -> Tensor:
    """Return a zero that depends on an output, so that every parameter behind it gets a gradient."""
    # The mean, in float32: the sum of an output in half precision overflows, and infinity times zero is NaN.
    return output.mean(dtype=torch.float32) * 0.0
