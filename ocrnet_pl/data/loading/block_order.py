"""A random order that reads samples stored in blocks nearly one block after the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.records import Blocks


def shuffled_blocks(blocks: Blocks, random: np.random.Generator) -> NDArray[np.int64]:
    """Return all samples, with the blocks in random order and each block in the order in which it is stored.

    Args:
        blocks: How the samples are stored.
        random: Random generator for the order.
    """
    starts, stops = blocks.bounds[:-1], blocks.bounds[1:]
    order = random.permutation(len(starts))
    return np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(starts[b], stops[b]) for b in order)])


def slide(samples: NDArray[np.int64], blocks: Blocks, random: np.random.Generator) -> NDArray[np.int64]:
    """Mix samples that come block by block, so that at any time few blocks are in use, and each only for a while.

    A block's samples are spread at random over a stretch as long as ``window`` blocks, around the position of the
    block. So blocks come into use one by one and the next ones can be fetched in time; half of the window is in use
    from the beginning. If all blocks fit the window, this is a plain random order.

    Args:
        samples: int64 [N], the samples block after block.
        blocks: How the samples are stored.
        random: Random generator for the order.

    Returns:
        int64 [N], the same samples.
    """
    count = len(samples)
    if not count:
        return samples
    owner = np.searchsorted(blocks.bounds, samples, side="right")
    first = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]]))
    lengths = np.diff(np.append(first, count))
    used = np.diff(blocks.bounds)
    stretch = blocks.window * used[used > 0].mean()
    low, high = np.zeros(len(first)), np.full(len(first), float(count))
    if stretch < count:
        # Shorter at both ends, so that there are never more blocks in use than in the middle.
        middle = first + lengths / 2
        low, high = np.maximum(middle - stretch / 2, 0), np.minimum(middle + stretch / 2, count)
    key = low.repeat(lengths) + random.random(count) * (high - low).repeat(lengths)
    return samples[np.argsort(key, kind="stable")]


def windowed(blocks: Blocks, random: np.random.Generator, counts: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Return all samples in a random order that uses few blocks at a time.

    Args:
        blocks: How the samples are stored.
        random: Random generator for the order.
        counts: int64 [samples], how often each sample comes; None for once each.
    """
    samples = shuffled_blocks(blocks, random)
    return slide(samples if counts is None else samples.repeat(counts[samples]), blocks, random)


def by_rank(starts: NDArray[np.int64], widths: NDArray[np.int64], replicas: int) -> NDArray[np.int64]:
    """Return the places of an epoch process by process, those of each process in the order of its steps.

    Args:
        starts: int64 [steps + 1], the first place of each step of all processes.
        widths: int64 [steps], the number of samples of a step of one process.
        replicas: Number of processes.
    """
    step = np.repeat(np.arange(len(widths)), widths * replicas)
    rank = (np.arange(len(step)) - starts[step]) // widths[step]
    return np.argsort(rank, kind="stable")
