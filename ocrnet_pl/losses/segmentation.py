"""The segmentation loss: a sum of pixel losses at the input's resolution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ocrnet_pl.losses.base import Measured, SummedLoss, zero_of
from ocrnet_pl.losses.pixels import UNLABELLED, CrossEntropy, PixelLoss, SummedPixelLoss
from ocrnet_pl.losses.regions import Dice
from ocrnet_pl.structures import IGNORE_INDEX, Batch, Output

_TOGETHER = 2**24
"""Number of probabilities, at the input's resolution, that are kept for the backward pass: 64 MB."""
_CACHED = 2**19
"""Number of probabilities that a CPU handles at once where there is no backward pass: they stay in its cache."""
_AUXILIARY = "aux"


def logits_at_input(logits: Tensor, stride: int, size: tuple[int, int], above: int = 0) -> Tensor:
    """Return logits [B, S, h, w] of the padded input, upsampled ``stride`` times and cropped to ``size``.

    Args:
        logits: The logits.
        stride: By how much they are upsampled.
        size: (height, width) that are kept.
        above: Number of rows of pixels above them that are not.
    """
    if stride > 1:
        logits = F.interpolate(logits, scale_factor=float(stride), mode="bilinear", align_corners=False)
    return logits[..., above : above + size[0], : size[1]]


class SegmentationLoss(SummedLoss):
    """The sum of pixel losses at the input's resolution.

    A class that an image was not labelled for is left out of that image's softmax.

    Args:
        terms: The losses, each logged under its own name; null for ``Dice`` and a ``CrossEntropy`` in
            which rare classes count more (``rare`` is 0.05).
        auxiliary_weight: Factor of the cross-entropy of each of the decoder's auxiliary logits.

    Raises:
        ValueError: There is no term, or two share a name.
    """

    def __init__(self, terms: Sequence[PixelLoss] | None = None, auxiliary_weight: float = 0.4) -> None:
        super().__init__()
        # Rare are poles and signs, but no class of a data set of few.
        parts = [CrossEntropy(rare=0.05), Dice()] if terms is None else list(terms)
        names = [term.name for term in parts]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"model.segmentation_loss: terms are {names}, give one or more, each name once (to train detection "
                "alone, set model.segmentation to null)"
            )
        self.terms = nn.ModuleList(parts)
        self.auxiliary = CrossEntropy(auxiliary_weight)

    def measure(self, output: Output, batch: Batch) -> Measured:
        """Return the sums of each term by ``<name>/<number>``, and whole terms of those without sums."""
        if output.semantic is None:
            return Measured({}, {})
        with torch.autocast(batch.images.device.type, enabled=False):
            # A pixel whose class the image was not labelled for cannot be learned from.
            semantic = batch.semantic.long()
            classes = semantic.clamp(max=batch.semantic_classes.shape[1] - 1)
            known = batch.semantic_classes.gather(1, classes.flatten(1)).view_as(classes)
            target = torch.where(known, semantic, IGNORE_INDEX)
            terms = {str(term.name): term for term in self.terms}
            # A subclass that computes its loss in another way is called as a whole.
            summed = {
                name: term
                for name, term in terms.items()
                if isinstance(term, SummedPixelLoss) and type(term).forward is SummedPixelLoss.forward
            }
            sums = self._sums(summed, output.semantic, output.stride, batch, target)
            padded = output.semantic.shape[-2] * output.stride
            for number, extra in enumerate(output.auxiliary):
                name = f"{_AUXILIARY}{number}"
                sums |= self._sums({name: self.auxiliary}, extra, padded // extra.shape[-2], batch, target)
            others = {name: term for name, term in terms.items() if name not in summed}
            own: dict[str, Tensor] = {}
            if others:
                log_probability = _log_probability(output.semantic, output.stride, batch.semantic_classes, target)
                own = {name: term(log_probability, target) for name, term in others.items()}
                first = next(iter(own))
                own[first] = own[first] + zero_of(output.semantic)
            return Measured(sums, own)

    @staticmethod
    def _sums(
        terms: dict[str, SummedPixelLoss], logits: Tensor, stride: int, batch: Batch, target: Tensor
    ) -> dict[str, Tensor]:
        """Return the sums of terms of the same logits."""
        if not terms:
            return {}

        def measure(logits: Tensor, known: Tensor, target: Tensor, above: int = 0) -> list[tuple[Tensor, ...]]:
            log_probability = _log_probability(logits, stride, known, target, above)
            return [term.measure(log_probability, target) for term in terms.values()]

        in_cache = target.device.type == "cpu" and not (torch.is_grad_enabled() or torch.compiler.is_compiling())
        together = _CACHED if in_cache else _TOGETHER
        images = max(1, together // (logits.shape[1] * target.shape[1] * target.shape[2]))
        parts = list(zip(*(each.split(images) for each in (logits, batch.semantic_classes, target)), strict=True))
        if in_cache and images == 1 and all(term.by_rows for term in terms.values()):
            measured = [measure(*band) for own, known, true in parts for band in _bands(own, known, true, stride)]
        elif len(parts) == 1 or in_cache:
            measured = [measure(*part) for part in parts]
        else:
            measured = [checkpoint(measure, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
        sums: dict[str, Tensor] = {}
        for place, (name, term) in enumerate(terms.items()):
            whole = tuple(torch.cat(each) for each in zip(*(part[place] for part in measured), strict=True))
            sums |= {f"{name}/{number}": each for number, each in enumerate(term.sums(whole, target))}
        first = next(iter(sums))
        sums[first] = sums[first] + zero_of(logits)
        return sums

    def combine(self, totals: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return each term by its name, and ``aux`` if the decoder has auxiliary logits."""
        grouped: dict[str, list[Tensor]] = {}
        for key, total in totals.items():
            grouped.setdefault(key.partition("/")[0], []).append(total)
        found: dict[str, Tensor] = {}
        for term in self.terms:
            name = str(term.name)
            if name in grouped:
                found[name] = term.weight * term.loss(*grouped[name])  # type: ignore[operator]
            elif name in own:
                found[name] = term.weight * own[name]  # type: ignore[operator]
        auxiliary = [self.auxiliary.loss(*parts) for name, parts in grouped.items() if name not in found]
        if auxiliary:
            found[_AUXILIARY] = self.auxiliary.weight * torch.stack(auxiliary).sum()
        return found


def _bands(logits: Tensor, known: Tensor, target: Tensor, stride: int) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    """Cut an image into bands of rows whose probabilities stay in a cache; the arguments of ``measure`` for each."""
    height, width = target.shape[-2:]
    rows = max(_CACHED // (logits.shape[1] * width * stride), 1) * stride
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        # Pixels at a band's edges lie between its logits and those next to it.
        first, end = max(top // stride - 1, 0), min(-(-bottom // stride) + 1, logits.shape[-2])
        yield logits[..., first:end, :], known, target[:, top:bottom], top - first * stride


def _log_probability(logits: Tensor, stride: int, known: Tensor, target: Tensor, above: int = 0) -> Tensor:
    """Return log-probabilities [B, S, H, W] at the resolution of the labels, without the classes that are not known."""
    # Contiguous planes: a softmax over interleaved channels takes ten times as long on a CPU.
    logits = logits.float().contiguous().masked_fill(~known[:, :, None, None], UNLABELLED)
    return logits_at_input(logits, stride, (target.shape[-2], target.shape[-1]), above).log_softmax(1)
