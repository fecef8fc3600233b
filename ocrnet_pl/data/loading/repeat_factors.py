"""Repeat factors of images with rare classes (Gupta et al., "LVIS", CVPR 2019, appendix B.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from ocrnet_pl.data.records import Part
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.distributed.gather import compute_on_first, is_distributed
from ocrnet_pl.errors import DataError, StoreError

_PER_WORKER = 200
"""Number of images for which a further process is worth its start."""


class Repeats(NamedTuple):
    """How often images come, and why.

    Attributes:
        images: float64 [images], the repeat factor of each image, at least 1.
        shares: float64 [categories], share of the images that have the category.
        categories: float64 [categories], the repeat factor of each category, at least 1; 1 for one that no image has.
    """

    images: NDArray[np.float64]
    shares: NDArray[np.float64]
    categories: NDArray[np.float64]


def repeat_factors(
    present: Sequence[NDArray[np.int64]], categories: int, threshold: float, weights: NDArray[np.float64] | None = None
) -> Repeats:
    """Return the repeat factors: of a category max(1, sqrt(threshold / share)), of an image the largest of its own.

    Args:
        present: The categories of each image, int64, each once.
        categories: Number of categories.
        threshold: Share of the images below which a category is rare, above 0 and at most 1.
        weights: float64 [images], the part of all drawn images that each image is, which add up to 1; None for equal.
    """
    lengths = np.array([len(each) for each in present], dtype=np.int64)
    joined = np.concatenate([np.zeros(0, dtype=np.int64), *present])
    # Without weights counted, so that a share does not depend on the order in which it is added up.
    counted = None if weights is None else weights.repeat(lengths)
    summed = np.bincount(joined, counted, minlength=categories).astype(np.float64)
    shares = summed / max(1, len(present)) if weights is None else summed
    factors = np.ones(categories)
    factors[shares > 0] = np.maximum(1.0, np.sqrt(threshold / shares[shares > 0]))
    images = np.ones(len(present))
    np.maximum.at(images, np.arange(len(present)).repeat(lengths), factors[joined])
    return Repeats(images, shares, factors)


def repeated_parts(parts: Sequence[Part], repeats: NDArray[np.float64]) -> list[Part]:
    """Return the parts with the repeat factors of their images.

    Shares that are the numbers of images become the numbers of images as they are repeated; others do not change.

    Args:
        parts: The parts.
        repeats: float64 [images], the factors.
    """
    by_number = all(part.share == part.stop - part.start for part in parts)
    own = [repeats[part.start : part.stop] for part in parts]
    return [
        replace(part, repeats=each, share=float(each.sum()) if by_number else part.share)
        for part, each in zip(parts, own, strict=True)
    ]


def image_weights(parts: Sequence[Part]) -> NDArray[np.float64]:
    """Return the part of all drawn images that each image is, by the shares of the parts, float64 [images]."""
    total = sum(part.share for part in parts)
    return np.concatenate(
        [np.full(part.stop - part.start, part.share / total / (part.stop - part.start)) for part in parts]
    )


class _Categories(Dataset[Any]):
    """The categories of each image, or why they cannot be read."""

    def __init__(self, source: Source, tolerant: bool) -> None:
        self.source = source
        self.tolerant = tolerant

    def __getitem__(self, index: int) -> NDArray[np.int64] | DataError:
        try:
            return self.source.image_categories(index)
        except DataError as error:
            if self.tolerant and not isinstance(error, StoreError):
                return np.zeros(0, dtype=np.int64)
            return error


def _as_they_are(entries: list[Any]) -> list[Any]:
    return entries


def present_categories(source: Source, *, workers: int = 0, tolerant: bool = False) -> list[NDArray[np.int64]]:
    """Return the categories of each image; the processes of a run each read their part of them.

    Args:
        source: Source of the images.
        workers: Largest number of loading processes of this process.
        tolerant: Whether an image that cannot be read counts as empty instead of raising an error.

    Raises:
        DataError: An image cannot be read, on any process.
    """
    replicas, rank = (dist.get_world_size(), dist.get_rank()) if is_distributed() else (1, 0)
    mine = range(rank, len(source), replicas)
    workers = min(workers, len(mine) // _PER_WORKER)
    dataset = _Categories(source, tolerant)
    loader: DataLoader[Any] = DataLoader(
        dataset, sampler=list(mine), batch_size=32, num_workers=workers, collate_fn=_as_they_are
    )
    # An error has to reach every process, or the others would wait for this one.
    found = [entry for batch in loader for entry in batch]

    def join(parts: list[list[Any]]) -> list[Any]:
        joined: list[Any] = [None] * len(source)
        for number, part in enumerate(parts):
            joined[number :: len(parts)] = part
        return joined

    every = compute_on_first(found, join)
    for entry in every:
        if isinstance(entry, DataError):
            raise entry
    return every
