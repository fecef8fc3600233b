"""Paired differences and their intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Difference(NamedTuple):
    """The mean of paired differences.

    Attributes:
        mean: Mean of first minus second, over the pairs.
        half: Half of the interval's width; None with one pair, which says nothing about the spread.
        pairs: Number of pairs.
    """

    mean: float
    half: float | None
    pairs: int

    @property
    def is_clear(self) -> bool:
        """Whether zero is outside the interval."""
        return self.half is not None and abs(self.mean) > self.half


def paired_difference(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Difference:
    """Return the mean difference of pairs with Student's interval.

    Args:
        first: One value per pair.
        second: One value per pair, in the same order.
        confidence: Confidence of the interval, from 0 to below 1.

    Raises:
        ValueError: There are no pairs, or the counts differ.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    if not differences:
        raise ValueError("there are no pairs to compare")
    mean, count = statistics.fmean(differences), len(differences)
    if count < 2:
        return Difference(mean, None, count)
    error = statistics.stdev(differences) / math.sqrt(count)
    return Difference(mean, student_quantile(count - 1, confidence) * error, count)


def student_quantile(freedom: int, confidence: float = 0.95) -> float:
    """Return t such that Student's variable is between -t and t with the given probability.

    With ``t = sqrt(freedom) tan(a)`` the density becomes ``cos(a) ** (freedom - 1)`` on a finite range, which is summed
    and inverted here: SciPy would be needed for this one number only.

    Args:
        freedom: Degrees of freedom, at least 1.
        confidence: The probability, from 0 to below 1.

    Raises:
        ValueError: An argument is out of range.
    """
    if freedom < 1 or not 0 <= confidence < 1:
        raise ValueError(f"expected at least 1 degree of freedom and 0 to below 1, got {freedom} and {confidence}")
    edges = np.linspace(0.0, math.pi / 2, 200_001)
    middles = (edges[1:] + edges[:-1]) / 2
    share = np.concatenate(([0.0], np.cumsum(np.cos(middles) ** (freedom - 1))))
    angle = float(np.interp(confidence, share / share[-1], edges))
    return math.sqrt(freedom) * math.tan(angle)
