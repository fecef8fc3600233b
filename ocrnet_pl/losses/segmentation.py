"""The segmentation loss: a sum of pixel losses at the input's resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocrnet_pl.losses.base import Loss, zero_of
from ocrnet_pl.losses.pixels import UNLABELLED, CrossEntropy, PixelLoss
from ocrnet_pl.losses.regions import Dice
from ocrnet_pl.structures import IGNORE_INDEX, Batch, Output


def logits_at_input(logits: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Return logits [B, S, h, w] of the padded input, upsampled ``stride`` times and cropped to ``size``."""
    if stride > 1:
        logits = F.interpolate(logits, scale_factor=float(stride), mode="bilinear", align_corners=False)
    return logits[..., : size[0], : size[1]]


class SegmentationLoss(Loss):
    """The sum of pixel losses at the input's resolution; cross-entropy and Dice by default.

    A class that an image was not labelled for is left out of that image's softmax.

    Args:
        terms: The losses, each logged under its own name; null for cross-entropy and Dice.
        auxiliary_weight: Factor of the cross-entropy of each of the decoder's auxiliary logits.

    Raises:
        ValueError: There is no term, or two share a name.
    """

    def __init__(self, terms: Sequence[PixelLoss] | None = None, auxiliary_weight: float = 0.4) -> None:
        super().__init__()
        parts = [CrossEntropy(), Dice()] if terms is None else list(terms)
        names = [term.name for term in parts]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"model.segmentation_loss: terms are {names}, give one or more, each name once (to train detection "
                "alone, set model.segmentation to null)"
            )
        self.terms = nn.ModuleList(parts)
        self.auxiliary = CrossEntropy(auxiliary_weight)

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Return each term by its name, and ``aux`` if the decoder has auxiliary logits."""
        if output.semantic is None:
            return {}
        with torch.autocast(batch.images.device.type, enabled=False):
            # A pixel whose class the image was not labelled for cannot be learned from.
            semantic = batch.semantic.long()
            classes = semantic.clamp(max=batch.semantic_classes.shape[1] - 1)
            known = batch.semantic_classes.gather(1, classes.flatten(1)).view_as(classes)
            target = torch.where(known, semantic, IGNORE_INDEX)
            log_probability = self._log_probability(output.semantic, output.stride, batch)
            terms: dict[str, Tensor] = {}
            for term in self.terms:
                terms[str(term.name)] = term.weight * term(log_probability, target)  # type: ignore[operator]
            first = next(iter(terms))
            terms[first] = terms[first] + zero_of(output.semantic)
            if output.auxiliary:
                padded = output.semantic.shape[-2] * output.stride
                losses = [
                    self.auxiliary(self._log_probability(extra, padded // extra.shape[-2], batch), target)
                    + zero_of(extra)
                    for extra in output.auxiliary
                ]
                terms["aux"] = self.auxiliary.weight * torch.stack(losses).sum()
            return terms

    @staticmethod
    def _log_probability(logits: Tensor, stride: int, batch: Batch) -> Tensor:
        height, width = batch.semantic.shape[-2:]
        # Contiguous planes: a softmax over interleaved channels takes ten times as long on a CPU.
        known = logits.float().contiguous().masked_fill(~batch.semantic_classes[:, :, None, None], UNLABELLED)
        return logits_at_input(known, stride, (height, width)).log_softmax(1)
