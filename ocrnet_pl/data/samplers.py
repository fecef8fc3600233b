"""Samplers: which image a process reads next, at which size, from which random stream.

They yield :class:`Item`, not bare indices, so that the workers resize once and the whole run depends on nothing but
the seed. They extend ``DistributedSampler``, so that Lightning leaves them in place and tells them the epoch, on one
process as on many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from ocrnet_pl.data.geometry import Size


@dataclass(frozen=True, slots=True)
class Item:
    """What a sampler asks the data set for.

    Attributes:
        index: Of the sample.
        size: (height, width) to bring it to.
        seed: Of the sample's random stream.
        counted: False for an image that only keeps a process busy that would otherwise have nothing to evaluate.
    """

    index: int
    size: Size
    seed: int = 0
    counted: bool = True


def stream(*keys: int) -> np.random.Generator:
    """Return a random stream that depends on the keys and on nothing else."""
    return np.random.default_rng(np.random.SeedSequence([key % 2**63 for key in keys]))


def item_seed(seed: int, epoch: int, index: int) -> int:
    """Return the seed of one sample in one epoch.

    Args:
        seed: Of the run.
        epoch: From 0.
        index: Of the sample.
    """
    # The finaliser of splitmix64: neighbouring keys give unrelated seeds.
    value = 0
    for key in (seed, epoch, index):
        value = (value + key + 0x9E3779B97F4A7C15) % 2**64
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
        value ^= value >> 31
    return value % 2**63


def scaled_sizes(size: Size, scales: Sequence[float], multiple: int = 32) -> list[Size]:
    """Return the sizes of multi-scale training: the base size as it is, others rounded to a multiple.

    Args:
        size: Base (height, width).
        scales: Factors.
        multiple: Of the sides; at least one.

    Raises:
        ValueError: There is no scale, or one is not positive.
    """
    if not scales or any(scale <= 0 for scale in scales):
        raise ValueError(f"scales must be positive numbers, at least one, got {list(scales)}")

    def scaled(side: int, scale: float) -> int:
        return side if scale == 1 else max(multiple, round(side * scale / multiple) * multiple)

    return list(dict.fromkeys((scaled(size[0], scale), scaled(size[1], scale)) for scale in scales))


class MultiScaleSampler(DistributedSampler[Any]):
    """Training order: shuffled anew each epoch, all images of a batch at one size.

    The size of a batch is drawn from (seed, epoch, step), so the processes agree on it without talking. Each process
    gets the same number of batches; where the images do not divide evenly, some are left out (``drop_last``) or
    taken twice.

    Args:
        dataset: Of which only the length is read.
        batch_size: Of one process; the loader must use the same.
        sizes: To choose from.
        num_replicas: Number of processes.
        rank: Of this process.
        shuffle: Whether to shuffle.
        seed: Of the run.
        drop_last: Whether to leave out what does not fill a batch on each process. If there is not one full batch,
            nothing is left out.

    Raises:
        ValueError: There are no sizes, or the batch size is not positive.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        sizes: Sequence[Size],
        *,
        num_replicas: int = 1,
        rank: int = 0,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = True,
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=shuffle, seed=seed)
        if not sizes:
            raise ValueError("MultiScaleSampler: there are no sizes")
        if batch_size < 1:
            raise ValueError(f"MultiScaleSampler: the batch size must be at least 1, got {batch_size}")
        self.batch_size = batch_size
        self.sizes = list(sizes)
        self._count = len(dataset)  # type: ignore[arg-type]
        full = self._count // (num_replicas * batch_size) * batch_size
        self.drop_last = drop_last and full > 0
        self.num_samples = full if self.drop_last else -(-self._count // num_replicas)
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[Item]:
        order = np.arange(self._count)
        if self.shuffle:
            stream(self.seed, self.epoch, 0).shuffle(order)
        order = np.resize(order, self.total_size)[self.rank :: self.num_replicas]
        steps = -(-len(order) // self.batch_size)
        choices = stream(self.seed, self.epoch, 1).integers(len(self.sizes), size=steps)
        for position, index in enumerate(order.tolist()):
            size = self.sizes[int(choices[position // self.batch_size])]
            yield Item(index, size, item_seed(self.seed, self.epoch, index))


class EvaluationSampler(DistributedSampler[Any]):
    """Evaluation order: each image once, on one process.

    The processes' shares may differ by one. A process without a share gets one image that does not count, so that
    every process comes to the end of the epoch, where the metrics are gathered.

    Args:
        dataset: Of which only the length is read.
        size: (height, width) to bring the images to.
        num_replicas: Number of processes.
        rank: Of this process.
        fill: Whether a process without a share gets an image that does not count.
    """

    def __init__(
        self, dataset: Dataset[Any], size: Size, *, num_replicas: int = 1, rank: int = 0, fill: bool = True
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)
        count: int = len(dataset)  # type: ignore[arg-type]
        self._items = [Item(index, size) for index in range(rank, count, num_replicas)]
        if fill and count and not self._items:
            self._items = [Item(0, size, counted=False)]
        self.num_samples = len(self._items)
        self.total_size = count

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)
