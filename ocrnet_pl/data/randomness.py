"""Seeds and random streams that depend only on the run's seed, the epoch and the image."""

from __future__ import annotations

import numpy as np


def stream(*keys: int) -> np.random.Generator:
    """Return a random stream that depends only on the keys."""
    return np.random.default_rng(np.random.SeedSequence([key % 2**63 for key in keys]))


def item_seed(seed: int, epoch: int, index: int) -> int:
    """Return the seed of one sample in one epoch.

    Args:
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.
        index: Index of the sample.
    """
    # The finaliser of splitmix64: neighbouring keys give unrelated seeds.
    value = 0
    for key in (seed, epoch, index):
        value = (value + key + 0x9E3779B97F4A7C15) % 2**64
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
        value ^= value >> 31
    return value % 2**63
