"""Some labelled pixels with their logits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ocrnet_pl.calibration.raw_results import Collected
from ocrnet_pl.metrics.reliability import Reliability
from ocrnet_pl.structures import IGNORE_INDEX

_PER_IMAGE = 1000


class PixelSample(NamedTuple):
    """Labelled pixels of some images.

    Attributes:
        logits: float32 [N, S].
        labels: int64 [N], the true classes.
    """

    logits: Tensor
    labels: Tensor

    @classmethod
    def of(cls, items: Iterable[Collected], seed: int) -> PixelSample | None:
        """Take at most 1000 pixels of each image at random; None if none is labelled.

        Args:
            items: The images' results.
            seed: Seed of the choice.
        """
        generator = torch.Generator().manual_seed(seed)
        logits, labels = [], []
        for item in items:
            if item.truth.semantic is None:
                continue
            true = item.truth.semantic.as_subclass(Tensor).flatten()
            labelled = (true != IGNORE_INDEX).nonzero()[:, 0]
            some = labelled[torch.randperm(len(labelled), generator=generator)[:_PER_IMAGE]]
            logits.append(item.maps().flatten(1)[:, some].T)
            labels.append(true[some].long())
        return cls(torch.cat(logits), torch.cat(labels)) if sum(map(len, labels)) else None

    def reliability(self, temperature: float) -> Reliability:
        """Return how often the most probable class was right.

        Args:
            temperature: Number that the logits are divided by.
        """
        top, found = (self.logits / temperature).softmax(1).max(1)
        return Reliability.of(np.asarray(top.double()), np.asarray(found == self.labels))
