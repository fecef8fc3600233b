"""The base classes of the network's parts; a part of your own extends one of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from ocrnet_pl.structures import DetectionOutput


class Encoder(nn.Module, ABC):
    """Turns images into feature maps of falling resolution.

    Attributes:
        channels: Of each map, finest first.
        strides: Of each map, finest first.
        mean: Of the input channels, in the 0 to 1 range.
        std: Likewise.
        pretrained: Whether weights were loaded, so that the optimiser may lower their rate.
    """

    channels: list[int]
    strides: list[int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pretrained: bool

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised images [B, C, H, W] to one map a stride, [B, channels[i], H / strides[i], W / strides[i]]."""


class Neck(nn.Module, ABC):
    """Turns encoder maps into maps of one width.

    Attributes:
        channels: Of each output map, finest first.
        strides: Of each output map, finest first.
    """

    channels: list[int]
    strides: list[int]

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map the encoder's maps to the neck's, finest first."""


class DetectionDecoder(nn.Module, ABC):
    """Emits candidate boxes, each with a confidence and class scores, from the neck's maps."""

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> DetectionOutput:
        """Return the candidates of all levels."""


class SegmentationDecoder(nn.Module, ABC):
    """Emits a class for every pixel from the neck's maps.

    Attributes:
        stride: Input pixels a logit.
    """

    stride: int

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the logits [B, S, h, w] first, then any auxiliary logits."""
