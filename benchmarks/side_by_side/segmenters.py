"""Segmentation networks of torchvision and segmentation-models-pytorch over the timm encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.structures import Taxonomy
from side_by_side.base import PixelPeer


class HeadPeer(PixelPeer):
    """A head over the encoder's last map.

    Args:
        encoder: Encoder with a dilated end.
        taxonomy: Gives the class count.
        head: Makes the head from the map's channels and the class count.
    """

    def __init__(self, encoder: TimmEncoder, taxonomy: Taxonomy, head: Any) -> None:
        super().__init__(encoder, taxonomy)
        self.head: nn.Module = head(encoder.channels[-1], self.num_classes)

    def decode(self, maps: Sequence[Tensor], images: Tensor) -> Tensor:
        """Return logits at the last map's stride."""
        logits: Tensor = self.head(maps[-1])
        return logits


class SmpPeer(PixelPeer):
    """A decoder of segmentation-models-pytorch over the encoder's maps.

    Args:
        encoder: Encoder with five maps, strides 2 to 32.
        taxonomy: Gives the class count.
        decoder: Makes the decoder from the channels of the input and of the maps.
        channels: Number of channels that the decoder returns.
    """

    def __init__(self, encoder: TimmEncoder, taxonomy: Taxonomy, decoder: Any, channels: int) -> None:
        super().__init__(encoder, taxonomy)
        if len(encoder.channels) != 5:
            raise ValueError(f"the encoder has {len(encoder.channels)} maps, smp's decoders read five, strides 2 to 32")
        self.decoder: nn.Module = decoder([len(encoder.mean), *encoder.channels])
        self.head = nn.Conv2d(channels, self.num_classes, 3, padding=1)

    def decode(self, maps: Sequence[Tensor], images: Tensor) -> Tensor:
        """Return logits at the decoder's stride."""
        logits: Tensor = self.head(self.decoder([images, *maps]))
        return logits


def fcn(encoder: TimmEncoder, taxonomy: Taxonomy) -> PixelPeer:
    """Return torchvision's FCN head."""
    from torchvision.models.segmentation.fcn import FCNHead

    return HeadPeer(encoder, taxonomy, FCNHead)


def deeplabv3(encoder: TimmEncoder, taxonomy: Taxonomy) -> PixelPeer:
    """Return torchvision's DeepLabV3 head."""
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead

    return HeadPeer(encoder, taxonomy, DeepLabHead)


def unet(encoder: TimmEncoder, taxonomy: Taxonomy) -> PixelPeer:
    """Return smp's Unet with its own widths."""
    from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

    widths = (256, 128, 64, 32, 16)
    return SmpPeer(encoder, taxonomy, lambda channels: UnetDecoder(channels, widths), widths[-1])


def fpn(encoder: TimmEncoder, taxonomy: Taxonomy) -> PixelPeer:
    """Return smp's FPN with its own widths."""
    from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder

    return SmpPeer(encoder, taxonomy, lambda channels: FPNDecoder(channels), 128)


def deeplabv3_plus(encoder: TimmEncoder, taxonomy: Taxonomy) -> PixelPeer:
    """Return smp's DeepLabV3+ with its own widths."""
    from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder

    def decoder(channels: list[int]) -> nn.Module:
        return DeepLabV3PlusDecoder(
            channels,
            encoder_depth=5,
            out_channels=256,
            atrous_rates=(12, 24, 36),
            output_stride=16,
            aspp_separable=True,
            aspp_dropout=0.5,
        )

    return SmpPeer(encoder, taxonomy, decoder, 256)
