"""Losses between paired boxes, row by row, without reduction."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ocrnet_pl.storage.recording import Recorded

EPSILON = 1e-7


def _areas(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the intersection and the union."""
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    area_first = (first[..., 2:] - first[..., :2]).clamp(min=0).prod(-1)
    area_second = (second[..., 2:] - second[..., :2]).clamp(min=0).prod(-1)
    return intersection, area_first + area_second - intersection


def paired_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the IoU of each pair, 0 where both boxes are empty.

    Args:
        first: float [..., 4], xyxy.
        second: float, broadcast against ``first``.

    Returns:
        float [...], 0 to 1.
    """
    intersection, union = _areas(first, second)
    return intersection / union.clamp(min=EPSILON)


class BoxLoss(Recorded, nn.Module, ABC):
    """Compares predicted with true boxes, pair by pair."""

    @abstractmethod
    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Map two float tensors [..., 4], xyxy, to float [...]; finite for empty boxes too."""


class IoULoss(BoxLoss):
    """1 - IoU (Yu et al., "UnitBox", ACM MM 2016, in its linear form); boxes that do not overlap get no gradient."""

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return 0 to 1 per pair."""
        return 1 - paired_iou(predicted, target)


class GIoULoss(BoxLoss):
    """1 - generalised IoU (Rezatofighi et al., CVPR 2019)."""

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return 0 to 2 per pair."""
        intersection, union = _areas(predicted, target)
        low = torch.minimum(predicted[..., :2], target[..., :2])
        high = torch.maximum(predicted[..., 2:], target[..., 2:])
        hull = (high - low).clamp(min=0).prod(-1)
        iou = intersection / union.clamp(min=EPSILON)
        return 1 - iou + (hull - union) / hull.clamp(min=EPSILON)


class DIoULoss(BoxLoss):
    """1 - IoU + squared distance of the centres divided by that of the hull's corners (Zheng et al., AAAI 2020)."""

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return 0 to 2 per pair."""
        low = torch.minimum(predicted[..., :2], target[..., :2])
        high = torch.maximum(predicted[..., 2:], target[..., 2:])
        diagonal = (high - low).square().sum(-1)
        shift = (predicted[..., :2] + predicted[..., 2:] - target[..., :2] - target[..., 2:]) / 2
        return 1 - paired_iou(predicted, target) + shift.square().sum(-1) / diagonal.clamp(min=EPSILON)


class CIoULoss(DIoULoss):
    """DIoU plus the squared difference of the aspect ratios' angles (Zheng et al., AAAI 2020).

    Sides below one pixel count as one: the angle of a smaller box means nothing, and its gradient would explode.
    """

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return 0 to 3 per pair."""
        distance = super().forward(predicted, target)
        difference = _angle(target) - _angle(predicted)
        aspect = 4 / math.pi**2 * difference.square()
        with torch.no_grad():
            # The trade-off of the paper: the aspect ratio matters once the boxes overlap.
            trade = aspect / (1 - paired_iou(predicted, target) + aspect).clamp(min=EPSILON)
        return distance + trade * aspect


def _angle(boxes: Tensor) -> Tensor:
    """Return the angle of each box's diagonal, 0 to pi / 2."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1.0).unbind(-1)
    return (width / height).atan()


def _relative(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the difference of the four sides in units of the true box's width and height, at least one pixel."""
    size = (target[..., 2:] - target[..., :2]).clamp(min=1.0)
    return (predicted - target) / torch.cat((size, size), -1)


class MSEBoxLoss(BoxLoss):
    """Mean squared error of the four sides, in units of the true box's width and height.

    With this unit, a small box counts as much as a large one.
    """

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the mean over the four sides per pair."""
        return _relative(predicted, target).square().mean(-1)


class L1BoxLoss(BoxLoss):
    """Mean absolute error of the four sides, in units of the true box's width and height."""

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the mean over the four sides per pair."""
        return _relative(predicted, target).abs().mean(-1)
