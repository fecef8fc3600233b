"""Box voting: boxes that suppression dropped still help to place and to score the one that it kept."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_TOGETHER = 128
"""Number of kept boxes that are placed at once: a table of all pairs could be large."""


class Vote(NamedTuple):
    """What the boxes say of those that suppression kept.

    Attributes:
        boxes: float32 [K, 4], the kept boxes where the votes place them.
        votes: float32 [K], how many boxes agree with each kept one, itself included: at least 1.
    """

    boxes: Tensor
    votes: Tensor


def vote(kept: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float, width: float) -> Vote:
    """Move each kept box to the weighted mean of itself and of those that overlap it, and count these.

    A box of score ``s`` and of IoU ``u`` with the kept one has the weight ``s * exp(-(1 - u) ** 2 / width)``, so that
    boxes that agree with it count most. The number of votes is the sum of the weights over that of the kept box. After
    the variance voting of He et al., "Bounding Box Regression with Uncertainty for Accurate Object Detection", CVPR
    2019, which has a learnt variance in place of the score.

    Args:
        kept: int64 [K], which of the boxes suppression kept.
        boxes: float32 [N, 4], xyxy, all boxes that entered suppression.
        scores: float32 [N].
        labels: int64 [N]; only boxes of the kept one's class vote.
        overlap: IoU with the kept box above which a box votes, 0 to 1.
        width: How fast the weight falls with the IoU, above 0: slowly if it is large.

    Returns:
        The vote; a box that no other one overlaps is exactly what it was.
    """
    parts = [_vote(part, boxes, scores, labels, overlap, width) for part in kept.split(_TOGETHER)]
    return Vote(*map(torch.cat, zip(*parts, strict=True)))


def score_by_vote(scores: Tensor, votes: Tensor, usual: float) -> Tensor:
    """Return scores whose odds are multiplied by the square root of the votes over their usual number.

    Real objects have several candidates that agree, and false alarms often have few.

    Args:
        scores: float32 [K], 0 to 1.
        votes: float32 [K], how many votes each box has, at least 1.
        usual: Number of votes at which a score stays what it is, above 0.

    Returns:
        float32 [K], 0 to 1.
    """
    factor = (votes / usual).sqrt()
    return scores * factor / (1 - scores + scores * factor)


def _vote(kept: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float, width: float) -> Vote:
    # Side by side, [K, 1] and [N]: a table of pairs with four numbers each takes three times as long.
    own, every = boxes[kept].unbind(1), boxes.unbind(1)
    x1, y1, x2, y2 = (side[:, None] for side in own)
    shared = (torch.minimum(x2, every[2]) - torch.maximum(x1, every[0])).clamp_(min=0)
    shared *= (torch.minimum(y2, every[3]) - torch.maximum(y1, every[1])).clamp_(min=0)
    area = (every[2] - every[0]) * (every[3] - every[1])
    iou = shared / (area[kept][:, None] + area - shared)
    # A box without an area overlaps nothing, itself neither: its IoU is not a number, and it stays where it is.
    votes = (iou > overlap) & (labels[kept][:, None] == labels)
    weight = torch.where(votes, scores * torch.exp((1 - iou).square_() / -width), 0)
    tiny = torch.finfo(weight.dtype).tiny
    total = weight.sum(1).clamp_(min=tiny)
    # Sums of products and not a matrix product, which mixed precision would round to whole pixels.
    shifts = [(weight * (other - side[:, None])).sum(1) / total for side, other in zip(own, every, strict=True)]
    count = (total / scores[kept].clamp(min=tiny)).clamp_(min=1)
    return Vote(torch.stack(own, 1) + torch.stack(shifts, 1), count)
