"""Segmentation losses: cross-entropy + Dice."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ocrnet_pl.losses.base import Loss
from ocrnet_pl.structures import IGNORE_INDEX, Batch, Output


def logits_at_input(logits: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Return logits [B, S, h, w] of the padded input, upsampled ``stride`` times and cropped to ``size``."""
    if stride > 1:
        logits = F.interpolate(logits, scale_factor=float(stride), mode="bilinear", align_corners=False)
    return logits[..., : size[0], : size[1]]


def dice_loss(probabilities: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """Return the mean over the classes that occur in the target of 1 - Dice over the whole batch.

    Milletari et al., "V-Net", 3DV 2016. Sums per class are scattered, not multiplied by a one-hot target, which for
    many classes would take more memory than the network.

    Args:
        probabilities: float32 [B, S, H, W].
        target: int64 [B, H, W], 255 = ignore.
        smooth: Added to numerator and denominator.

    Returns:
        A scalar, 0 to 1; 0 if no pixel counts.
    """
    num_classes = probabilities.shape[1]
    counts = target != IGNORE_INDEX
    index = torch.where(counts, target, 0)
    hit = torch.where(counts, probabilities.gather(1, index[:, None])[:, 0], 0.0)
    zeros = probabilities.new_zeros(num_classes)
    intersection = zeros.scatter_add(0, index.flatten(), hit.flatten())
    pixels = zeros.scatter_add(0, index.flatten(), counts.flatten().to(probabilities.dtype))
    predicted = torch.where(counts[:, None], probabilities, 0.0).sum((0, 2, 3))
    dice = (2 * intersection + smooth) / (predicted + pixels + smooth)
    present = (pixels > 0).to(probabilities.dtype)
    return ((1 - dice) * present).sum() / present.sum().clamp(min=1.0)


class CrossEntropyDiceLoss(Loss):
    """Cross-entropy plus Dice at the input's resolution; the tutorial's and the default segmentation loss.

    Classes that an image was not labelled for take no part in its softmax.

    Args:
        cross_entropy_weight: Of the cross-entropy term.
        dice_weight: Of the Dice term.
        auxiliary_weight: Of the cross-entropy of each of the decoder's auxiliary logits.
    """

    def __init__(
        self,
        cross_entropy_weight: float = 1.0,
        dice_weight: float = 1.0,
        auxiliary_weight: float = 0.4,
    ) -> None:
        super().__init__()
        self.cross_entropy_weight = cross_entropy_weight
        self.dice_weight = dice_weight
        self.auxiliary_weight = auxiliary_weight

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Return the terms ``ce`` and ``dice``, and ``aux`` if the decoder has auxiliary logits."""
        if output.semantic is None:
            return {}
        with torch.autocast(batch.images.device.type, enabled=False):
            # A label of a class that the image was not labelled for cannot be learned from.
            semantic = batch.semantic.long()
            classes = semantic.clamp(max=batch.semantic_classes.shape[1] - 1)
            known = batch.semantic_classes.gather(1, classes.flatten(1)).view_as(classes)
            target = torch.where(known, semantic, IGNORE_INDEX)
            log_probability = self._log_probability(output.semantic, output.stride, batch)
            cross_entropy = self._cross_entropy(log_probability, target)
            terms = {
                "ce": self.cross_entropy_weight * cross_entropy + output.semantic.sum() * 0.0,
                "dice": self.dice_weight * dice_loss(log_probability.exp(), target),
            }
            if output.auxiliary:
                padded = output.semantic.shape[-2] * output.stride
                losses = [
                    self._cross_entropy(self._log_probability(extra, padded // extra.shape[-2], batch), target)
                    + extra.sum() * 0.0
                    for extra in output.auxiliary
                ]
                terms["aux"] = self.auxiliary_weight * torch.stack(losses).sum()
            return terms

    @staticmethod
    def _log_probability(logits: Tensor, stride: int, batch: Batch) -> Tensor:
        height, width = batch.semantic.shape[-2:]
        full = logits_at_input(logits.float(), stride, (height, width))
        return full.masked_fill(~batch.semantic_classes[:, :, None, None], -1e4).log_softmax(1)

    @staticmethod
    def _cross_entropy(log_probability: Tensor, target: Tensor) -> Tensor:
        """Mean over the pixels that count; zero, not NaN, if there is none."""
        loss = F.nll_loss(log_probability, target, ignore_index=IGNORE_INDEX, reduction="sum")
        return loss / (target != IGNORE_INDEX).sum().clamp(min=1)
