"""How unsure the network is of an image, to choose which images people look at first."""

from __future__ import annotations

from ocrnet_pl.structures import Prediction


def uncertainty(prediction: Prediction) -> float:
    """Return how unsure the network is of an image, 0 to 1: the mean over the tasks that it has.

    Of boxes, ``4 s (1 - s)`` of the scores, weighted by the scores, so that the many candidates with low scores count
    little; of pixels, the mean of one minus the probability of the pixel's class, in units of its largest value.

    Args:
        prediction: A raw prediction.
    """
    parts = []
    scores = prediction.scores.float()
    if len(scores) and float(scores.sum()) > 0:
        parts.append(float((4 * scores * scores * (1 - scores)).sum() / scores.sum()))
    if prediction.certainty is not None:
        parts.append(float((2 * (1 - prediction.certainty.float())).clamp(max=1).mean()))
    return sum(parts) / len(parts) if parts else 0.0
