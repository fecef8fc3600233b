"""The decoders of segmentation-models-pytorch, on the encoder's maps.

There is one class for each model of the package, with the same options. They read the encoder, not the neck. The
package is MIT licensed: https://github.com/qubvel-org/segmentation_models.pytorch
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from ocrnet_pl.models.base import Shapes
from ocrnet_pl.models.smp_decoder import Pyramid, SmpDecoder
from ocrnet_pl.structures import Taxonomy

CHANNELS = (256, 128, 64, 32, 16)
"""Channels of a U-Net's blocks, coarsest first, one for each halving between stride 32 and the input."""

RATES = (12, 24, 36)
"""Dilations of the three convolutions of DeepLab's atrous pyramid."""


def _check_blocks(pyramid: Pyramid, channels: Sequence[int]) -> None:
    """Raise an error unless there is one number of channels for each halving."""
    if len(channels) != pyramid.depth:
        raise ValueError(
            f"segmentation: channels has {len(channels)} values {list(channels)}; there are {pyramid.depth} halvings "
            f"from the input to stride {pyramid.strides[-1]}, give one for each"
        )


def _check_attention(decoder: nn.Module) -> None:
    """Raise an error for attention over so few channels that none is left after its reduction."""
    if any(isinstance(module, nn.Conv2d) and module.out_channels == 0 for module in decoder.modules()):
        raise ValueError(
            "segmentation: attention 'scse' works on a sixteenth of a block's channels and one has fewer than 16; "
            "give larger `channels` or set `attention` to null"
        )


class SmpUnet(SmpDecoder):
    """U-Net (Ronneberger et al., MICCAI 2015): upsamples step by step to full resolution, each step with a skip.

    Args:
        shapes: Channels and strides of the maps, of which the encoder's are read; set by the network.
        taxonomy: The categories, which give the number of classes; set from the data.
        coarsest: Largest stride to read: 8, 16 or 32.
        channels: Number of channels of each block, coarsest first, one for each halving from the input to ``coarsest``.
        attention: ``scse`` weights channels and pixels (Roy et al., MICCAI 2018) in each block; null for no attention.

    Raises:
        ValueError: The encoder lacks a stride, ``channels`` has another length, or attention has too few of them.
    """

    def __init__(
        self,
        shapes: Shapes,
        taxonomy: Taxonomy,
        coarsest: int = 32,
        channels: Sequence[int] = CHANNELS,
        attention: Literal["scse"] | None = None,
    ) -> None:
        from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

        pyramid = Pyramid.of(shapes, coarsest)
        _check_blocks(pyramid, channels)
        decoder = UnetDecoder(pyramid.channels, channels, n_blocks=pyramid.depth, attention_type=attention)
        _check_attention(decoder)
        super().__init__(taxonomy, pyramid, decoder, channels[-1], stride=1, kernel_size=3)


class SmpUnetPlusPlus(SmpDecoder):
    """U-Net++ (Zhou et al., DLMIA 2018): a U-Net whose skips are densely nested; the most costly decoder here.

    Args:
        shapes: Channels and strides of the maps, of which the encoder's are read; set by the network.
        taxonomy: The categories, which give the number of classes; set from the data.
        coarsest: Largest stride to read: 8, 16 or 32.
        channels: Number of channels of each block, coarsest first, one for each halving from the input to ``coarsest``.
        attention: ``scse`` weights channels and pixels (Roy et al., MICCAI 2018) in each block; null for no attention.

    Raises:
        ValueError: The encoder lacks a stride, ``channels`` has another length, or attention has too few of them.
    """

    def __init__(
        self,
        shapes: Shapes,
        taxonomy: Taxonomy,
        coarsest: int = 32,
        channels: Sequence[int] = CHANNELS,
        attention: Literal["scse"] | None = None,
    ) -> None:
        from segmentation_models_pytorch.decoders.unetplusplus.decoder import UnetPlusPlusDecoder

        pyramid = Pyramid.of(shapes, coarsest)
        _check_blocks(pyramid, channels)
        decoder = UnetPlusPlusDecoder(pyramid.channels, channels, n_blocks=pyramid.depth, attention_type=attention)
        _check_attention(decoder)
        super().__init__(taxonomy, pyramid, decoder, channels[-1], stride=1, kernel_size=3)


class SmpMAnet(SmpDecoder):
    """MA-Net (Fan et al., IEEE Access 2020): a U-Net with attention over positions and over skips.

    Args:
        shapes: Channels and strides of the maps, of which the encoder's are read; set by the network.
        taxonomy: The categories, which give the number of classes; set from the data.
        coarsest: Largest stride to read: 8, 16 or 32. The cost of attention grows with the square of that map's pixels.
        channels: Number of channels of each block, coarsest first, one for each halving from the input to ``coarsest``.
        attention_channels: Number of channels of the attention's keys.

    Raises:
        ValueError: The encoder lacks a stride, or ``channels`` has another length.
    """

    def __init__(
        self,
        shapes: Shapes,
        taxonomy: Taxonomy,
        coarsest: int = 32,
        channels: Sequence[int] = CHANNELS,
        attention_channels: int = 64,
    ) -> None:
        from segmentation_models_pytorch.decoders.manet.decoder import MAnetDecoder

        pyramid = Pyramid.of(shapes, coarsest)
        _check_blocks(pyramid, channels)
        decoder = MAnetDecoder(
            pyramid.channels, list(channels), n_blocks=pyramid.depth, pab_channels=attention_channels
        )
        super().__init__(taxonomy, pyramid, decoder, channels[-1], stride=1, kernel_size=3)


class SmpLinknet(SmpDecoder):
    """LinkNet (Chaurasia and Culurciello, VCIP 2017): a light U-Net that adds its skips instead of concatenating them.

    Args:
        shapes: Channels and strides of the maps, of which the encoder's are read; set by the network.
        taxonomy: The categories, which give the number of classes; set from the data.
        coarsest: Largest stride to read: 8, 16 or 32.
        width: Number of channels before the logits.

    Raises:
        ValueError: The encoder lacks a stride.
    """

    def __init__(self, shapes: Shapes, taxonomy: Taxonomy, coarsest: int = 32, width: int = 32) -> None:
        from segmentation_models_pytorch.decoders.linknet.decoder import LinknetDecoder

        pyramid = Pyramid.of(shapes, coarsest)
        decoder = LinknetDecoder(pyramid.channels, prefinal_channels=width, n_blocks=pyramid.depth)
        super().__init__(taxonomy, pyramid, decoder, width, stride=1, kernel_size=1)


class SmpFPN(SmpDecoder):
    """A feature pyramid whose levels are scaled to stride 4 and merged (Kirillov et al., CVPR 2019).

    Args:
        shapes: Channels and strides of the maps, of which the encoder's at strides 4 to 32 are read; set by the
            network.
        taxonomy: The categories, which give the number of classes; set from the data.
        pyramid_channels: Number of channels of the pyramid's maps.
        width: Number of channels of each level before they are merged; a multiple of 32.
        merge: ``add`` adds the levels, ``cat`` concatenates them.
        dropout: Share of channels, 0 to 1, that is zeroed before the logits in training; 0 for none.

    Raises:
        ValueError: The encoder lacks a stride.
    """

    def __init__(
        self,
        shapes: Shapes,
        taxonomy: Taxonomy,
        pyramid_channels: int = 256,
        width: int = 128,
        merge: Literal["add", "cat"] = "add",
        dropout: float = 0.2,
    ) -> None:
        from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder

        pyramid = Pyramid.of(shapes, 32)
        decoder = FPNDecoder(pyramid.channels, pyramid.depth, pyramid_channels, width, dropout, merge)
        super().__init__(taxonomy, pyramid, decoder, decoder.out_channels, stride=4, kernel_size=1)


class SmpPSPNet(SmpDecoder):
    """PSPNet (Zhao et al., CVPR 2017): one map and its averages over 1, 2, 3 and 6 parts per side.

    Args:
        shapes: Channels and strides of the maps, of which one of the encoder's is read; set by the network.
        taxonomy: The categories, which give the number of classes; set from the data.
        coarsest: Stride of the map that is read: 8, 16 or 32.
        width: Number of channels before the logits.
        dropout: Share of channels, 0 to 1, that is zeroed before the logits in training; 0 for none.

    Raises:
        ValueError: The encoder lacks a stride.
    """

    def __init__(
        self, shapes: Shapes, taxonomy: Taxonomy, coarsest: int = 8, width: int = 512, dropout: float = 0.2
    ) -> None:
        from segmentation_models_pytorch.decoders.pspnet.decoder import PSPDecoder

        pyramid = Pyramid.of(shapes, coarsest)
        decoder = PSPDecoder(pyramid.channels, out_channels=width, dropout=dropout)
        super().__init__(taxonomy, pyramid, decoder, width, stride=coarsest, kernel_size=3)


class SmpPAN(SmpDecoder):
    """Pyramid attention network (Li et al., BMVC 2018): attention at the deepest map guides the finer ones.

    Args:
        shapes: Channels and strides of the maps, of which the encoder's from stride 4 on are read; set by the network.
        taxonomy: The categories, which give the number of classes; set from the data.
        coarsest: Largest stride to read: 8, 16 or 32. It is halved three more times, so the input needs at least 8 *
            ``coarsest`` pixels per side.
        width: Number of channels before the logits.

    Raises:
        ValueError: The encoder lacks a stride.
    """

    def __init__(self, shapes: Shapes, taxonomy: Taxonomy, coarsest: int = 16, width: int = 32) -> None:
        from segmentation_models_pytorch.decoders.pan.decoder import PANDecoder

        pyramid = Pyramid.of(shapes, coarsest)
        decoder = PANDecoder(pyramid.channels, pyramid.depth, width)  # type: ignore[arg-type]
        super().__init__(taxonomy, pyramid, decoder, width, stride=4, kernel_size=3, pools=True)


class SmpDeepLabV3(SmpDecoder):
    """DeepLabV3 (Chen et al., 2017): dilated convolutions of several rates on one map.

    It was designed for encoders with dilated last stages: set ``output_stride`` of the encoder to 8 or 16 and
    ``coarsest`` here to the same value.

    Args:
        shapes: Channels and strides of the maps, of which one of the encoder's is read; set by the network.
        taxonomy: The categories, which give the number of classes; set from the data.
        coarsest: Stride of the map that is read: 8, 16 or 32.
        width: Number of channels before the logits.
        rates: Dilations of the three convolutions.
        separable: Whether the dilated convolutions are depthwise separable.
        dropout: Share of values, 0 to 1, that is zeroed after the pyramid in training; 0 for none.

    Raises:
        ValueError: The encoder lacks a stride.
    """

    def __init__(
        self,
        shapes: Shapes,
        taxonomy: Taxonomy,
        coarsest: int = 32,
        width: int = 256,
        rates: tuple[int, int, int] = RATES,
        separable: bool = False,
        dropout: float = 0.5,
    ) -> None:
        from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3Decoder

        pyramid = Pyramid.of(shapes, coarsest)
        decoder = DeepLabV3Decoder(pyramid.channels[-1], width, rates, separable, dropout)
        super().__init__(taxonomy, pyramid, decoder, width, stride=coarsest, kernel_size=1, pools=True)


class SmpDeepLabV3Plus(SmpDecoder):
    """DeepLabV3+ (Chen et al., ECCV 2018): DeepLabV3's map, refined at stride 4 by the encoder's own map.

    Args:
        shapes: Channels and strides of the maps, of which the encoder's at stride 4 and at ``coarsest`` are read; set
            by the network.
        taxonomy: The categories, which give the number of classes; set from the data.
        coarsest: Stride of the deep map: 8, 16 or 32. Where the encoder's ``output_stride`` is 8 or 16, use the same
            value.
        width: Number of channels before the logits.
        rates: Dilations of the three convolutions.
        separable: Whether the dilated convolutions are depthwise separable.
        dropout: Share of values, 0 to 1, that is zeroed after the pyramid in training; 0 for none.

    Raises:
        ValueError: The encoder lacks a stride.
    """

    def __init__(
        self,
        shapes: Shapes,
        taxonomy: Taxonomy,
        coarsest: int = 32,
        width: int = 256,
        rates: tuple[int, int, int] = RATES,
        separable: bool = True,
        dropout: float = 0.5,
    ) -> None:
        from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder

        pyramid = Pyramid.of(shapes, coarsest)
        decoder = DeepLabV3PlusDecoder(pyramid.channels, 5, width, rates, 16, separable, dropout)
        # The package knows dilated encoders only: its factor is the one from stride 8 or 16.
        decoder.up = nn.Upsample(mode="bilinear", scale_factor=coarsest // 4, align_corners=True)
        super().__init__(taxonomy, pyramid, decoder, width, stride=4, kernel_size=1, pools=True)


class SmpUPerNet(SmpDecoder):
    """UPerNet (Xiao et al., ECCV 2018): pooled context on the deepest map, then a feature pyramid.

    Args:
        shapes: Channels and strides of the maps, of which the encoder's from stride 4 on are read; set by the network.
        taxonomy: The categories, which give the number of classes; set from the data.
        coarsest: Largest stride to read: 8, 16 or 32.
        width: Number of channels before the logits.

    Raises:
        ValueError: The encoder lacks a stride.
    """

    def __init__(self, shapes: Shapes, taxonomy: Taxonomy, coarsest: int = 32, width: int = 256) -> None:
        from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder

        pyramid = Pyramid.of(shapes, coarsest)
        decoder = UPerNetDecoder(pyramid.channels, pyramid.depth, width)
        super().__init__(taxonomy, pyramid, decoder, width, stride=4, kernel_size=1, pools=True)


class SmpSegformer(SmpDecoder):
    """SegFormer's decoder (Xie et al., NeurIPS 2021): one linear layer per map, all merged at stride 4.

    Args:
        shapes: Channels and strides of the maps, of which the encoder's are read; set by the network.
        taxonomy: The categories, which give the number of classes; set from the data.
        coarsest: Largest stride to read: 8, 16 or 32.
        width: Number of channels before the logits.

    Raises:
        ValueError: The encoder lacks a stride.
    """

    def __init__(self, shapes: Shapes, taxonomy: Taxonomy, coarsest: int = 32, width: int = 256) -> None:
        from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder

        pyramid = Pyramid.of(shapes, coarsest)
        decoder = SegformerDecoder(pyramid.channels, pyramid.depth, width)
        super().__init__(taxonomy, pyramid, decoder, width, stride=4, kernel_size=1)
