"""Running statistics that are the same on all processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

from ocrnet_pl.distributed.gather import is_distributed


@torch.no_grad()
def share_buffers(buffers: Iterable[Tensor]) -> None:
    """Copy the first process's floating-point buffers to all processes, in one exchange per data type.

    In each process, batch normalisation follows the statistics of its own images, and an average of the weights follows
    its own statistics, while checkpoints hold those of the first process. All processes have to call this function; in
    a run of one process it does nothing.

    Args:
        buffers: Changed in place. They must be the same ones in the same order on all processes, on the device of the
            process group. Integers, such as counters, are not changed.
    """
    if not is_distributed():
        return
    by_type: dict[torch.dtype, list[Tensor]] = defaultdict(list)
    for buffer in buffers:
        if buffer.is_floating_point() and buffer.numel():
            by_type[buffer.dtype].append(buffer)
    for alike in by_type.values():
        flat = torch.cat([buffer.reshape(-1) for buffer in alike])
        dist.broadcast(flat, src=0)
        parts = flat.split([buffer.numel() for buffer in alike])
        torch._foreach_copy_(alike, [part.view(buffer.shape) for part, buffer in zip(parts, alike, strict=True)])
