"""Losses of pixels against their class: the protocol, and the losses that average over pixels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ocrnet_pl.distributed.global_batch import over_all_processes
from ocrnet_pl.storage.recording import Recorded
from ocrnet_pl.structures import IGNORE_INDEX

UNLABELLED = -1e4
"""The logit of a class that the image was not labelled for: its probability is exactly 0 in float32."""


class PixelLoss(Recorded, nn.Module, ABC):
    """Compares each pixel's distribution over the classes with its label.

    The result is a finite scalar, exactly zero with zero gradient if no pixel counts, and always in the graph. A class
    that an image was not labelled for is never a target in it, and its probability there is 0.

    Args:
        weight: Factor of this term in the sum of losses, at least 0.

    Attributes:
        name: Name under which the term is logged.

    Raises:
        ValueError: The weight is negative.
    """

    name: str

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"{type(self).__name__}: weight is {weight}, set it to 0 or more")
        self.weight = weight

    @abstractmethod
    def forward(self, log_probability: Tensor, target: Tensor) -> Tensor:
        """Return the loss without its weight.

        Args:
            log_probability: float32 [B, S, H, W]; about -1e4 for a class that the image was not labelled for.
            target: int64 [B, H, W], 255 = ignore.
        """


class SummedPixelLoss(PixelLoss):
    """A pixel loss that follows from what is measured in each image alone, and then added up.

    The segmentation loss measures some images at a time and does it once more in the backward pass, so that the
    probabilities of all classes at the input's resolution, which take more memory than the network, are never kept for
    the whole batch.

    Attributes:
        by_rows: Whether what is measured in an image is the sum of what is measured in bands of its rows, so that a CPU
            that only validates may see band by band, each in its cache. False in a subclass whose :meth:`measure` looks
            at a pixel's neighbours, or at an image as a whole.
    """

    by_rows = False

    @abstractmethod
    def measure(self, log_probability: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """Return what the loss needs to know of each image, float32 [B, ...]; arguments as in :meth:`forward`."""

    def sums(self, measured: tuple[Tensor, ...], target: Tensor) -> tuple[Tensor, ...]:
        """Return what is added up over all processes.

        Args:
            measured: The results of :meth:`measure` for the whole batch of this process.
            target: int64 [B, H, W], 255 = ignore.
        """
        return tuple(each.sum(0) for each in measured)

    @abstractmethod
    def loss(self, *totals: Tensor) -> Tensor:
        """Return the loss from the sums over all processes."""

    def forward(self, log_probability: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the batch of all processes."""
        measured = self.measure(log_probability, target)
        return self.loss(*over_all_processes(*self.sums(measured, target)))


def of_target(log_probability: Tensor, target: Tensor) -> Tensor:
    """Return the log-probability of each pixel's own class, [B, H, W]; ignored pixels get that of class 0."""
    index = torch.where(target != IGNORE_INDEX, target, 0)
    return log_probability.gather(1, index[:, None])[:, 0]


class CrossEntropy(SummedPixelLoss):
    """Mean negative log-probability of the true class.

    Args:
        weight: Factor of this term in the sum of losses, at least 0.
        label_smoothing: Share of the target, from 0 to less than 1, that is spread evenly over the classes that the
            image was labelled for (Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016); 0 for no
            smoothing.
        class_weights: One weight per segmentation class, in the order of the classes; each pixel counts with its
            class's weight. Null gives every pixel the same weight.
        rare: Share of the batch's labelled pixels, above 0 and at most 1, below which a class is rare: each of its
            pixels counts sqrt(rare / share of the class) times, as in repeat-factor sampling (Gupta et al., "LVIS",
            CVPR 2019). Null counts all pixels of a class alike, however few they are.

    Raises:
        ValueError: An argument is out of range, or, at the first step, there is not one weight for each class.
    """

    name = "ce"
    by_rows = True
    class_weights: Tensor | None

    def __init__(
        self,
        weight: float = 1.0,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        rare: float | None = None,
    ) -> None:
        super().__init__(weight)
        if rare is not None and not 0 < rare <= 1:
            raise ValueError(f"{type(self).__name__}: rare is {rare}, set it above 0 and at most 1, or to null")
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"{type(self).__name__}: label_smoothing is {label_smoothing}, set it from 0 to less than 1"
            )
        self.label_smoothing = label_smoothing
        self.rare = rare
        self.register_buffer("class_weights", _weights(type(self).__name__, class_weights), persistent=False)

    def measure(self, log_probability: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """Return the weighted loss and the weight of each image's pixels; with ``rare``, of each class, and its pixels.

        How rare a class is, only the whole batch tells.
        """
        loss = self._pixels(log_probability, target)
        classes = log_probability.shape[1]
        weight = self._weights(classes, target)
        if self.rare is None:
            return _weighted(loss, weight)
        summed, pixels = _by_class(torch.where(weight > 0, loss, 0.0) * weight, target, classes)
        if self.class_weights is None:
            return summed, pixels, pixels
        return summed, pixels * self.class_weights.to(pixels.dtype), pixels

    def loss(self, *totals: Tensor) -> Tensor:
        """Return the weighted mean over the pixels that count, at least 0."""
        if self.rare is None:
            return _mean(*totals)
        summed, weight, pixels = totals
        factor = (self.rare * pixels.sum() / pixels.clamp(min=1.0)).sqrt().clamp(min=1.0)
        return _mean((factor * summed).sum(), (factor * weight).sum())

    def _weights(self, classes: int, target: Tensor) -> Tensor:
        return _pixel_weights(type(self).__name__, self.class_weights, classes, target)

    def _pixels(self, log_probability: Tensor, target: Tensor) -> Tensor:
        """Return each pixel's loss [B, H, W]; the values at ignored pixels mean nothing."""
        loss = -of_target(log_probability, target)
        if self.label_smoothing:
            known = log_probability.detach() > UNLABELLED / 2
            spread = torch.where(known, log_probability, 0.0).sum(1) / known.sum(1).clamp(min=1)
            loss = (1 - self.label_smoothing) * loss - self.label_smoothing * spread
        return loss


class OHEMCrossEntropy(CrossEntropy):
    """Cross-entropy over the hard pixels only (online hard example mining, as in Yuan et al., OCRNet, ECCV 2020).

    A pixel is hard if the probability of its true class is at most ``threshold``. Where fewer than ``share`` of the
    batch's pixels are hard, the worst ``share`` of them count, with any that are as bad as the last of these.

    Args:
        threshold: Probability of the true class, 0 to 1, up to which a pixel is hard; 0 selects by ``share`` only.
        share: Smallest share of the labelled pixels that counts, above 0 and at most 1.
        weight: Factor of this term in the sum of losses, at least 0.
        label_smoothing: Share of the target, from 0 to less than 1, that is spread evenly over the classes that the
            image was labelled for; 0 for no smoothing.
        class_weights: One weight per segmentation class, in the order of the classes; null gives every pixel the same
            weight.

    Raises:
        ValueError: An argument is out of range, or, at the first step, there is not one weight for each class.
    """

    # Its measures are those of the pixels themselves.
    by_rows = False

    def __init__(
        self,
        threshold: float = 0.7,
        share: float = 0.1,
        weight: float = 1.0,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(weight, label_smoothing, class_weights)
        if not 0 <= threshold <= 1:
            raise ValueError(f"OHEMCrossEntropy: threshold is {threshold}, set it from 0 to 1")
        if not 0 < share <= 1:
            raise ValueError(f"OHEMCrossEntropy: share is {share}, set it above 0 and at most 1")
        self.threshold = threshold
        self.share = share

    def measure(self, log_probability: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """Return each pixel's loss, and how hard it is, [B, H, W]."""
        difficulty = torch.where(target != IGNORE_INDEX, -of_target(log_probability.detach(), target), -1.0)
        classes = log_probability.shape[1]
        # For the weights of the classes, whose number only the probabilities tell.
        return self._pixels(log_probability, target), difficulty, self._weights(classes, target)

    def sums(self, measured: tuple[Tensor, ...], target: Tensor) -> tuple[Tensor, ...]:
        """Return the weighted loss and the weight of this process's hard pixels."""
        loss, difficulty, weight = measured
        with torch.no_grad():
            # The rank is a tensor: only the device knows how many pixels count.
            ordered = difficulty.flatten().sort(descending=True).values
            rank = (self.share * (target != IGNORE_INDEX).sum()).ceil().long().clamp(min=1, max=ordered.numel()) - 1
            limit = -math.log(self.threshold) if self.threshold > 0 else math.inf
            hard = difficulty >= ordered.gather(0, rank[None]).clamp(max=limit)
        summed, total = _weighted(loss, weight * hard)
        return summed.sum(), total.sum()


class Focal(SummedPixelLoss):
    """Cross-entropy in which well-classified pixels count less (Lin et al., "Focal Loss", ICCV 2017, on a softmax).

    Args:
        gamma: Exponent of the probability that went to the other classes, at least 0; 0 is plain cross-entropy.
        weight: Factor of this term in the sum of losses, at least 0.
        class_weights: The paper's alpha: one weight per segmentation class, in the order of the classes; null gives
            every pixel the same weight.

    Raises:
        ValueError: An argument is out of range, or, at the first step, there is not one weight for each class.
    """

    name = "focal"
    by_rows = True
    class_weights: Tensor | None

    def __init__(self, gamma: float = 2.0, weight: float = 1.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__(weight)
        if gamma < 0:
            raise ValueError(f"Focal: gamma is {gamma}, set it to 0 or more")
        self.gamma = gamma
        self.register_buffer("class_weights", _weights("Focal", class_weights), persistent=False)

    def measure(self, log_probability: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """Return the weighted loss and the weight of each image's pixels."""
        own = of_target(log_probability, target)
        # Clamped: a power below 1 has no finite gradient at 0.
        wrong = (-own.expm1()).clamp(min=1e-6)
        weight = _pixel_weights("Focal", self.class_weights, log_probability.shape[1], target)
        return _weighted(-own * wrong.pow(self.gamma), weight)

    def loss(self, *totals: Tensor) -> Tensor:
        """Return the weighted mean over the pixels that count, at least 0."""
        return _mean(*totals)


def _weights(owner: str, values: Sequence[float] | None) -> Tensor | None:
    if values is None:
        return None
    if min(values, default=0.0) < 0 or sum(values) == 0:
        raise ValueError(f"{owner}: class_weights are {list(values)}, give one of 0 or more for each class, not all 0")
    return torch.tensor(values, dtype=torch.float32)


def _pixel_weights(owner: str, class_weights: Tensor | None, classes: int, target: Tensor) -> Tensor:
    """Return how much each pixel counts [B, H, W], 0 where it is ignored."""
    counts = (target != IGNORE_INDEX).float()
    if class_weights is None:
        return counts
    if len(class_weights) != classes:
        raise ValueError(
            f"{owner}: there are {len(class_weights)} class_weights and {classes} segmentation classes; give one "
            "weight for each class, in the order of the data's classes"
        )
    return counts * class_weights.to(counts.dtype)[torch.where(target != IGNORE_INDEX, target, 0)]


def _weighted(loss: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weighted loss and the weight of each image, [B] each."""
    # An ignored pixel's loss may have any value, and so may one whose class was not labelled.
    loss = torch.where(weight > 0, loss, 0.0)
    return (loss * weight).sum((1, 2)), weight.sum((1, 2))


def _by_class(values: Tensor, target: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return the sum of the values [B, H, W] of each image and class, and the number of its pixels, [B, S] each."""
    counts = target != IGNORE_INDEX
    # Row by row, for a float32 sum of millions of single pixels is inexact.
    index = torch.where(counts, target, 0).flatten(0, 1)
    zeros = values.new_zeros(len(index), classes)

    def added(each: Tensor) -> Tensor:
        return zeros.scatter_add(1, index, each.flatten(0, 1).to(zeros.dtype)).view(len(target), -1, classes).sum(1)

    return added(values), added(counts)


def _mean(summed: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean over all processes' pixels; zero, not NaN, if all weights are 0."""
    return summed / torch.where(weight > 0, weight, 1.0)
