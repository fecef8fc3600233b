"""Exchange between processes at the end of an epoch: one gather or one sum per metric, none in the steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor

Part = TypeVar("Part")
Result = TypeVar("Result")


def is_distributed() -> bool:
    """Return whether several processes take part."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather_tensors(part: Tensor, group: Any = None) -> list[Tensor]:
    """Return all processes' tensors in the order of the processes, each on the device of the process's own.

    They may differ in shape, which torchmetrics' own gather does not allow; empty ones are left out where others have
    values, since a process without an image knows neither shape nor type of what it lacks.

    Args:
        part: Tensor of this process.
        group: Processes that take part; None for all.
    """
    parts: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(parts, part.cpu(), group=group)
    return [each.to(part.device) for each in parts if each.numel()] or [part]


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
