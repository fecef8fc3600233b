"""Finding the same or nearly the same image in two splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

SIDE = 32
"""Side in pixels of the thumbnail that is kept of every image."""

_WAVES = 10
_FIRST, _SECOND, _LAST = 0.75, 0.5, 0.6
"""How much two images have to agree: in their coarse waves, in their thumbnails, and in their details.

Copies with another compression, size, brightness or contrast agree by more than 0.9 in all three; different photographs
by at most 0.6, 0.5 and 0.2.
"""
_CANDIDATES = 4
"""Number of most similar images that are examined more closely."""
_FINE = 160


def fingerprint(image: Tensor, path: str) -> tuple[bytes, NDArray[np.uint8]]:
    """Return the data that identify an image: a hash of its file and a grey thumbnail of full contrast.

    Args:
        image: uint8 [C, H, W].
        path: Path of its file; if there is no such file, as for a generated image, the pixels are hashed.

    Returns:
        16 bytes, and uint8 [32, 32], all zero for an image without any contrast.
    """
    file = Path(path)
    content = file.read_bytes() if file.is_file() else image.contiguous().numpy().tobytes()
    digest = hashlib.blake2b(content, digest_size=16).digest()
    small = shrink(image, SIDE)
    low, high = float(small.min()), float(small.max())
    if high - low < 2:
        return digest, np.zeros((SIDE, SIDE), dtype=np.uint8)
    return digest, ((small - low) * (255 / (high - low))).round().to(torch.uint8).numpy()


def shrink(image: Tensor, side: int) -> Tensor:
    """Return an image in grey, squeezed into a square: float32 [side, side], 0 to 255."""
    height, width = image.shape[-2:]
    # For small images every pixel counts; for large ones every second or third is enough.
    step = max(1, min(height, width) // (4 * side))
    grey = image[:, ::step, ::step].float().mean(0)
    return F.adaptive_avg_pool2d(grey[None], side)[0]


@lru_cache(maxsize=2)
def _cosines(side: int) -> NDArray[np.float32]:
    places = (np.arange(side) + 0.5) / side
    return np.cos(np.pi * np.arange(_WAVES)[:, None] * places).astype(np.float32)


def _waves(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the coarse cosine waves of thumbnails, of length 1 each: float32 [N, 99]; zero without contrast."""
    cosines = _cosines(SIDE)
    flat = np.empty((len(thumbnails), _WAVES**2 - 1), dtype=np.float32)
    for start in range(0, len(thumbnails), 4096):
        part = thumbnails[start : start + 4096].astype(np.float32)
        flat[start : start + 4096] = (cosines @ part @ cosines.T).reshape(len(part), -1)[:, 1:]
    # The first waves contain nearly all the energy, and are similar in most photographs: each counts by its number.
    weight = np.add.outer(np.arange(_WAVES), np.arange(_WAVES)).reshape(-1)[1:].astype(np.float32)
    return _unit(flat * weight)


def _details(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return images [N, S, S] without their smooth parts, of length 1 each: float32 [N, S * S].

    Light that falls off towards the corners, or a dark field, is the same in all images of a microscope; details are
    not.
    """
    tensor = torch.from_numpy(images)[:, None]
    smooth = F.avg_pool2d(F.pad(tensor, (4, 4, 4, 4), mode="reflect"), 9, stride=1)
    return _unit((tensor - smooth)[:, 0].flatten(1).numpy())


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    rows = rows - rows.mean(1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-3))


def similar_pairs(
    one: NDArray[np.uint8], two: NDArray[np.uint8], load: tuple[Callable[[int], Tensor], Callable[[int], Tensor]]
) -> Iterator[tuple[int, int, float]]:
    """Find images of two splits that are nearly the same, in three steps, each finer and on fewer images.

    Args:
        one: Thumbnails of the first split, uint8 [N, 32, 32].
        two: Thumbnails of the second split, uint8 [M, 32, 32].
        load: Functions that read an image of the first and of the second split, uint8 [C, H, W].

    Yields:
        The index in the first split, the index in the second, and how far they agree, 0 to 1; for each image of the
        second split only the most similar one.
    """
    waves = _waves(one)
    for start in range(0, len(two), 256):
        part = two[start : start + 256]
        best, scores = _most_alike(waves, _waves(part))
        rows, ranks = np.nonzero(scores > _FIRST)
        if not len(rows):
            continue
        firsts = best[rows, ranks]
        fine = (_details(one[firsts].astype(np.float32)) * _details(part[rows].astype(np.float32))).sum(1)
        found: dict[int, tuple[float, int]] = {}
        for row, first in zip(rows[fine > _SECOND], firsts[fine > _SECOND], strict=True):
            agreement = _agreement(load[0](int(first)), load[1](start + int(row)))
            if agreement > max(_LAST, found.get(int(row), (0.0, 0))[0]):
                found[int(row)] = (agreement, int(first))
        for row, (agreement, first) in sorted(found.items()):
            yield first, start + row, agreement


def _most_alike(
    waves: NDArray[np.float32], others: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return, for each of the others, the indices and scores of the images most like it, [M, at most 4] each."""
    best = np.zeros((len(others), 0), dtype=np.int64)
    scores = np.zeros((len(others), 0), dtype=np.float32)
    for start in range(0, len(waves), 8192):
        block = others @ waves[start : start + 8192].T
        count = min(_CANDIDATES, block.shape[1])
        top = np.argpartition(-block, count - 1, axis=1)[:, :count]
        best = np.concatenate([best, top + start], axis=1)
        scores = np.concatenate([scores, np.take_along_axis(block, top, 1)], axis=1)
        order = np.argsort(-scores, axis=1)[:, :_CANDIDATES]
        best, scores = np.take_along_axis(best, order, 1), np.take_along_axis(scores, order, 1)
    return best, scores


def _agreement(one: Tensor, two: Tensor) -> float:
    """Return how far the details of two images agree, up to 1."""
    side = min(_FINE, *one.shape[-2:], *two.shape[-2:])
    pair = np.stack([shrink(image, max(side, 16)).numpy() for image in (one, two)])
    details = _details(pair)
    return float((details[0] * details[1]).sum())
