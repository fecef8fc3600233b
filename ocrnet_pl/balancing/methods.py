"""Balancing: from the two tasks' losses to the one that is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ocrnet_pl.balancing.task_split import CombinationRule
from ocrnet_pl.distributed.gather import summed_over_processes
from ocrnet_pl.storage.recording import Recorded


class Balancing(Recorded, nn.Module, ABC):
    """Combines the losses of detection and segmentation; used only if a network has both tasks.

    A loss of exactly zero means that nothing in the batch was labelled for the task: such a batch must not change the
    task's weight. Everything stays on the device.

    Attributes:
        measures_gradients: Whether :meth:`update` needs the products of every step's gradients.
        rule: Combines the two tasks' gradients where the shared trunk ends; None adds them.
    """

    measures_gradients: bool = False
    rule: CombinationRule | None = None

    @abstractmethod
    def forward(self, detection: Tensor | float, segmentation: Tensor | float) -> Tensor:
        """Return the joint loss from the sum of each task's terms; a task that the network lacks gives the number 0."""

    def update(self, products: Tensor | None) -> None:
        """Receive the result of an optimiser step's backward passes, before the step is made.

        All processes call it at the same step.

        Args:
            products: The gradient products of this process, see :class:`~ocrnet_pl.balancing.task_split.TaskSplit`;
                None if nothing was measured.
        """

    def weights(self) -> Tensor | None:
        """Return the current weights [2] of detection and segmentation; None if they never change."""
        return None

    def single(self) -> Balancing:
        """Return the balancing for a network of one task: the plain loss."""
        return FixedWeights()


class FixedWeights(Balancing):
    """The weighted sum of the two losses; the default.

    Args:
        detection: Factor of the sum of the detection terms, at least 0.
        segmentation: Factor of the sum of the segmentation terms, at least 0.

    Raises:
        ValueError: A weight is negative.
    """

    def __init__(self, detection: float = 1.0, segmentation: float = 1.0) -> None:
        super().__init__()
        for name, weight in (("detection", detection), ("segmentation", segmentation)):
            if weight < 0:
                raise ValueError(f"balancing.{name}: expected a weight of 0 or more, got {weight}")
        self.detection = detection
        self.segmentation = segmentation

    def forward(self, detection: Tensor | float, segmentation: Tensor | float) -> Tensor:
        """Return the weighted sum."""
        total: Tensor = self.detection * detection + self.segmentation * segmentation  # type: ignore[assignment]
        return total

    def single(self) -> Balancing:
        """Return this balancing itself: the only loss keeps its weight."""
        return FixedWeights(self.detection, self.segmentation)


class PCGrad(FixedWeights):
    """Fixed weights, with the part of each task's gradient removed that works against the other task's.

    Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020: where the scalar product of the two gradients
    is negative, each is projected onto the normal plane of the other. Here they are the gradients of the maps where the
    shared trunk ends, all maps as one vector, in each process's own batch; the paper uses the gradients of the weights.
    The decoders' own gradients do not change.
    """

    def __init__(self, detection: float = 1.0, segmentation: float = 1.0) -> None:
        super().__init__(detection, segmentation)
        self.rule = projected_factors


def projected_factors(products: Tensor) -> tuple[Tensor, Tensor]:
    """Return the factors with which the gradients add up to the sum of their projections."""
    # g1 - (g1 g2 / |g2|^2) g2 + g2 - (g1 g2 / |g1|^2) g1, sorted by g1 and g2.
    squares, conflict = products[:2], products[2].clamp(max=0)
    factors = 1 - torch.where(squares > 0, conflict / squares.clamp(min=torch.finfo(squares.dtype).tiny), 0.0)
    return factors[0], factors[1]


class Uncertainty(Balancing):
    """Learns a log-variance for each task: the sum of ``exp(-s) * loss + s / 2``.

    Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics",
    CVPR 2018, with the form that it has for classification on both tasks; ``s`` starts at 0, which is a weight of 1.
    The joint loss may become negative.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(2))

    def forward(self, detection: Tensor | float, segmentation: Tensor | float) -> Tensor:
        """Return the weighted sum plus the penalty on small weights."""
        losses = _pair(detection, segmentation, self.log_variance)
        # Without a loss, the penalty alone would raise the weight.
        price = torch.where(losses.detach() != 0, self.log_variance / 2, self.log_variance * 0)
        return (torch.exp(-self.log_variance) * losses + price).sum()

    def weights(self) -> Tensor:
        """Return ``exp(-s)``."""
        return torch.exp(-self.log_variance.detach())


class _Tracking(Balancing):
    """Base of the methods that follow the losses: it sums the losses of a step over its batches and processes."""

    def __init__(self) -> None:
        super().__init__()
        self._step: Tensor | None = None

    def _follow(self, losses: Tensor) -> None:
        if self.training and torch.is_grad_enabled():
            losses = losses.detach()
            step = torch.stack((losses, (losses != 0).to(losses.dtype)))
            self._step = step if self._step is None else self._step + step

    def _take_step(self) -> tuple[Tensor, Tensor] | None:
        """Return the sums [2] and counts [2] of the labelled batches since the last step, of all processes."""
        if self._step is None:
            return None
        sums, counts = summed_over_processes(self._step)
        self._step = None
        return sums, counts


class DynamicWeightAverage(_Tracking):
    """Weights each task by how slowly its loss has fallen lately.

    Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019: the weights are ``2 * softmax(r
    / temperature)``, where ``r`` is a task's mean loss over the last window divided by its mean over the window before;
    they are 1 until there are two windows. The paper's window is an epoch; a window in steps does not depend on the
    size of the data.

    Args:
        temperature: Temperature of the softmax, above 0; higher values make the two weights more similar.
        window: Length of a window in optimiser steps, at least 1.

    Raises:
        ValueError: An argument is out of range.
    """

    means: Tensor
    sums: Tensor
    counts: Tensor
    steps: Tensor

    def __init__(self, temperature: float = 2.0, window: int = 100) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"balancing.temperature: expected a number above 0, got {temperature}")
        if window < 1:
            raise ValueError(f"balancing.window: expected 1 step or more, got {window}")
        self.temperature = temperature
        self.window = window
        # All of them are floating point, so that an average of the weights averages sums and counts alike.
        self.register_buffer("means", torch.zeros(2, 2))
        self.register_buffer("sums", torch.zeros(2))
        self.register_buffer("counts", torch.zeros(2))
        self.register_buffer("steps", torch.zeros(()))

    def weights(self) -> Tensor:
        """Return the weights from the last two windows; row 0 of ``means`` is the older one."""
        older, newer = self.means
        ratio = torch.where((older > 0) & (newer > 0), newer / older.clamp(min=torch.finfo(older.dtype).tiny), 1.0)
        return 2 * (ratio / self.temperature).softmax(0)

    def forward(self, detection: Tensor | float, segmentation: Tensor | float) -> Tensor:
        """Return the weighted sum."""
        losses = _pair(detection, segmentation, self.means)
        self._follow(losses)
        return (self.weights() * losses).sum()

    @torch.no_grad()
    def update(self, products: Tensor | None) -> None:
        """Add the step to the window, and begin the next window at its end."""
        step = self._take_step()
        if step is None:
            return
        sums, counts = step
        finite = torch.isfinite(sums)
        self.sums += torch.where(finite, sums, 0.0)
        self.counts += torch.where(finite, counts, 0.0)
        self.steps += 1
        # Decided on the device, so that the host does not have to wait for it.
        done = self.steps >= self.window
        newer = torch.where(self.counts > 0, self.sums / self.counts.clamp(min=1), self.means[1])
        self.means.copy_(torch.where(done, torch.stack((self.means[1], newer)), self.means))
        for buffer in (self.sums, self.counts, self.steps):
            buffer.masked_fill_(done, 0.0)


class GradNorm(_Tracking):
    """Adjusts the weights until the tasks' gradients have similar norms, larger for the task that learns more slowly.

    Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks", ICML 2018. A
    weighted norm is the weight times the plain norm, so the gradient of the paper's loss with respect to the weights
    follows from the norms alone and needs no further backward pass. The norms are those of the gradients of the maps
    where the shared trunk ends, over all processes; the paper uses the gradients of a layer's weights. They are divided
    by their mean, so that the rate does not depend on the scale of the losses. The step is made in the logarithms of
    the weights, so that very different weights neither overshoot nor become negative. The weights add up to 2.

    Args:
        lr: Learning rate of the logarithms of the weights, above 0.
        alpha: Strength with which the slower task is favoured, at least 0; 0 makes the norms equal.

    Raises:
        ValueError: An argument is out of range.
    """

    current: Tensor
    initial: Tensor
    measures_gradients = True

    def __init__(self, lr: float = 0.025, alpha: float = 1.5) -> None:
        super().__init__()
        if not lr > 0:
            raise ValueError(f"balancing.lr: expected a number above 0, got {lr}")
        if not alpha >= 0:
            raise ValueError(f"balancing.alpha: expected 0 or more, got {alpha}")
        self.lr = lr
        self.alpha = alpha
        self.register_buffer("current", torch.ones(2))
        self.register_buffer("initial", torch.zeros(2))

    def weights(self) -> Tensor:
        """Return the current weights."""
        return self.current.clone()

    def forward(self, detection: Tensor | float, segmentation: Tensor | float) -> Tensor:
        """Return the weighted sum."""
        losses = _pair(detection, segmentation, self.current)
        self._follow(losses)
        return (self.weights() * losses).sum()

    @torch.no_grad()
    def update(self, products: Tensor | None) -> None:
        """Make one step of the weights; none where a task had no labels anywhere or a gradient overflowed."""
        step = self._take_step()
        if step is None or products is None:
            return
        sums, counts = step
        losses = sums / counts.clamp(min=1)
        self.initial.copy_(torch.where((self.initial == 0) & torch.isfinite(losses), losses, self.initial))
        norms = summed_over_processes(products[:2]).to(self.current.dtype).sqrt()
        moved = self._moved(norms, losses)
        usable = (losses > 0).all() & (norms > 0).all() & torch.isfinite(moved).all()
        self.current.copy_(torch.where(usable, moved, self.current))

    def _moved(self, norms: Tensor, losses: Tensor) -> Tensor:
        """Return the weights after a step down the gradient of the sum of ``|G - mean(G) * r^alpha| / mean(G)``."""
        # A norm is proportional to its weight, so its slope over the logarithm of the weight is the norm itself.
        share = norms / norms.mean()
        progress = losses / self.initial
        target = (progress / progress.mean()) ** self.alpha
        slope = torch.sign(share - target) * share
        moved = self.current * torch.exp(-self.lr * slope)
        return 2 * moved / moved.sum()


def _pair(detection: Tensor | float, segmentation: Tensor | float, like: Tensor) -> Tensor:
    """Return both losses as [2]."""
    # A missing task's number is written by the device: a copy from the host would make it wait.
    losses = (detection, segmentation)
    return torch.stack([x if isinstance(x, Tensor) else torch.full((), x, device=like.device) for x in losses])
