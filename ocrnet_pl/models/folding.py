"""Batch norms folded into the convolutions before them, for networks that only predict."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.nn.utils.parametrize import is_parametrized


def fold_norms(network: nn.Module, images: Tensor) -> int:
    """Fold each batch norm whose input is a convolution's output, shuffled or not, into that convolution, in place.

    What follows what is seen from one run of the network; a convolution that is run more than once, such as one that
    several levels share, keeps its norms. Whether something else reads a convolution's output as well is not seen:
    compare the results.

    Args:
        network: A network in evaluation mode.
        images: Images to run it on, as its ``forward`` takes them.

    Returns:
        The number of norms that were folded.
    """
    calls: Counter[nn.Module] = Counter()
    # The convolution that made a map, and how many of its channels are one of the map's after a pixel shuffle.
    made_by: dict[int, tuple[nn.Conv2d, int]] = {}
    # Held, so that no other tensor gets the identity of one that is gone.
    held: list[Any] = []
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d, int]] = []

    def look(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        calls[module] += 1
        if isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in made_by:
            conv, together = made_by[id(inputs[0])]
            pairs.append((conv, module, together))
        if isinstance(module, nn.PixelShuffle) and id(inputs[0]) in made_by:
            conv, together = made_by[id(inputs[0])]
            made_by[id(output)] = conv, together * module.upscale_factor**2
            held.append(output)
        if isinstance(module, nn.Conv2d) and isinstance(output, Tensor):
            made_by[id(output)] = module, 1
            held.append(output)
        held.extend(inputs)

    kinds = nn.Conv2d | nn.BatchNorm2d | nn.PixelShuffle
    leaves = [module for module in network.modules() if isinstance(module, kinds)]
    handles = [module.register_forward_hook(look) for module in leaves]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    once = [pair for pair in pairs if all(calls[module] == 1 for module in pair[:2]) and _is_plain(*pair[:2])]
    names = {module: name for name, module in network.named_modules()}
    for conv, norm, together in once:
        statistics = [
            None if each is None else each.repeat_interleave(together)
            for each in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        ]
        mean, variance, weight, bias = statistics
        assert mean is not None
        assert variance is not None
        conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, mean, variance, norm.eps, weight, bias)
        parent, _, name = names[norm].rpartition(".")
        setattr(network.get_submodule(parent), name, _rest_of(norm))
    return len(once)


def _is_plain(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    """Return whether nothing else than a convolution and a norm with statistics happens in two modules."""
    known = type(norm) is nn.BatchNorm2d or isinstance(norm, BatchNormAct2d)
    return known and norm.running_var is not None and not is_parametrized(conv)


def _rest_of(norm: nn.BatchNorm2d) -> nn.Module:
    """Return what a module does besides normalising: timm's norms have an activation of their own."""
    return nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
