"""The optimiser's parameter groups and how it steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ocrnet_pl.models.ocrnet import OCRNet

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
"""Makes the optimiser from the parameter groups."""


class SharedFactory:
    """A factory that copies of the task share: the command line's holds on to the parser and, by it, the trainer."""

    def __init__(self, factory: OptimizerFactory) -> None:
        self.factory = factory

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedFactory:
        return self


def make_optimizer(
    factory: OptimizerFactory, network: OCRNet, balancing: nn.Module, encoder_factor: float
) -> Optimizer:
    """Return the optimiser of a network and of the balancing's own weights.

    Args:
        factory: Makes the optimiser from the parameter groups.
        network: The network to train.
        balancing: Joins the tasks' losses; it may have weights to train.
        encoder_factor: Factor on the rates of the encoder's groups.
    """
    optimizer = factory(parameter_groups(network, balancing))
    adjust_groups(optimizer, encoder_factor)
    fuse_on_cpu(optimizer)
    return optimizer


def parameter_groups(network: OCRNet, balancing: nn.Module) -> list[dict[str, Any]]:
    """Split the trainable parameters into encoder, decoders and balancing, each with and without weight decay.

    Norms, biases and other vectors have no weight decay.

    Returns:
        Named groups, none of them empty.
    """
    groups: dict[str, dict[str, Any]] = {}
    encoder = {id(parameter) for parameter in network.encoder.parameters()}
    encoder -= {id(parameter) for parameter in network.encoder.new_parameters()}
    weights = {id(parameter) for parameter in balancing.parameters()}
    for parameter in (*network.parameters(), *balancing.parameters()):
        if parameter.requires_grad:
            part = "encoder" if id(parameter) in encoder else "balancing" if id(parameter) in weights else "decoders"
            name = part if parameter.ndim > 1 else f"{part}_no_decay"
            groups.setdefault(name, {"name": name, "params": []})["params"].append(parameter)
    return list(groups.values())


def adjust_groups(optimizer: Optimizer, encoder_lr: float) -> None:
    """Scale the encoder's learning rate and remove the weight decay where the groups' names say so.

    Args:
        optimizer: An optimiser made from :func:`parameter_groups`.
        encoder_lr: Factor of the learning rate of the encoder's groups.
    """
    for group in optimizer.param_groups:
        if group["name"].startswith("encoder"):
            group["lr"] *= encoder_lr
        if group["name"].endswith("no_decay"):
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
