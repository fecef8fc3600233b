"""Where the tasks part: the gradients that each sends back into the shared trunk, measured and combined there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CombinationRule = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From the products [3] of a backward pass, see :class:`TaskSplit`, to the factors (scalars) of the detection's and the
segmentation's gradient before the two are added.
"""


class TaskSplit(nn.Module):
    """Hands each task its own copy of the trunk's maps and receives the gradients of both in the backward pass.

    It has no parameters and no state. In evaluation, and where nothing is measured or combined, it is the identity and
    leaves no trace in the graph. It sees both tasks only if one backward pass runs through both losses.

    Attributes:
        rule: Combines the two gradients; None adds them.
        measuring: Whether to keep the products of the following backward passes.
        products: Float [3] of the passes since :meth:`reset`, None if none was measured: the squared norm of the
            detection's gradient over all maps of this process's batch, that of the segmentation's, and the scalar
            product of the two. Passes add up, as accumulated gradients do. Under a loss scaler they carry the
            square of its scale.
    """

    products: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.rule: CombinationRule | None = None
        self.measuring = False
        self.products = None

    def reset(self) -> None:
        """Forget the products."""
        self.products = None

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the maps for detection and those for segmentation; values and memory are the same."""
        wanted = self.rule is not None or self.measuring
        if not (wanted and self.training and torch.is_grad_enabled()):
            return list(maps), list(maps)
        copies = _Split.apply(self, *maps)
        return list(copies[: len(maps)]), list(copies[len(maps) :])

    def combine(self, detection: Sequence[Tensor | None], segmentation: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return the gradient of each map from those of the two tasks; None stands for zero."""
        first: Tensor | float
        second: Tensor | float
        first = second = 1.0
        products = gradient_products(detection, segmentation)
        if products is not None:
            if self.measuring:
                self.products = products if self.products is None else self.products + products
            if self.rule is not None:
                first, second = self.rule(products)
        return [_weighted_sum(a, first, b, second) for a, b in zip(detection, segmentation, strict=True)]


def gradient_products(first: Sequence[Tensor | None], second: Sequence[Tensor | None]) -> Tensor | None:
    """Return [3], in float32 or more: both squared norms and the scalar product; None without any gradient."""
    given = [gradient for gradient in (*first, *second) if gradient is not None]
    if not given:
        return None
    wide = torch.promote_types(given[0].dtype, torch.float32)
    zero = torch.zeros((), dtype=wide, device=given[0].device)

    def square(gradients: Sequence[Tensor | None]) -> Tensor:
        norms = [torch.linalg.vector_norm(g, dtype=wide).square() for g in gradients if g is not None]
        return torch.stack(norms).sum() if norms else zero

    shared = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    across = torch.stack([(a.to(wide) * b).sum() for a, b in shared]).sum() if shared else zero
    return torch.stack((square(first), square(second), across))


def _weighted_sum(a: Tensor | None, first: Tensor | float, b: Tensor | None, second: Tensor | float) -> Tensor | None:
    if a is None:
        return None if b is None else _scaled(b, second)
    return _scaled(a, first) if b is None else _scaled(a, first) + _scaled(b, second)


def _scaled(gradient: Tensor, factor: Tensor | float) -> Tensor:
    # A scalar tensor of a wider type does not change the gradient's type.
    return gradient if isinstance(factor, float) else gradient * factor


class _Split(torch.autograd.Function):
    """The identity, twice; backward waits for both tasks' gradients of all maps."""

    @staticmethod
    def forward(ctx: Any, split: TaskSplit, *maps: Tensor) -> tuple[Tensor, ...]:
        ctx.split, ctx.count = split, len(maps)
        ctx.set_materialize_grads(False)
        return (*(each.view_as(each) for each in maps), *(each.view_as(each) for each in maps))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return (None, *ctx.split.combine(gradients[: ctx.count], gradients[ctx.count :]))
