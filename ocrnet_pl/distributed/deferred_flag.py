"""A yes or no that all processes agree on without making their devices wait."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from ocrnet_pl.distributed.gather import is_distributed


class Flag:
    """A flag that the device computes and the host reads later, when it has long arrived.

    Args:
        value: bool or number [], on any device.
    """

    def __init__(self, value: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        self._value = value
        if value.is_cuda:
            self._value = torch.empty((), dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    @classmethod
    def of_any_process(cls, value: Tensor) -> Flag:
        """Return a flag that is set if it is set on any process; all of them have to call this.

        Args:
            value: bool [], the flag of this process.
        """
        value = value.float()
        if is_distributed():
            dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return cls(value)

    def read(self) -> bool:
        """Return the flag; waits for what was queued on the device before it, not for what was queued after it."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return bool(self._value)
