"""Small blocks that the neck and the decoders share."""

from __future__ import annotations

from torch import nn


class ConvNorm(nn.Sequential):
    """Convolution, batch normalisation and, unless told otherwise, SiLU; keeps H and W at stride 1.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        kernel_size: Odd.
        stride: Of the convolution.
        groups: Of the convolution.
        activation: Whether the SiLU follows.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        activation: bool = True,
    ) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels),
            *([nn.SiLU(inplace=True)] if activation else []),
        )


class SeparableConv(nn.Sequential):
    """Depthwise then pointwise convolution with one normalisation and SiLU after both.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        kernel_size: Of the depthwise part, odd.
        stride: Of the depthwise part.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, in_channels, kernel_size, stride, kernel_size // 2, groups=in_channels, bias=False),
            ConvNorm(in_channels, out_channels, 1),
        )
