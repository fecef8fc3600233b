"""Strided convolutions of a single pixel, as stems of reparameterised networks have them, made safe on the CPU."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

_FEW = 16
"""oneDNN's kernels take this many channels at once where the processor has AVX-512, and 8 with AVX2."""


def subsample_first(network: nn.Module) -> None:
    """Let convolutions that skip pixels be given only the pixels that they read.

    The backward pass of a strided 1x1 convolution with fewer than 16 input channels in channels-last writes past the
    end of its buffer in oneDNN (its issue 6035): the process dies, or other values are overwritten. Given every
    ``stride``-th pixel, the same convolution without a stride computes the same values and gradients. More channels,
    groups and other kernels are not affected, and stay as they are. The few channels are those of images, so that it
    costs nothing that could be measured on any device.

    Args:
        network: Changed in place; weights, their names and the modules stay the same ones.
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
