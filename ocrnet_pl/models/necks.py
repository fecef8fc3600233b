"""Necks: from the encoder's maps to maps of equal width."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocrnet_pl.models.base import Neck, last_of_each_stride
from ocrnet_pl.models.layers import ConvNorm, SeparableConv


def upsample_like(coarse: Tensor, fine: Tensor) -> Tensor:
    """Return ``coarse`` at the height and width of ``fine``, nearest neighbour."""
    return F.interpolate(coarse, size=fine.shape[-2:], mode="nearest")


class PyramidNeck(Neck):
    """What all pyramids share: the choice of the encoder's maps and the projection of each to one width.

    Where an encoder with dilated stages returns several maps of one stride, the last of them is read.

    Args:
        channels: Number of channels of each of the encoder's maps; set by the network.
        strides: Stride of each of the encoder's maps; set by the network.
        width: Number of channels of every output map.
        finest: Smallest stride to keep, in input pixels; finer encoder maps are not used.
        activation: Whether an activation follows the projection.

    Raises:
        ValueError: The encoder has no map at ``finest`` or coarser.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], width: int, finest: int, activation: bool
    ) -> None:
        super().__init__()
        last = {stride: i for stride, i in last_of_each_stride(strides).items() if stride >= finest}
        if not last:
            raise ValueError(f"neck: the encoder's strides are {list(strides)}, none is at least finest={finest}")
        self._read = list(last.values())
        self.strides = list(last)
        self.channels = [width] * len(last)
        self.lateral = nn.ModuleList(ConvNorm(channels[i], width, 1, activation=activation) for i in self._read)

    def project(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the selected maps with ``width`` channels each, finest first."""
        return [lateral(features[i]) for lateral, i in zip(self.lateral, self._read, strict=True)]


class FeaturePyramidNeck(PyramidNeck):
    """A feature pyramid: coarse maps are added to finer ones on the way down, and each sum is smoothed.

    After Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, with batch normalisation; as there,
    no activation. The cheapest of the necks.

    Args:
        channels: Number of channels of each of the encoder's maps; set by the network.
        strides: Stride of each of the encoder's maps; set by the network.
        width: Number of channels of every output map.
        finest: Smallest stride to keep, in input pixels; finer encoder maps are not used.

    Raises:
        ValueError: The encoder has no map at ``finest`` or coarser.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int = 64, finest: int = 4) -> None:
        super().__init__(channels, strides, width, finest, activation=False)
        self.smooth = nn.ModuleList(ConvNorm(width, width, activation=False) for _ in self.strides)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map the encoder's maps to ``width`` channels each, finest first."""
        maps = self.project(features)
        for level in range(len(maps) - 2, -1, -1):
            maps[level] = maps[level] + upsample_like(maps[level + 1], maps[level])
        return [smooth(feature) for smooth, feature in zip(self.smooth, maps, strict=True)]


class PathAggregationNeck(PyramidNeck):
    """A feature pyramid followed by a bottom-up path.

    Top-down: Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017. Bottom-up: Liu et al., "Path
    Aggregation Network for Instance Segmentation", CVPR 2018; here with depthwise separable convolutions.

    Args:
        channels: Number of channels of each of the encoder's maps; set by the network.
        strides: Stride of each of the encoder's maps; set by the network.
        width: Number of channels of every output map.
        finest: Smallest stride to keep, in input pixels; finer encoder maps are not used.
        groups: Number of groups of the top-down convolutions, which must divide ``width``. They take most of the neck's
            multiplications, of which two groups take half.

    Raises:
        ValueError: The encoder has no map at ``finest`` or coarser, or ``groups`` does not divide ``width``.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], width: int = 64, finest: int = 4, groups: int = 1
    ) -> None:
        if groups < 1 or width % groups:
            raise ValueError(f"neck: groups is {groups}, which does not divide width={width}")
        super().__init__(channels, strides, width, finest, activation=True)
        below = self.strides[1:]
        self.top_down = nn.ModuleList(ConvNorm(width, width, groups=groups) for _ in below)
        self.down = nn.ModuleList(SeparableConv(width, width, 5, stride=2) for _ in below)
        self.bottom_up = nn.ModuleList(SeparableConv(width, width, 5) for _ in below)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map the encoder's maps to ``width`` channels each, finest first."""
        maps = self.project(features)
        for level in range(len(maps) - 2, -1, -1):
            maps[level] = self.top_down[level](maps[level] + upsample_like(maps[level + 1], maps[level]))
        for level in range(1, len(maps)):
            maps[level] = self.bottom_up[level - 1](maps[level] + self.down[level - 1](maps[level - 1]))
        return maps


class WeightedFusion(nn.Module):
    """The weighted mean of maps, then an activation and a separable convolution.

    Fast normalised fusion (Tan et al., CVPR 2020, equation 3): each weight is its rectified parameter divided by the
    sum of all of them.

    Args:
        inputs: Number of maps.
        width: Number of channels of each map.
    """

    EPSILON = 1e-4

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(inputs))
        self.convolve = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            ConvNorm(width, width, 1, activation=False),
        )

    def forward(self, *maps: Tensor) -> Tensor:
        """Fuse maps of one shape [B, width, H, W]."""
        weight = F.relu(self.weight)
        shares = (weight / (weight.sum() + self.EPSILON)).unbind()
        total = shares[0] * maps[0]
        for share, feature in zip(shares[1:], maps[1:], strict=True):
            total = total + share * feature
        return self.convolve(total)  # type: ignore[no-any-return]


class BiFPNLayer(nn.Module):
    """One top-down and one bottom-up pass over the pyramid, both with weighted fusion.

    Args:
        levels: Number of maps.
        width: Number of channels of each map.
    """

    def __init__(self, levels: int, width: int) -> None:
        super().__init__()
        self.top_down = nn.ModuleList(WeightedFusion(2, width) for _ in range(levels - 1))
        # The top-down pass does not change the coarsest map.
        self.bottom_up = nn.ModuleList(WeightedFusion(3 if i < levels - 1 else 2, width) for i in range(1, levels))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the maps, finest first, in the same shapes."""
        fused = list(maps)
        for level in range(len(maps) - 2, -1, -1):
            fused[level] = self.top_down[level](maps[level], upsample_like(fused[level + 1], maps[level]))
        for level in range(1, len(maps)):
            below = F.max_pool2d(fused[level - 1], 3, stride=2, padding=1)
            inner = [fused[level]] if level < len(maps) - 1 else []
            fused[level] = self.bottom_up[level - 1](maps[level], *inner, below)
        return fused


class BiFPNNeck(PyramidNeck):
    """A pyramid whose maps are fused top-down and bottom-up several times, each time with learnt weights.

    After Tan et al., "EfficientDet", CVPR 2020. All convolutions are depthwise separable, so it has few parameters. A
    higher ``repeats`` fuses more.

    Args:
        channels: Number of channels of each of the encoder's maps; set by the network.
        strides: Stride of each of the encoder's maps; set by the network.
        width: Number of channels of every output map.
        finest: Smallest stride to keep, in input pixels; finer encoder maps are not used.
        repeats: Number of top-down and bottom-up passes, at least 1; EfficientDet uses 3 to 8.

    Raises:
        ValueError: The encoder has no map at ``finest`` or coarser, or ``repeats`` is below 1.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], width: int = 64, finest: int = 4, repeats: int = 3
    ) -> None:
        if repeats < 1:
            raise ValueError(f"neck: repeats is {repeats}, at least 1 is needed")
        super().__init__(channels, strides, width, finest, activation=False)
        self.layers = nn.ModuleList(BiFPNLayer(len(self.strides), width) for _ in range(repeats))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map the encoder's maps to ``width`` channels each, finest first."""
        maps = self.project(features)
        for layer in self.layers:
            maps = layer(maps)
        return maps
