"""Box voting: boxes that suppression dropped still help to place the one that it kept."""

from __future__ import annotations

import torch
from torch import Tensor

_TOGETHER = 128
"""Number of kept boxes that are placed at once: a table of all pairs could be large."""


def place_by_vote(kept: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float, width: float) -> Tensor:
    """Return the kept boxes, each moved to the weighted mean of itself and of those that overlap it.

    A box of score ``s`` and of IoU ``u`` with the kept one has the weight ``s * exp(-(1 - u) ** 2 / width)``, so that
    boxes that agree with it count most. After the variance voting of He et al., "Bounding Box Regression with
    Uncertainty for Accurate Object Detection", CVPR 2019, which has a learnt variance in place of the score.

    Args:
        kept: int64 [K], which of the boxes suppression kept.
        boxes: float32 [N, 4], xyxy, all boxes that entered suppression.
        scores: float32 [N].
        labels: int64 [N]; only boxes of the kept one's class vote.
        overlap: IoU with the kept box above which a box votes, 0 to 1.
        width: How fast the weight falls with the IoU, above 0: slowly if it is large.

    Returns:
        float32 [K, 4]; a box that no other one overlaps is exactly what it was.
    """
    return torch.cat([_placed(part, boxes, scores, labels, overlap, width) for part in kept.split(_TOGETHER)])


def _placed(kept: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float, width: float) -> Tensor:
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
    total = weight.sum(1).clamp_(min=torch.finfo(weight.dtype).tiny)
    # Sums of products and not a matrix product, which mixed precision would round to whole pixels.
    shifts = [(weight * (other - side[:, None])).sum(1) / total for side, other in zip(own, every, strict=True)]
    return torch.stack(own, 1) + torch.stack(shifts, 1)
