"""From scores to probabilities: beta calibration of boxes (Kull et al., AISTATS 2017)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

_CLOSEST = 1e-7
"""How close to 0 and 1 scores come before they are taken to be that far away."""


class Beta(NamedTuple):
    """The map from the scores of a class to probabilities: ``logit(p) = a ln(s) - b ln(1 - s) + c``.

    It rises with the score, as neither ``a`` nor ``b`` is negative and one of them is positive.

    Attributes:
        a: Weight of small scores.
        b: Weight of scores near 1.
        c: Shift of all.
    """

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0


def features(scores: Tensor) -> Tensor:
    """Return what the logit is linear in, float64 [..., 3]: ``ln(s)``, ``-ln(1 - s)`` and 1.

    Args:
        scores: Scores [...], 0 to 1.
    """
    inside = scores.double().clamp(_CLOSEST, 1 - _CLOSEST)
    return torch.stack((inside.log(), -(-inside).log1p(), torch.ones_like(inside)), -1)


def table(maps: Iterable[Beta | None]) -> Tensor:
    """Return the maps of all classes, float64 [K, 3]; the rows of classes without one are not numbers."""
    return torch.tensor([[torch.nan] * 3 if each is None else each for each in maps], dtype=torch.float64)


def probabilities(scores: Tensor, labels: Tensor, maps: Tensor) -> Tensor:
    """Return the probabilities of boxes, in the type of their scores; those of a class without a map keep the scores.

    Args:
        scores: Scores [N], 0 to 1.
        labels: int64 [N], the classes.
        maps: The maps of the classes, from :func:`table`.
    """
    own = maps[labels]
    found = (features(scores) * own).sum(-1).sigmoid().to(scores.dtype)
    return torch.where(own[:, 0].isnan(), scores, found)
