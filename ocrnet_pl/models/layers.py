"""Small blocks that the neck and the decoders share."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F


class ConvNorm(nn.Sequential):
    """Convolution, batch normalisation and, by default, SiLU; keeps height and width at stride 1.

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        kernel_size: Side of the convolution's kernel, odd.
        stride: Stride of the convolution.
        groups: Number of groups of the convolution.
        activation: Whether a SiLU follows the normalisation.
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
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        kernel_size: Side of the depthwise convolution's kernel, odd.
        stride: Stride of the depthwise convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, in_channels, kernel_size, stride, kernel_size // 2, groups=in_channels, bias=False),
            ConvNorm(in_channels, out_channels, 1),
        )


class SharedTower(nn.Module):
    """Separable convolutions that several levels share, with separate normalisations for each level.

    Statistics differ between levels, so that one normalisation would fit none of them (Ghiasi et al., "NAS-FPN", CVPR
    2019).

    Args:
        width: Number of channels.
        depth: Number of convolutions.
        levels: Number of levels.
    """

    def __init__(self, width: int, depth: int, levels: int) -> None:
        super().__init__()
        self.depthwise = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False) for _ in range(depth)
        )
        self.pointwise = nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for _ in range(depth))
        self.norms = nn.ModuleList(nn.ModuleList(nn.BatchNorm2d(width) for _ in range(depth)) for _ in range(levels))

    def forward(self, feature: Tensor, level: int) -> Tensor:
        """Map the level's feature [B, width, H, W] to the same shape."""
        norms = cast(nn.ModuleList, self.norms[level])
        for depthwise, pointwise, norm in zip(self.depthwise, self.pointwise, norms, strict=True):
            feature = F.silu(norm(pointwise(depthwise(feature))), inplace=True)
        return feature
