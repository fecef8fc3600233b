"""What has to be known to count objects, from labelled images that did not choose the probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ocrnet_pl.calibration.box_outcomes import ClassOutcomes
from ocrnet_pl.inference.counting import CountRule, moments


def count_rule(
    outcomes: ClassOutcomes, chosen: Sequence[int], judging: Sequence[int], confidence: float
) -> CountRule | None:
    """Return how to count the objects of a class; None if no object of it was found.

    The margin is that of conformal prediction: if a further image is like those that judge, the interval contains its
    number of objects with the confidence, on average over the images, whatever the probabilities are worth.

    Args:
        outcomes: The boxes of the class, with probabilities for scores.
        chosen: The images that chose the probabilities.
        judging: Images that did not.
        confidence: Confidence of the interval, 0 to 1.
    """
    known = outcomes.of_images(chosen)
    objects = int(known.objects.sum())
    if not objects or not known.hits.any():
        return None
    recall = int(known.hits.sum()) / objects
    judged = outcomes.of_images([image for image in judging if outcomes.known[image]])
    images = torch.from_numpy(judged.images)
    # The images take the place of the classes: all are counted at once.
    recalls = torch.full((len(judged.objects),), recall, dtype=torch.float64)
    expected, scale = moments(torch.from_numpy(judged.scores), images, recalls)
    distances = sorted(((torch.from_numpy(judged.objects) - expected).abs() / scale).tolist())
    rank = math.ceil((len(distances) + 1) * confidence)
    return CountRule(recall, distances[rank - 1] if rank <= len(distances) else None)
