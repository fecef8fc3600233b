"""How many objects an image shows, from the probabilities of its boxes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class CountRule(NamedTuple):
    """What is needed to count the objects of a class.

    Attributes:
        recall: Share of the objects that have a box at all, above 0 to 1.
        margin: How far the number of objects is from the expected one, in units of its uncertainty, with the confidence
            of the intervals; None if there were too few images to know.
    """

    recall: float
    margin: float | None


def rule_table(rules: Iterable[CountRule | None]) -> Tensor:
    """Return the rules of all classes, float64 [K, 2]; what is not known is not a number."""
    rows = [(None, None) if each is None else each for each in rules]
    return torch.tensor([[torch.nan if v is None else v for v in row] for row in rows], dtype=torch.float64)


def moments(probability: Tensor, labels: Tensor, recall: Tensor) -> tuple[Tensor, Tensor]:
    """Return the expected number of objects of each class, float64 [K], and the scale of its uncertainty.

    Each box is right with its probability, independently of the others, and stands for ``1 / recall`` objects, since
    the others have no box. One is added to the variance, so that an image without boxes is not certain to be empty.

    Args:
        probability: Probabilities [N] of the boxes.
        labels: int64 [N], the classes.
        recall: float64 [K], the share of the objects of each class that have a box.
    """
    own = probability.double()
    found = torch.zeros_like(recall).index_add_(0, labels, own)
    spread = torch.zeros_like(recall).index_add_(0, labels, own * (1 - own))
    variance = (spread + found * (1 - recall)) / recall.square()
    return found / recall, (variance + 1).sqrt()


def expected_counts(probability: Tensor, labels: Tensor, rules: Tensor) -> Tensor:
    """Return for each class the expected number of objects and the ends of its interval, float64 [K, 3].

    Args:
        probability: Probabilities [N] of all boxes of an image.
        labels: int64 [N], the classes.
        rules: The rules, from :func:`rule_table`.

    Returns:
        The numbers; the ends are whole. What is not known is not a number.
    """
    expected, scale = moments(probability, labels, rules[:, 0])
    low, high = expected - rules[:, 1] * scale, expected + rules[:, 1] * scale
    # The whole numbers inside; where there is none, the nearest.
    nearest = expected.round()
    return torch.stack((expected, torch.minimum(low.ceil(), nearest).clamp(min=0), high.floor().maximum(nearest)), 1)
