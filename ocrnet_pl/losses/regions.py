"""Losses of pixels that compare each class's region as a whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ocrnet_pl.losses.pixels import PixelLoss, SummedPixelLoss, of_target
from ocrnet_pl.structures import IGNORE_INDEX


class RegionLoss(SummedPixelLoss):
    """A loss of soft pixel counts of each class over the batch of all processes."""

    by_rows = True

    def measure(self, log_probability: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """Return three counts of each image and class, [B, S].

        They are the probability of the class on its own pixels, the number of these pixels, and the probability of the
        class on all labelled pixels.

        The sums are scattered, as a one-hot target of many classes would take more memory than the network, and row by
        row of the image: a float32 sum of single pixels is inexact above some millions of them, and stops growing at
        2^24.
        """
        batch, classes, height, _ = log_probability.shape
        counts = target != IGNORE_INDEX
        index = torch.where(counts, target, 0).flatten(0, 1)
        hit = torch.where(counts, of_target(log_probability, target).exp(), 0.0).flatten(0, 1)
        # To multiply by truth values would convert them once for each class.
        labelled = counts.to(hit.dtype)
        zeros = log_probability.new_zeros(batch * height, classes)
        return (
            zeros.scatter_add(1, index, hit).view(batch, height, classes).sum(1),
            zeros.scatter_add(1, index, labelled.flatten(0, 1)).view(batch, height, classes).sum(1),
            (log_probability.exp() * labelled[:, None]).sum((2, 3)),
        )


def _mean_present(loss: Tensor, pixels: Tensor) -> Tensor:
    """Return the mean of the classes' losses [S] over those that have pixels; zero if none has."""
    present = (pixels > 0).to(loss.dtype)
    return (loss * present).sum() / present.sum().clamp(min=1.0)


class Dice(RegionLoss):
    """1 - Dice over the whole batch, averaged over the classes that occur (Milletari et al., "V-Net", 3DV 2016).

    Args:
        smooth: Added to numerator and denominator, above 0.
        weight: Factor of this term in the sum of losses, at least 0.

    Raises:
        ValueError: An argument is out of range.
    """

    name = "dice"

    def __init__(self, smooth: float = 1.0, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.smooth = _checked_smooth("Dice", smooth)

    def loss(self, *totals: Tensor) -> Tensor:
        """Return 0 to 1."""
        hit, true, predicted = totals
        return _mean_present(1 - (2 * hit + self.smooth) / (predicted + true + self.smooth), true)


class Tversky(RegionLoss):
    """Dice with separate weights for false alarms and missed pixels (Salehi et al., MLMI 2017).

    With both weights at 0.5 it is Dice at twice the ``smooth``.

    Args:
        false_positive: Weight of probability on other classes' pixels (the paper's alpha), at least 0.
        false_negative: Weight of probability missing on the class's own pixels (the paper's beta), at least 0.
        smooth: Added to numerator and denominator, above 0.
        weight: Factor of this term in the sum of losses, at least 0.

    Raises:
        ValueError: An argument is out of range.
    """

    name = "tversky"

    def __init__(
        self, false_positive: float = 0.3, false_negative: float = 0.7, smooth: float = 1.0, weight: float = 1.0
    ) -> None:
        super().__init__(weight)
        for name, value in (("false_positive", false_positive), ("false_negative", false_negative)):
            if value < 0:
                raise ValueError(f"Tversky: {name} is {value}, set it to 0 or more")
        self.false_positive = false_positive
        self.false_negative = false_negative
        self.smooth = _checked_smooth("Tversky", smooth)

    def loss(self, *totals: Tensor) -> Tensor:
        """Return 0 to 1."""
        hit, true, predicted = totals
        wrong = self.false_positive * (predicted - hit) + self.false_negative * (true - hit)
        return _mean_present(1 - (hit + self.smooth) / (hit + wrong + self.smooth), true)


class Lovasz(PixelLoss):
    """Lovasz-softmax: a convex surrogate of 1 - IoU, averaged over the classes that occur in the batch.

    Berman et al., "The Lovasz-Softmax Loss", CVPR 2018. It sorts all pixels once per class.

    Args:
        weight: Factor of this term in the sum of losses, at least 0.
    """

    name = "lovasz"

    def forward(self, log_probability: Tensor, target: Tensor) -> Tensor:
        """Return 0 to 1."""
        losses, pixels = [], []
        # Class by class: the sorted order of all classes at once would take three times the logits' memory.
        for index, plane in enumerate(log_probability.unbind(1)):
            losses.append(_ClassError.apply(plane, target, index))
            pixels.append((target == index).sum())
        return _mean_present(torch.stack(losses), torch.stack(pixels))


class _ClassError(torch.autograd.Function):
    """The loss of one class, which keeps only its gradient for the backward pass, where autograd would keep four."""

    @staticmethod
    def forward(ctx: Any, plane: Tensor, target: Tensor, index: int) -> Tensor:
        counts, true = (target != IGNORE_INDEX).flatten(), (target == index).flatten()
        probability = plane.flatten().exp()
        error = torch.where(true, 1 - probability, probability)
        slope = torch.where(counts, _jaccard_slope(error, true, counts), 0.0)
        ctx.save_for_backward((slope * torch.where(true, -probability, probability)).view_as(plane))
        return (error * slope).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (own,) = ctx.saved_tensors
        return gradient * own, None, None


def _jaccard_slope(error: Tensor, true: Tensor, counts: Tensor) -> Tensor:
    """Return each pixel's contribution to 1 - IoU as pixels turn wrong, the worst first (algorithm 1 of the paper).

    The loss is linear in the errors for a given order, so that these contributions are constants to the gradient.
    """
    # Ignored pixels come last, where they do not change the contribution of the others.
    order = torch.where(counts, error, -1.0).argsort(descending=True)
    hit = true[order].long()
    left = hit.sum() - hit.cumsum(0)
    union = (hit.sum() + (1 - hit).cumsum(0)).to(error.dtype)
    # A missed pixel leaves the union and takes one from the intersection; a false one adds one to the union. Written
    # out, since differences of neighbouring ratios would lose precision.
    step = torch.where(hit > 0, 1 / union, left / union / (union - 1).clamp(min=1.0))
    return torch.zeros_like(error).scatter(0, order, step)


def _checked_smooth(owner: str, value: float) -> float:
    if value <= 0:
        raise ValueError(f"{owner}: smooth is {value}, set it above 0: a class may have no probability at all")
    return value
