"""A bound on the share of objects that a class misses, which holds with a given confidence.

It is a risk-controlling threshold in the sense of Bates et al. (JACM 2021) and Angelopoulos et al. ("Learn then Test",
AOAS 2025): for images like those that it was calculated on, the probability that the threshold misses more than the
promised share of all objects is at most one minus the confidence. (Conformal risk control, by the same authors,
promises less: that the share is kept on average over all sets of images that might have been drawn.)

Let an image have n objects, m of which are missed. The share is kept if ``m - rate n`` is at most 0 on average over
images, which are what was drawn independently; the objects of one image are not, since they are easy or hard together.
Whether it is kept is tested by betting (Waudby-Smith and Ramdas, JRSS B 2024): somebody starts with a capital of 1 and
in each image puts the same share of it on ``m - rate n`` being negative. If the share was not kept, the capital would
not grow on average, and would end at 20 or more with a probability of 1 / 20 at most. So a threshold whose capital ends
at ``1 / (1 - confidence)`` or more is safe. With a higher threshold more objects are missed in each image and the
capital is smaller, so that the highest threshold that still reaches it is safe as well, without paying for the search.

The size of the bet, and the largest number of objects with which an image counts, are chosen on other images.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.calibration.box_outcomes import ClassOutcomes
from ocrnet_pl.inference.operating_points import Threshold, just_below

_BETS = np.array([0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99])
"""The sizes of bets to choose from, as shares of the largest that cannot lose more than everything."""
_MOST_IMAGES = 100_000
"""Number of images from which it makes no sense to name how many would be needed."""


class Wager(NamedTuple):
    """What is chosen before the images that sign are looked at.

    Attributes:
        share: Size of the bet, as a share of the largest.
        most: The largest number of objects with which an image counts; those of more crowded images count less.
    """

    share: float
    most: int

    @classmethod
    def choose(cls, outcomes: ClassOutcomes, miss_rate: float, confidence: float) -> Wager | None:
        """Return the bet that reaches the highest threshold on some images; None if they have no object.

        Args:
            outcomes: The boxes of a class in the images that choose.
            miss_rate: The share of objects that may be missed.
            confidence: The confidence.
        """
        if not outcomes.objects.any():
            return None
        most = int(outcomes.objects.max())
        wagers = [cls(float(share), most) for share in _BETS]
        found = [_highest(outcomes, miss_rate, confidence, wager) for wager in wagers]
        reached = [(score, wager.share) for score, wager in zip(found, wagers, strict=True) if score is not None]
        if reached:
            return cls(max(reached)[1], most)
        growth = [_growth(outcomes, -math.inf, miss_rate, wager) for wager in wagers]
        return wagers[int(np.argmax(growth))]


def bound_threshold(outcomes: ClassOutcomes, wager: Wager | None, miss_rate: float, confidence: float) -> Threshold:
    """Return the highest score that misses at most a share of the objects with a confidence, or why there is none.

    Args:
        outcomes: The boxes of a class in the images that sign.
        wager: What other images chose; None if they had no object of the class.
        miss_rate: The share of objects that may be missed.
        confidence: The confidence.
    """
    images, objects = int((outcomes.objects > 0).sum()), int(outcomes.objects.sum())
    kept = "all its boxes are kept, without a promise"
    if wager is None or not images:
        return Threshold(0.0, f"too few calibration images show it; {kept}")
    score = _highest(outcomes, miss_rate, confidence, wager)
    if score is not None:
        return just_below(score)
    missed = 1 - int(outcomes.hits.sum()) / objects
    growth = _growth(outcomes, -math.inf, miss_rate, wager)
    needed = math.inf if growth <= 0 else math.log(1 / (1 - confidence)) / growth * images
    if needed > _MOST_IMAGES:
        return Threshold(0.0, f"even with all boxes it misses {missed:.1%} of {objects} objects; {kept}")
    return Threshold(
        0.0,
        f"{images} calibration images that show it are too few, about {math.ceil(needed)} are needed (with all boxes "
        f"it misses {missed:.1%} of {objects} objects); {kept}",
    )


def _highest(outcomes: ClassOutcomes, miss_rate: float, confidence: float, wager: Wager) -> float | None:
    """Return the highest score at which the capital is large enough; None if it is not even with all boxes."""
    goal = math.log(1 / (1 - confidence))
    scores = np.unique(outcomes.scores[outcomes.hits])
    if not len(scores) or _growth(outcomes, float(scores[0]), miss_rate, wager) < goal:
        return None
    low, high = 0, len(scores) - 1
    while low < high:
        middle = (low + high + 1) // 2
        enough = _growth(outcomes, float(scores[middle]), miss_rate, wager) >= goal
        low, high = (middle, high) if enough else (low, middle - 1)
    return float(scores[low])


def _growth(outcomes: ClassOutcomes, score: float, miss_rate: float, wager: Wager) -> float:
    """Return the logarithm of the capital after all images."""
    found = np.bincount(outcomes.images[outcomes.hits & (outcomes.scores >= score)], minlength=len(outcomes.objects))
    return float(np.log1p(-wager.share * _losses(outcomes.objects, found, miss_rate, wager.most)).sum())


def _losses(objects: NDArray[np.int64], found: NDArray[np.int64], miss_rate: float, most: int) -> NDArray[np.float64]:
    """Return what the largest bet loses in each image that shows the class, at most 1; negative where it wins."""
    shown = objects > 0
    count, missed = objects[shown], objects[shown] - found[shown]
    weight = np.minimum(1.0, most / count)
    losses: NDArray[np.float64] = weight * (missed - miss_rate * count) / (most * (1 - miss_rate))
    return losses
