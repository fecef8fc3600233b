"""Losses between logits and targets from 0 to 1, element by element, without reduction."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocrnet_pl.storage.recording import Recorded


class ScoreLoss(Recorded, nn.Module, ABC):
    """Compares a sigmoid's logits with targets, which may be qualities between 0 and 1."""

    @abstractmethod
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Map two float tensors of one shape, the targets 0 to 1, to the loss of each element."""


class BCEScore(ScoreLoss):
    """Binary cross-entropy."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each element, at least 0."""
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


class FocalScore(ScoreLoss):
    """Binary cross-entropy in which well-scored elements count less (Lin et al., "Focal Loss", ICCV 2017).

    Args:
        alpha: Weight of targets of 1, from 0 to 1; targets of 0 weigh ``1 - alpha``. Null weighs both alike.
        gamma: Exponent of the probability that was given to the wrong answer, at least 1.

    Raises:
        ValueError: ``alpha`` or ``gamma`` is out of range.
    """

    def __init__(self, alpha: float | None = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        if alpha is not None and not 0 <= alpha <= 1:
            raise ValueError(f"FocalScore: alpha is {alpha}, set it from 0 to 1")
        self.alpha = alpha
        self.gamma = _checked_exponent("FocalScore", "gamma", gamma)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each element, at least 0."""
        probability = logits.sigmoid()
        wrong = probability * (1 - target) + (1 - probability) * target
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * wrong.pow(self.gamma)
        return loss if self.alpha is None else loss * (self.alpha * target + (1 - self.alpha) * (1 - target))


class VarifocalScore(ScoreLoss):
    """Binary cross-entropy weighted by the quality of positives (target > 0) and the score of negatives.

    Zhang et al., "VarifocalNet", CVPR 2021: good positives count more, and negatives with a low score count less.

    Args:
        alpha: Weight of negatives, at least 0.
        gamma: Exponent of a negative's score, at least 1.

    Raises:
        ValueError: ``alpha`` or ``gamma`` is out of range.
    """

    def __init__(self, alpha: float = 0.75, gamma: float = 2.0) -> None:
        super().__init__()
        if alpha < 0:
            raise ValueError(f"VarifocalScore: alpha is {alpha}, set it to 0 or more")
        self.alpha = alpha
        self.gamma = _checked_exponent("VarifocalScore", "gamma", gamma)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each element, at least 0."""
        weight = torch.where(target > 0, target, self.alpha * logits.sigmoid().pow(self.gamma))
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight


class QualityFocalScore(ScoreLoss):
    """Binary cross-entropy in which elements near their target count less.

    Li et al., "Generalized Focal Loss", NeurIPS 2020.

    Args:
        exponent: Exponent of the distance between score and target, at least 1.

    Raises:
        ValueError: ``exponent`` is out of range.
    """

    def __init__(self, exponent: float = 2.0) -> None:
        super().__init__()
        self.exponent = _checked_exponent("QualityFocalScore", "exponent", exponent)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each element, at least 0."""
        distance = (target - logits.sigmoid()).abs().pow(self.exponent)
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none") * distance


class MSEScore(ScoreLoss):
    """Squared difference of score and target."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each element, 0 to 1."""
        return (logits.sigmoid() - target).square()


def _checked_exponent(owner: str, name: str, value: float) -> float:
    if value < 1:
        # Below 1 the gradient grows without bound at a perfect score.
        raise ValueError(f"{owner}: {name} is {value}, set it to 1 or more")
    return value
