"""The images in which a network errs most, kept small while others are looked at."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors

from ocrnet_pl.structures import Prediction, Sample

_LONGEST = 512
"""Length in pixels of the longer side to which an image is reduced."""


class Shown(NamedTuple):
    """An image of a gallery.

    Attributes:
        rank: The higher, the earlier it is shown.
        key: Decides between images of the same rank.
        truth: The labels, reduced.
        prediction: The prediction, reduced.
    """

    rank: float
    key: str
    truth: Sample
    prediction: Prediction


class Gallery:
    """Keeps the images that rank highest.

    Args:
        count: Number of images, at least 0.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        # The lowest first, so that it can be replaced.
        self._kept: list[tuple[float, tuple[int, ...], int, Shown]] = []
        self._number = itertools.count()

    def offer(self, rank: float, key: str, truth: Sample, prediction: Prediction) -> None:
        """Keep an image if it ranks higher than another that is kept; never one without a rank (NaN)."""
        if math.isnan(rank) or not self._count:
            return
        # Of equal ones that with the smaller key, on whichever process it was seen.
        place = (rank, tuple(-ord(letter) for letter in key))
        if len(self._kept) == self._count and place <= self._kept[0][:2]:
            return
        entry = (*place, next(self._number), Shown(rank, key, *reduced(truth, prediction)))
        if len(self._kept) == self._count:
            heapq.heapreplace(self._kept, entry)
        else:
            heapq.heappush(self._kept, entry)

    def images(self) -> list[Shown]:
        """Return the images that are kept, the highest rank first."""
        return [shown for *_, shown in sorted(self._kept, key=lambda each: each[:2], reverse=True)]

    def best_of(self, parts: Sequence[Sequence[Shown]]) -> list[Shown]:
        """Return the highest ranks of several galleries."""
        every = sorted((each for part in parts for each in part), key=lambda each: (-each.rank, each.key))
        return every[: self._count]


def reduced(truth: Sample, prediction: Prediction) -> tuple[Sample, Prediction]:
    """Return a large image with its labels and its prediction at a whole fraction of its size, fit to be looked at."""
    factor = math.ceil(max(truth.size) / _LONGEST)

    def plane(values: Tensor | None) -> Tensor | None:
        # A copy in any case: a part of a batch would keep all of it.
        return None if values is None else values.as_subclass(Tensor)[::factor, ::factor].clone()

    image = truth.image.as_subclass(Tensor)
    semantic, instances = plane(truth.semantic), plane(truth.instances)
    height, width = -(-truth.size[0] // factor), -(-truth.size[1] // factor)
    if factor > 1:
        image = F.avg_pool2d(image.float(), factor, ceil_mode=True).round().to(torch.uint8)
    boxes = truth.boxes.as_subclass(Tensor) / factor
    sample = truth.replace(
        image=tv_tensors.Image(image),
        boxes=tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),
        semantic=None if semantic is None else tv_tensors.Mask(semantic),
        instances=None if instances is None else tv_tensors.Mask(instances),
    )
    found = replace(
        prediction,
        boxes=prediction.boxes / factor,
        scores=prediction.scores.clone(),
        labels=prediction.labels.clone(),
        semantic=plane(prediction.semantic),
        instances=plane(prediction.instances),
        panoptic=None,
        certainty=None,
    )
    return sample, found
