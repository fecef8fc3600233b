"""The optimiser's parameter groups and how it steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ocrnet_pl.models.base import Encoder
from ocrnet_pl.models.ocrnet import OCRNet

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
"""Makes the optimiser from the parameter groups."""

FACTOR = "rate_factor"
"""Key of a parameter group for the factor on its rate."""
_DEPTH = "_depth_"
_NO_DECAY = "_no_decay"


class SharedFactory:
    """A factory that copies of the task share: the command line's holds on to the parser and, by it, the trainer."""

    def __init__(self, factory: OptimizerFactory) -> None:
        self.factory = factory

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedFactory:
        return self


class EncoderRates:
    """By how much a pretrained encoder learns more slowly than the decoders; one of random weights does not.

    Args:
        encoder: The encoder.
        encoder_lr: Factor on the rates of all its parameters.
        layer_decay: Further factor, once for each layer between a parameter and the decoders; None for none.

    Raises:
        ValueError: A factor is out of range.
    """

    def __init__(self, encoder: Encoder, encoder_lr: float, layer_decay: float | None = None) -> None:
        if not encoder_lr >= 0:
            raise ValueError(f"model.encoder_lr: expected at least 0, got {encoder_lr}")
        if layer_decay is not None and not 0 < layer_decay <= 1:
            raise ValueError(f"model.layer_decay: expected above 0 and at most 1, got {layer_decay}")
        self._encoder = encoder
        self._encoder_lr = encoder_lr
        self._layer_decay = layer_decay

    def depths(self) -> dict[int, int]:
        """Return the depth of each parameter that has a rate of its layer, by the parameter's id."""
        if self._layer_decay is None or not self._encoder.pretrained:
            return {}
        depths = self._encoder.layer_depths()
        return {id(weight): depths[name] for name, weight in self._encoder.named_parameters() if name in depths}

    def factor(self, depth: int) -> float:
        """Return the factor on the rate of parameters at a depth."""
        if not self._encoder.pretrained:
            return 1.0
        return self._encoder_lr * (self._layer_decay or 1.0) ** depth


def make_optimizer(factory: OptimizerFactory, network: OCRNet, balancing: nn.Module, rates: EncoderRates) -> Optimizer:
    """Return the optimiser of a network and of the balancing's own weights.

    Args:
        factory: Makes the optimiser from the parameter groups.
        network: The network to train.
        balancing: Joins the tasks' losses; it may have weights to train.
        rates: Factors on the rates of the encoder's groups.
    """
    optimizer = factory(parameter_groups(network, balancing, rates))
    adjust_groups(optimizer)
    fuse_on_cpu(optimizer)
    return optimizer


def parameter_groups(network: OCRNet, balancing: nn.Module, rates: EncoderRates) -> list[dict[str, Any]]:
    """Split the trainable parameters into encoder, decoders and balancing, each with and without weight decay.

    With a rate for each layer, the encoder has groups of each depth. Norms, biases and other vectors have no weight
    decay.

    Returns:
        Named groups, none of them empty. The encoder's have the factor on their rate as :data:`FACTOR`.
    """
    groups: dict[str, dict[str, Any]] = {}
    encoder = {id(parameter) for parameter in network.encoder.parameters()}
    encoder -= {id(parameter) for parameter in network.encoder.new_parameters()}
    weights = {id(parameter) for parameter in balancing.parameters()}
    depths = rates.depths()
    for parameter in (*network.parameters(), *balancing.parameters()):
        if not parameter.requires_grad:
            continue
        part = "encoder" if id(parameter) in encoder else "balancing" if id(parameter) in weights else "decoders"
        depth = depths.get(id(parameter))
        name = part if depth is None else f"{part}{_DEPTH}{depth}"
        group = groups.setdefault(
            name if parameter.ndim > 1 else f"{name}{_NO_DECAY}",
            {"params": []} | ({FACTOR: rates.factor(depth or 0)} if part == "encoder" else {}),
        )
        group["params"].append(parameter)
    return [{"name": name} | group for name, group in groups.items()]


def without_layers(name: str) -> str:
    """Return the name that a parameter group has without rates by layer."""
    part, _, depth = name.partition(_DEPTH)
    return part + (_NO_DECAY if depth.endswith(_NO_DECAY) else "") if depth else name


def adjust_groups(optimizer: Optimizer) -> None:
    """Scale the encoder's learning rates, and remove the weight decay where the groups' names say so.

    Args:
        optimizer: An optimiser made from :func:`parameter_groups`.
    """
    for group in optimizer.param_groups:
        group["lr"] *= group.get(FACTOR, 1.0)
        if group["name"].endswith(_NO_DECAY):
            group["weight_decay"] = 0.0


def fuse_on_cpu(optimizer: Optimizer) -> None:
    """Let an optimiser step through all weights on the CPU at once, if torch can and the choice was left to it.

    torch itself then goes from weight to weight, which takes three times as long. On other devices it chooses well.

    Args:
        optimizer: Changed in place; it has not made a step yet.
    """
    for group in optimizer.param_groups:
        on_cpu = all(parameter.device.type == "cpu" for parameter in group["params"])
        if on_cpu and group.get("fused", False) is None and group.get("foreach", False) is None:
            group["fused"] = True
    if any(group.get("fused") for group in optimizer.param_groups):
        optimizer.register_step_pre_hook(_lay_out)


def _lay_out(optimizer: Optimizer, *_: Any) -> None:
    """Give each gradient the strides of its weight, which the fused step on the CPU assumes without a check.

    Gradients of a backward pass have them; assigned ones may not.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None and gradient.stride() != parameter.stride():
                parameter.grad = torch.empty_like(parameter).copy_(gradient)
