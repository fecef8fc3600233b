"""From the device to the host, in one transfer."""

from __future__ import annotations

import torch
from torch import Tensor


def fetch(*tensors: Tensor) -> list[Tensor]:
    """Return tensors of one device on the CPU, in one transfer; those that are there are returned themselves."""
    if all(each.device.type == "cpu" for each in tensors):
        return list(tensors)
    # Larger numbers first, so that each begins at a multiple of its size.
    order = sorted(range(len(tensors)), key=lambda place: -tensors[place].element_size())
    parts = [tensors[place].contiguous().view(-1).view(torch.uint8) for place in order]
    arrived = torch.cat(parts).cpu().split([len(part) for part in parts])
    found = dict(zip(order, arrived, strict=True))
    return [found[place].view(each.dtype).view(each.shape) for place, each in enumerate(tensors)]
