"""Strided 1x1 convolutions, as in the stems of reparameterised networks, made safe on the CPU."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

_FEW = 16
"""oneDNN's kernels take this many channels at once where the processor has AVX-512, and 8 with AVX2."""


def subsample_first(network: nn.Module) -> None:
    """Give convolutions that skip pixels only the pixels that they read.

    The backward pass of a strided 1x1 convolution with fewer than 16 input channels in channels-last writes past the
    end of its buffer in oneDNN (its issue 6035): the process dies, or other values are overwritten. With every
    ``stride``-th pixel as its input, the same convolution without a stride computes the same values and gradients.
    Convolutions with more channels, groups or other kernels are not affected and not changed. Only convolutions on the
    image itself have so few channels, so that the cost was too small to measure on any device.

    Args:
        network: Changed in place; its weights, their names and its modules stay the same.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and _is_affected(module):
            module.register_forward_pre_hook(partial(_subsample, module.stride))
            module.stride = (1, 1)


def _is_affected(convolution: nn.Conv2d) -> bool:
    unpadded = convolution.padding in ("valid", (0, 0), 0)
    single = unpadded and tuple(convolution.kernel_size) == (1, 1) and convolution.groups == 1
    return single and max(convolution.stride) > 1 and convolution.in_channels < _FEW


def _subsample(stride: tuple[int, ...], module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    image: Tensor = inputs[0]
    rows, columns = stride
    return image[..., ::rows, ::columns], *inputs[1:]
