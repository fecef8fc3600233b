"""Muon: new convolutions step along their orthogonalised momentum, everything else by AdamW."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic Newton-Schulz iteration, which brings singular values near 1 in few steps."""
_ITERATIONS = 5
_SMALLEST = 16
"""Rows and columns that a weight has at least to be orthogonalised: heads of few classes have fewer."""


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return a matrix with the singular vectors of another, and singular values of about 0.7 to 1.2.

    Args:
        matrix: float32 [R, C].
    """
    first, second, third = _COEFFICIENTS
    result: Tensor = matrix / torch.linalg.vector_norm(matrix).clamp(min=1e-7)
    # The products have the side of the rows.
    tall = matrix.shape[0] > matrix.shape[1]
    if tall:
        result = result.t()
    for _ in range(_ITERATIONS):
        product = result @ result.t()
        result = torch.addmm(
            result, torch.addmm(product, product, product, beta=second, alpha=third), result, beta=first
        )
    return result.t() if tall else result


class Muon(Optimizer):
    """Muon for the convolutions of the neck and the decoders, AdamW for the encoder, the heads and all vectors.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. An orthogonalised step moves all
    directions of a weight alike, where Adam's follows the few that the gradients favour: layers that begin at random
    learn in fewer steps. It has the size of Adam's (Liu et al., "Muon is Scalable for LLM Training", 2025, section
    2.2), so that rate and weight decay mean the same for all weights.

    Args:
        params: Weights, or groups of them. The convolutions of groups whose name begins with ``decoders`` are
            orthogonalised, as are those of a group without a name.
        lr: Learning rate, at least 0.
        weight_decay: Decoupled weight decay, at least 0.
        matrix_momentum: Decay of the orthogonalised momentum, from 0 to below 1. A name of its own, since an optimiser
            that takes this one's place in a config keeps arguments of the same name.
        betas: Decays of AdamW's two moments, from 0 to below 1.
        eps: Added to the root of AdamW's second moment.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.001,
        weight_decay: float = 0.05,
        matrix_momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay), ("eps", eps)):
            if not value >= 0:
                raise ValueError(f"Muon: {name} is {value}, set it to 0 or more")
        for name, value in (("matrix_momentum", matrix_momentum), ("betas", betas[0]), ("betas", betas[1])):
            if not 0 <= value < 1:
                raise ValueError(f"Muon: {name} is {value}, set it from 0 to below 1")
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "matrix_momentum": matrix_momentum,
            "betas": betas,
            "eps": eps,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Make one step; weights without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            matrices = [weight for weight in weights if is_matrix(weight, group)]
            chosen = {id(weight) for weight in matrices}
            for weight in matrices:
                self._orthogonal_step(weight, group)
            self._adam_steps([weight for weight in weights if id(weight) not in chosen], group)
        return loss

    def _orthogonal_step(self, weight: Tensor, group: dict[str, Any]) -> None:
        gradient = weight.grad
        assert gradient is not None
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"]
        momentum.mul_(group["matrix_momentum"]).add_(gradient, alpha=1 - group["matrix_momentum"])
        direction = gradient.mul(1 - group["matrix_momentum"]).add_(momentum, alpha=group["matrix_momentum"])
        # Singular vectors are those of the whole matrix.
        whole = direction.full_tensor() if isinstance(direction, DTensor) else direction
        matrix = whole.flatten(1).float()
        step = orthogonalised(matrix).view_as(whole)
        if isinstance(weight, DTensor):
            step = distribute_tensor(step, weight.device_mesh, weight.placements)
        weight.add_(step, alpha=-group["lr"] * 0.2 * max(matrix.shape) ** 0.5)

    def _adam_steps(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        if not weights:
            return
        for weight in weights:
            if not self.state[weight]:
                moments = {"mean": torch.zeros_like(weight), "square": torch.zeros_like(weight)}
                self.state[weight] |= {"step": torch.tensor(0.0)} | moments
        states = [self.state[weight] for weight in weights]
        first, second = group["betas"]
        adamw(
            weights,
            [weight.grad for weight in weights if weight.grad is not None],
            [state["mean"] for state in states],
            [state["square"] for state in states],
            [],
            [state["step"] for state in states],
            foreach=True,
            amsgrad=False,
            beta1=first,
            beta2=second,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def is_matrix(weight: Tensor, group: dict[str, Any]) -> bool:
    """Return whether a weight is a convolution or a linear layer that Muon orthogonalises.

    Args:
        weight: The weight.
        group: Its group, by whose name the encoder's are known.
    """
    if not group.get("name", "decoders").startswith("decoders") or weight.ndim < 2:
        return False
    depthwise = weight.ndim > 2 and weight.shape[1] == 1
    return not depthwise and min(weight.shape[0], weight[0].numel()) >= _SMALLEST
