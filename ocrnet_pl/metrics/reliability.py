"""How far probabilities can be taken at their word: reliability diagrams and the expected calibration error."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Number of bins of equal width, as usual."""


class Reliability(NamedTuple):
    """Probabilities and what came of them, in bins of equal width from 0 to 1.

    Attributes:
        counts: int64 [B], the number of cases in each bin.
        confidence: float64 [B], their mean probability; NaN in an empty bin.
        accuracy: float64 [B], the share of them that was right; NaN in an empty bin.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @classmethod
    def of(cls, probability: NDArray[np.floating], right: NDArray[np.bool_], bins: int = BINS) -> Reliability:
        """Sort cases into bins.

        Args:
            probability: Probabilities [N], 0 to 1.
            right: bool [N].
            bins: Number of bins.
        """
        place = np.clip(np.ceil(probability.astype(np.float64) * bins).astype(np.int64) - 1, 0, bins - 1)
        counts = np.bincount(place, minlength=bins)
        with np.errstate(invalid="ignore"):
            sums = (np.bincount(place, values.astype(np.float64), bins) for values in (probability, right))
            confidence, accuracy = (each / counts for each in sums)
        return cls(counts, confidence, accuracy)

    @property
    def error(self) -> float:
        """The expected calibration error: the mean gap between probability and accuracy; NaN without a case."""
        if not self.counts.sum():
            return float("nan")
        return float(np.nansum(np.abs(self.confidence - self.accuracy) * self.counts) / self.counts.sum())
