"""Measure what the segmentation loss keeps for the backward pass, beyond the logits, and how long it takes.

By default 133 classes, 512 x 512 pixels and a batch of 16, from logits at stride 4: about 3 GB of memory and a minute.
Run: ``python benchmarks/segmentation_memory.py``.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.structures import Batch, Output


def main() -> None:
    """Print the memory and the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=133)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--stride", type=int, default=4)
    options = parser.parse_args()
    images, classes, size = options.batch, options.classes, options.size
    logits = torch.randn(images, classes, size // options.stride, size // options.stride, requires_grad=True)
    nothing, none = torch.zeros(images, 8, 4), torch.zeros(images, 8, dtype=torch.bool)
    batch = Batch(
        torch.zeros(images, 3, size, size, dtype=torch.uint8),
        nothing,
        none.long(),
        none,
        none,
        torch.randint(0, classes, (images, size, size), dtype=torch.uint8),
        none,
        torch.ones(images, classes, dtype=torch.bool),
    )
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    loss = SegmentationLoss()
    start = time.process_time()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        terms = loss(Output(None, logits, options.stride), batch)
    middle = time.process_time()
    kept.pop(logits.untyped_storage().data_ptr(), None)
    sum(terms.values(), torch.zeros(())).backward()
    end = time.process_time()
    print(", ".join(f"{name} {float(value.detach()):.6f}" for name, value in terms.items()))
    print(f"kept {sum(kept.values()) / 2**30:.3f} GiB; forward {middle - start:.1f} s, backward {end - middle:.1f} s")


if __name__ == "__main__":
    main()
