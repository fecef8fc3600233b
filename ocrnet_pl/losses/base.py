"""The protocol of the losses."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

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


def zero_of(output: Tensor) -> Tensor:
    """Return a zero that depends on an output, so that every parameter behind it gets a gradient."""
    # The mean, in float32: the sum of an output in half precision overflows, and infinity times zero is NaN.
    return output.mean(dtype=torch.float32) * 0.0
