"""The fit of the maps from scores to probabilities, and of the temperature of the pixels."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ocrnet_pl.inference.probabilities import Beta, features

LEAST = 10
"""Number of hits, and of false alarms, that a class needs for a map of its own."""
_STEPS = 100
_RIDGE = 1e-3
"""Weight of the squared distance from the identity, so that the fit ends where a score separates hits from alarms."""
_TEMPERATURES = (0.05, 20.0)
"""Range of the temperature."""
_GOLDEN = (math.sqrt(5) - 1) / 2


def fit_beta(scores: NDArray[np.float32], hits: NDArray[np.bool_]) -> Beta | None:
    """Return the map of one class by maximum likelihood; None if there are too few boxes of one kind.

    Args:
        scores: Scores [D], 0 to 1.
        hits: bool [D], which boxes are hits.
    """
    if min(int(hits.sum()), int((~hits).sum())) < LEAST:
        return None
    given, true = features(torch.from_numpy(scores)), torch.from_numpy(hits).double()
    # A negative weight would turn the order of the scores around: the best map without that weight is taken.
    for used in ((0, 1), (0,), (1,)):
        weights = _logistic(given[:, [*used, 2]], true)
        if (weights[:-1] > 0).all():
            full = [0.0, 0.0, float(weights[-1])]
            for place, weight in zip(used, weights.tolist(), strict=False):
                full[place] = weight
            return Beta(*full)
    # Higher scores are no more often right: there is no rising map.
    return None


def _logistic(given: Tensor, true: Tensor) -> Tensor:
    """Return the weights [F] of a logistic regression by damped Newton steps; the last is the shift."""
    start = torch.ones(given.shape[1], dtype=torch.float64)
    start[-1] = 0

    def loss(weights: Tensor) -> float:
        fit = F.binary_cross_entropy_with_logits(given @ weights, true, reduction="sum")
        return float(fit + _RIDGE / 2 * (weights - start).square().sum())

    weights, value = start, loss(start)
    for _ in range(_STEPS):
        chance = (given @ weights).sigmoid()
        gradient = given.T @ (chance - true) + _RIDGE * (weights - start)
        curvature = (given * (chance * (1 - chance))[:, None]).T @ given + _RIDGE * torch.eye(len(start)).double()
        step = torch.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-6 and loss(weights - size * step) > value:
            size /= 2
        weights = weights - size * step
        before, value = value, loss(weights)
        if before - value < 1e-9 * max(abs(before), 1):
            break
    return weights


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the number that the logits of pixels are divided by, by maximum likelihood.

    Args:
        logits: float [N, S].
        labels: int64 [N], the true classes.
    """

    def loss(temperature: float) -> float:
        return float(F.cross_entropy((logits / temperature).double(), labels))

    # The loss is convex in the inverse, so it has one lowest place on any scale.
    low, high = (math.log(each) for each in _TEMPERATURES)
    first, second = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_first, at_second = loss(math.exp(first)), loss(math.exp(second))
    while high - low > 1e-4:
        if at_first < at_second:
            high, second, at_second = second, first, at_first
            first = high - _GOLDEN * (high - low)
            at_first = loss(math.exp(first))
        else:
            low, first, at_first = first, second, at_second
            second = low + _GOLDEN * (high - low)
            at_second = loss(math.exp(second))
    return math.exp((low + high) / 2)
