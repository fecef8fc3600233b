"""How large the pieces of a batch should be that a CPU computes one after the other."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from unittest import mock

import torch
from rich.table import Table

from deployment.networks import OWN
from deployment.timing import conditions, medians
from ocrnet_pl.models import pieces

LIMITS = {"2^18": 2**18, "2^19": 2**19, "whole": 2**62}
"""Numbers of pixels in a piece that are compared, by name."""


def compare_cuts(
    sizes: Sequence[int], batches: Sequence[int], rounds: int, threads: int, names: Sequence[str]
) -> Table:
    """Time the networks in torch, batch norms folded, with pieces of several sizes.

    Args:
        sizes: Sides of the images in pixels.
        batches: Numbers of images.
        rounds: Number of rounds.
        threads: Number of threads.
        names: Which of ``OWN``.
    """
    head = ["", "size", "batch", *(f"{name} pixels" for name in LIMITS)]
    table = Table(*head, title=f"batches cut into pieces, torch, ms per image; {conditions(rounds, threads)}")
    for name in names:
        for size in sizes:
            network = OWN[name](size).fuse()
            ways = {}
            for batch in batches:
                images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
                for limit, pixels in LIMITS.items():
                    ways[f"{batch} {limit}"] = functools.partial(_cut, network, images, pixels)
            spent = medians(ways, rounds, threads)
            for batch in batches:
                figures = [f"{1e3 * spent[f'{batch} {limit}'] / batch:.1f}" for limit in LIMITS]
                table.add_row(name, str(size), str(batch), *figures)
    return table


def _cut(network: torch.nn.Module, images: torch.Tensor, pixels: int) -> None:
    with mock.patch.object(pieces, "_PIXELS", pixels):
        network(images)
