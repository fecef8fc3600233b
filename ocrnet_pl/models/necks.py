"""Necks: from the encoder's maps to maps of one width."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ocrnet_pl.models.base import Neck
from ocrnet_pl.models.layers import ConvNorm, SeparableConv


class PathAggregationNeck(Neck):
    """A feature pyramid with a bottom-up path after it.

    Top-down: Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017. Bottom-up: Liu et al., "Path
    Aggregation Network for Instance Segmentation", CVPR 2018; here with depthwise separable convolutions.

    Args:
        channels: Of the encoder's maps.
        strides: Of the encoder's maps.
        width: Channels of every output map.
        finest: Smallest stride to keep; finer encoder maps are not used.

    Raises:
        ValueError: The encoder has no map at ``finest`` or coarser.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int = 64, finest: int = 4) -> None:
        super().__init__()
        kept = [i for i, stride in enumerate(strides) if stride >= finest]
        if not kept:
            raise ValueError(f"neck: the encoder's strides are {list(strides)}, none is at least finest={finest}")
        self._first = kept[0]
        self.strides = [strides[i] for i in kept]
        self.channels = [width] * len(kept)
        self.lateral = nn.ModuleList(ConvNorm(channels[i], width, 1) for i in kept)
        self.top_down = nn.ModuleList(ConvNorm(width, width) for _ in kept[:-1])
        self.down = nn.ModuleList(SeparableConv(width, width, 5, stride=2) for _ in kept[1:])
        self.bottom_up = nn.ModuleList(SeparableConv(width, width, 5) for _ in kept[1:])

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map the encoder's maps to ``width`` channels each, finest first."""
        maps = [lateral(feature) for lateral, feature in zip(self.lateral, features[self._first :], strict=True)]
        for level in range(len(maps) - 2, -1, -1):
            above = F.interpolate(maps[level + 1], size=maps[level].shape[-2:], mode="nearest")
            maps[level] = self.top_down[level](maps[level] + above)
        for level in range(1, len(maps)):
            maps[level] = self.bottom_up[level - 1](maps[level] + self.down[level - 1](maps[level - 1]))
        return maps
