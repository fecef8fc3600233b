"""Exchange between processes at the end of an epoch: one gather or one sum per metric, none in the steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Part = TypeVar("Part")
Result = TypeVar("Result")


def is_distributed() -> bool:
    """Return whether several processes take part."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_processes(values: Tensor, device: torch.device) -> Tensor:
    """Return the sum of all processes' tensors on the CPU.

    Args:
        values: Tensor of the same shape on every process.
        device: A device that the process group can use.
    """
    if not is_distributed():
        return values.cpu()
    total = values.to(device, copy=True)
    dist.all_reduce(total)
    return total.cpu()


def compute_on_first(part: Part, compute: Callable[[list[Part]], Result]) -> Result:
    """Gather every process's part on the first process, compute there, and send the result to all.

    The parts may differ in size, and may be empty.

    Args:
        part: The part of this process.
        compute: Called with the parts in the order of the processes.

    Returns:
        The result of ``compute``, on every process.
    """
    if not is_distributed():
        return compute([part])
    parts: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(part, parts, dst=0)
    result: list[Any] = [None if parts is None else compute(parts)]
    dist.broadcast_object_list(result, src=0)
    answer: Result = result[0]
    return answer


def summed_over_processes(values: Tensor) -> Tensor:
    """Return the sum of all processes' tensors, on the same device; no process waits for its device."""
    if not is_distributed():
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total
