"""Samplers: which image a process reads next, at which size, and with which random seed.

They yield :class:`Item`, not bare indices, so that the workers resize once and the whole run depends only on the seed.
They extend ``DistributedSampler``, so that Lightning does not replace them and sets their epoch, on one process and on
many.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from ocrnet_pl.data.loading.aspect_groups import Aspects
from ocrnet_pl.data.loading.block_order import by_rank, shuffled_blocks, slide
from ocrnet_pl.data.loading.stratified_order import Draws
from ocrnet_pl.data.randomness import item_seed, stream
from ocrnet_pl.data.records import Blocks, Part
from ocrnet_pl.imaging.geometry import Size


@dataclass(frozen=True, slots=True)
class Item:
    """A sampler's request to the data set.

    Attributes:
        index: Index of the sample.
        size: (height, width) to which it is brought.
        seed: Seed of the sample's random stream.
        counted: False for an image that only keeps a process busy that would otherwise have nothing to evaluate.
        plain: Whether to leave out the augmentation.
        ahead: Index of a sample that will be requested some time later, so that fetching it can begin; -1 for none.
    """

    index: int
    size: Size
    seed: int = 0
    counted: bool = True
    plain: bool = False
    ahead: int = -1


def scaled_sizes(size: Size, scales: Sequence[float], multiple: int = 32) -> list[Size]:
    """Return the sizes of multi-scale training: the base size unchanged, others rounded to a multiple.

    Args:
        size: Base (height, width).
        scales: Factors of the base size.
        multiple: Number of pixels of which each side is a multiple, at least one multiple.

    Raises:
        ValueError: There are no scales, or one is not a positive number.
    """
    if not scales or not all(0 < scale < math.inf for scale in scales):
        raise ValueError(f"data.scales must be positive numbers, at least one, got {list(scales)}")

    def scaled(side: int, scale: float) -> int:
        return side if scale == 1 else max(multiple, round(side * scale / multiple) * multiple)

    return list(dict.fromkeys((scaled(size[0], scale), scaled(size[1], scale)) for scale in scales))


class MultiScaleSampler(DistributedSampler[Any]):
    """Training order: shuffled in each epoch, with all images of a batch at one size.

    The size of a batch is drawn from (seed, epoch, step), so the processes agree on it without communication. Each
    process gets the same number of batches. If the images do not divide evenly, some are left out (``drop_last``) or
    used twice.

    If the data set has parts, each has its share of every batch of every process: exactly if that is a whole number of
    images, else within one image over any run of batches. A part's samples all come once before any of them is
    repeated, whatever the epochs; those with repeat factors come that often in each pass.

    If images are grouped by their aspect ratio, a step of all processes takes them from one group and has its size. The
    few steps that are filled from two groups have the size of the larger number.

    If samples are stored in blocks, the order uses few blocks at a time, and each process has its own blocks; with
    parts or groups of aspect ratios, the processes share them.

    Args:
        dataset: The data set, of which only the length is read.
        batch_size: Number of images per batch of one process; the loader must use the same.
        sizes: The sizes to choose from.
        num_replicas: Number of processes.
        rank: Number of this process.
        shuffle: Whether to shuffle.
        seed: Seed of the run.
        drop_last: Whether images that do not fill a batch on each process are left out. If there is not one full batch,
            none are left out. With parts, every batch is full.
        parts: Parts between which the batches are shared; empty if the data set is undivided.
        aspects: Groups of images and their sizes, with as many sizes as in ``sizes`` for each; None for one size for
            all.
        plain_from: The epoch from which there is no augmentation; None if there always is.
        blocks: How the samples are stored; None if any order is as good. With parts, the blocks of the parts are used
            instead.

    Attributes:
        start: Number of samples to leave out at the beginning of the epoch, for a run that continues in the middle of
            it.

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
        parts: Sequence[Part] = (),
        aspects: Aspects | None = None,
        plain_from: int | None = None,
        blocks: Blocks | None = None,
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=shuffle, seed=seed)
        if not sizes:
            raise ValueError("MultiScaleSampler: there are no sizes")
        if batch_size < 1:
            raise ValueError(f"MultiScaleSampler: the batch size must be at least 1, got {batch_size}")
        self.batch_size = batch_size
        self.sizes = list(sizes)
        self.plain_from = plain_from
        self.start = 0
        self._count = len(dataset)  # type: ignore[arg-type]
        self._draws = Draws(parts, seed, shuffle) if parts else None
        self._aspects = aspects
        self._blocks = None if parts else blocks
        stored = [one for one in [self._blocks, *(part.blocks for part in parts)] if one is not None]
        self._window = max((_mean(one) * one.window for one in stored), default=None)
        sharing = num_replicas if parts or aspects is not None else 1
        self._distance = max((max(1, round(_mean(one) / sharing)) for one in stored), default=0)
        full = self._count // (num_replicas * batch_size) * batch_size
        if self._draws is not None:
            full = max(full, batch_size)
        self.drop_last = drop_last and full > 0
        self.num_samples = full if self.drop_last or parts else -(-self._count // num_replicas)
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[Item]:
        indices, passes, sizes = self._epoch()
        plain = self.plain_from is not None and self.epoch >= self.plain_from
        for position in range(self.start, self.num_samples):
            index = int(indices[position])
            seed = item_seed(self.seed, int(passes[position]), index)
            later = position + self._distance
            ahead = int(indices[later]) if self._distance and later < self.num_samples else -1
            yield Item(index, sizes[position // self.batch_size], seed, plain=plain, ahead=ahead)

    def _epoch(self) -> tuple[NDArray[np.int64], NDArray[np.int64], list[Size]]:
        """Return this process's samples of the epoch, the pass through the data of each sample, and the steps' sizes.

        The epoch of all processes is one row of places: step by step, and process by process within a step.
        """
        widths = np.minimum(self.batch_size, self.num_samples - np.arange(0, self.num_samples, self.batch_size))
        starts = np.concatenate([[0], np.cumsum(widths)]) * self.num_replicas
        steps = len(widths)
        choices = stream(self.seed, self.epoch, 1).integers(len(self.sizes), size=steps).tolist()
        indices, passes = np.zeros(self.total_size, dtype=np.int64), np.zeros(self.total_size, dtype=np.int64)
        order = np.arange(self.total_size)
        # Number of steps whose samples may change places to be grouped: all steps, or those of a window of blocks.
        stretch = steps
        if self._window is not None:
            stretch = max(1, round(self._window / (self.batch_size * self.num_replicas)))
        if self._aspects is not None and self.shuffle:
            # The groups are dealt out one after the other, but to steps in random order.
            shuffled = stream(self.seed, self.epoch, 2).permutation(steps)
            shuffled = shuffled[np.argsort(shuffled // stretch, kind="stable")]
            order = np.concatenate([order[starts[step] : starts[step + 1]] for step in shuffled])
        for places, own, own_passes in self._contributions(order, starts, widths):
            if self._aspects is not None:
                within = (np.searchsorted(starts, places, side="right") - 1) // stretch
                sorting = np.lexsort((self._aspects.groups[own], within))
                own, own_passes = own[sorting], own_passes[sorting]
            indices[places], passes[places] = own, own_passes
        if self._aspects is None:
            sizes = [self.sizes[choice] for choice in choices]
        else:
            groups = self._aspects.groups[indices]
            larger = [int(np.bincount(groups[starts[step] : starts[step + 1]]).argmax()) for step in range(steps)]
            sizes = [self._aspects.sizes[group][choice] for group, choice in zip(larger, choices, strict=True)]
        mine = starts[:-1, None] + self.rank * widths[:, None] + np.arange(self.batch_size)
        kept = mine[np.arange(self.batch_size) < widths[:, None]]
        return indices[kept], passes[kept], sizes

    def _contributions(
        self, order: NDArray[np.int64], starts: NDArray[np.int64], widths: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
        """Yield for each part its places in the epoch, its samples and their passes.

        Args:
            order: int64 [places], all places in the order in which samples are dealt out to them.
            starts: int64 [steps + 1], the first place of each step of all processes.
            widths: int64 [steps], the number of samples of a step of one process.
        """
        if self._draws is None and self._blocks is not None and self.shuffle:
            random = stream(self.seed, self.epoch, 0)
            samples = np.resize(shuffled_blocks(self._blocks, random), self.total_size)
            pieces = [samples]
            if self._aspects is None:
                # Each process uses its own blocks; groups of all processes have to come at the same step.
                pieces, order = np.split(samples, self.num_replicas), by_rank(starts, widths, self.num_replicas)
            own = np.concatenate([slide(piece, self._blocks, random) for piece in pieces])
            yield order, own, np.full(self.total_size, self.epoch)
            return
        if self._draws is None:
            samples = np.arange(self._count)
            if self.shuffle:
                stream(self.seed, self.epoch, 0).shuffle(samples)
            yield order, np.resize(samples, self.total_size), np.full(self.total_size, self.epoch)
            return
        first = self.epoch * self.total_size
        owners = self._draws.owners(first, first + self.total_size)[order]
        for place in range(len(self._draws.parts)):
            yield order[owners == place], *self._draws.samples(place, first, first + self.total_size)


class EvaluationSampler(DistributedSampler[Any]):
    """Evaluation order: each image once, on one process.

    The processes' numbers of images may differ by one. A process without images gets one that does not count, so that
    every process reaches the end of the epoch, where the metrics are gathered.

    Args:
        dataset: The data set, of which only the length is read.
        size: (height, width) to which the images are brought.
        num_replicas: Number of processes.
        rank: Number of this process.
        fill: Whether a process without images gets one that does not count.
        blocks: How the samples are stored; None if any order is as good.

    Attributes:
        start: Number of samples to leave out at the beginning.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        size: Size,
        *,
        num_replicas: int = 1,
        rank: int = 0,
        fill: bool = True,
        blocks: Blocks | None = None,
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)
        count: int = len(dataset)  # type: ignore[arg-type]
        distance = count if blocks is None else max(1, round(_mean(blocks)))
        self._items = [
            Item(index, size, ahead=index + distance if index + distance < count else -1)
            for index in range(rank, count, num_replicas)
        ]
        if fill and count and not self._items:
            self._items = [Item(0, size, counted=False)]
        self.start = 0
        self.num_samples = len(self._items)
        self.total_size = count

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items[self.start :])


def _mean(blocks: Blocks) -> float:
    """Return the mean number of samples of a block."""
    lengths = np.diff(blocks.bounds)
    return float(lengths[lengths > 0].mean()) if lengths.any() else 1.0
