"""Boxes that were dropped in favour of a better one still help to place it."""

from __future__ import annotations

import torch
from torch import Tensor

_TOGETHER = 128
"""Number of kept boxes that are placed at once: a table of all pairs could be large."""


def place_by_vote(kept: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float, width: float) -> Tensor:
    """Return the kept boxes, each at the weighted mean of those that overlap it, itself included.

    A box of score ``s`` and of IoU ``u`` with the kept one weighs ``s * exp(-(1 - u) ** 2 / width)``, so that those
    that agree with it count most. After the variance voting of He et al., "Bounding Box Regression with Uncertainty for
    Accurate Object Detection", CVPR 2019, with the score where that paper has a learnt variance.

    Args:
        kept: int64 [K], which of the boxes suppression kept.
        boxes: float32 [N, 4], xyxy, all boxes that entered suppression.
        scores: float32 [N].
        labels: int64 [N]; only boxes of one class share.
        overlap: IoU above which a box shares.
        width: How far agreement reaches, above 0.

    Returns:
        float32 [K, 4]; a box that no other one overlaps is exactly what it was.
    """
    return torch.cat([_placed(part, boxes, scores, labels, overlap, width) for part in kept.split(_TOGETHER)])


def _placed(kept: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float, width: float) -> Tensor:
    from torchvision.ops import box_iou

    own = boxes[kept]
    iou = box_iou(own, boxes)
    shares = (iou > overlap) & (labels[kept][:, None] == labels)
    weight = torch.where(shares, scores * torch.exp(-((1 - iou) ** 2) / width), 0)
    # Sums of products and not a matrix product, which mixed precision would round to whole pixels.
    shift = (weight[..., None] * (boxes - own[:, None])).sum(1)
    # A box without an area overlaps nothing, itself neither.
    return own + shift / weight.sum(1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
