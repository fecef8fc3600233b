"""Boundary loss: probability is penalised by its distance from the class's contour."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ocrnet_pl.losses.pixels import SummedPixelLoss
from ocrnet_pl.structures import IGNORE_INDEX


def bounded_distance(mask: Tensor, radius: int) -> Tensor:
    """Return the Euclidean distance from each pixel's centre to the nearest one in the mask, exact up to the radius.

    The squared distance is the minimum over the rows of the minimum over the columns (Felzenszwalb and Huttenlocher,
    "Distance Transforms of Sampled Functions", 2012), here over ``2 * radius + 1`` offsets each.

    Args:
        mask: bool [..., H, W].
        radius: Largest distance that is computed, in pixels; larger ones are clamped to it.

    Returns:
        float32 [..., H, W], 0 to ``radius``.
    """
    squared = torch.where(mask, 0.0, float(radius**2))
    for dimension in (-1, -2):
        size = squared.shape[dimension]
        padding = (radius, radius) if dimension == -1 else (0, 0, radius, radius)
        padded = F.pad(squared, padding, value=float(radius**2))
        for offset in range(-radius, radius + 1):
            squared = torch.minimum(squared, padded.narrow(dimension, radius + offset, size) + float(offset**2))
    return squared.sqrt()


class Boundary(SummedPixelLoss):
    """Mean over the pixels of each class's probability times the signed distance to that class's contour.

    Kervadec et al., "Boundary loss for highly unbalanced segmentation", MIDL 2019, equation 5, with the distance as in
    their code: outside the class's region, the distance to its nearest pixel; inside, minus the distance to the nearest
    pixel of another class, plus one. Here distances are clamped to ``radius`` and divided by it, and only labelled
    pixels are considered. A class counts in the images where it has pixels and is not the only class. The loss may be
    negative. It penalises probability in the wrong place, but not missing probability: combine it with cross-entropy or
    Dice.

    Args:
        radius: Largest distance in pixels, at least 1; larger distances are clamped to it. The cost of a step grows
            with it.
        weight: Factor of this term in the sum of losses, at least 0.

    Raises:
        ValueError: An argument is out of range.
    """

    name = "boundary"

    def __init__(self, radius: int = 8, weight: float = 1.0) -> None:
        super().__init__(weight)
        if radius < 1:
            raise ValueError(f"Boundary: radius is {radius}, set it to 1 or more")
        self.radius = radius

    def measure(self, log_probability: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """Return each image's sum of prices and its number of labelled pixels."""
        counts = target != IGNORE_INDEX
        with torch.no_grad():
            price = self._signed_distance(target, log_probability.shape[1]).to(log_probability.dtype)
            price = price * counts[:, None]
        return (price * log_probability.exp()).sum((1, 2, 3)), counts.sum((1, 2)).to(price.dtype)

    def loss(self, *totals: Tensor) -> Tensor:
        """Return -1 to the number of classes."""
        summed, pixels = totals
        return summed / pixels.clamp(min=1)

    def _signed_distance(self, target: Tensor, num_classes: int) -> Tensor:
        """Return float32 [B, S, H, W], -1 to 1."""
        classes = torch.arange(num_classes, device=target.device)[:, None, None]
        inside = target[:, None] == classes
        outside = ~inside & (target != IGNORE_INDEX)[:, None]
        distance = torch.where(
            inside, 1 - bounded_distance(outside, self.radius), bounded_distance(inside, self.radius)
        )
        has_contour = inside.flatten(2).any(2) & outside.flatten(2).any(2)
        return distance * has_contour[..., None, None] / self.radius
