"""The default segmentation decoder, and the parts that it shares with others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocrnet_pl.models.base import (
    DeclaredRows,
    Features,
    SegmentationDecoder,
    Shapes,
    last_of_each_stride,
    layer_rows,
)
from ocrnet_pl.models.layers import ConvNorm, SeparableConv
from ocrnet_pl.structures import Taxonomy


class PyramidSum(nn.Module):
    """Projects maps to one width, sums them at the finest stride and mixes the sum.

    As in Panoptic FPN's semantic branch (Kirillov et al., CVPR 2019).

    Args:
        channels: Number of channels of each map, finest first.
        width: Number of channels of the sum.
        separable: Whether the convolution of the sum is depthwise separable.
    """

    def __init__(self, channels: Sequence[int], width: int, separable: bool = False) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in channels)
        mix = SeparableConv if separable else ConvNorm
        self.fuse = nn.Sequential(nn.BatchNorm2d(width), nn.SiLU(inplace=True), mix(width, width))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Map the maps, finest first, to [B, width, h, w] of the finest."""
        size = maps[0].shape[-2:]
        total = self.project[0](maps[0])
        # Coarse to fine, so that each map is interpolated once and by a small factor.
        coarse = self.project[-1](maps[-1])
        for project, feature in zip(list(self.project)[-2:0:-1], list(maps)[-2:0:-1], strict=True):
            here = project(feature)
            coarse = here + F.interpolate(coarse, size=here.shape[-2:], mode="bilinear", align_corners=False)
        if len(maps) > 1:
            total = total + F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
        fused: Tensor = self.fuse(total)
        return fused


def _sub_pixels(width: int, upscale: int, detail: int) -> list[nn.Module]:
    """Return the layers that turn a map into one of ``detail`` channels at a multiple of its resolution."""
    return [
        nn.Conv2d(width, detail * upscale**2, 1, bias=False),
        nn.PixelShuffle(upscale),
        nn.BatchNorm2d(detail),
        nn.SiLU(inplace=True),
    ]


class SubPixelHead(nn.Sequential):
    """Classifies at a multiple of the map's resolution by sub-pixel convolution.

    Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel CNN", CVPR 2016: it
    gives edges finer than the map at the cost of a pointwise convolution.

    Args:
        width: Number of channels of the map.
        classes: Number of channels of the logits.
        upscale: Factor by which the logits are finer than the map.
        detail: Number of channels at the resolution of the logits.
        dropout: Share of channels, 0 to 1, that is zeroed before the logits in training; 0 for none.
    """

    def __init__(self, width: int, classes: int, upscale: int, detail: int, dropout: float) -> None:
        super().__init__(
            *_sub_pixels(width, upscale, detail),
            nn.Dropout2d(dropout),
            nn.Conv2d(detail, classes, 3, padding=1),
        )

    def class_rows(self, name: str) -> DeclaredRows:
        """Return the rows of the last convolution.

        Args:
            name: Name of this head in the decoder.
        """
        return layer_rows(f"{name}.{len(self) - 1}", "semantic")


class SubPixelSkipHead(nn.Module):
    """Classifies at a multiple of the map's resolution, from the map and from the encoder's map of that resolution.

    What the encoder's map adds is a correction that is nothing at first and is learnt (Goyal et al., "Accurate, Large
    Minibatch SGD", 2017, begin residual branches in this way). The encoder's map has its own norm, which brings it to
    the scale of the others: its statistics are those of the images that the encoder was pretrained on, and added as it
    is, it drowns what the neck says.

    Args:
        width: Number of channels of the map.
        skip: Number of channels of the encoder's map.
        classes: Number of channels of the logits.
        upscale: Factor by which the logits are finer than the map.
        detail: Number of channels at the resolution of the logits.
        dropout: Share of channels, 0 to 1, that is zeroed before the logits in training; 0 for none.
    """

    def __init__(self, width: int, skip: int, classes: int, upscale: int, detail: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.Sequential(*_sub_pixels(width, upscale, detail))
        self.skip = nn.BatchNorm2d(skip)
        norm = nn.BatchNorm2d(detail)
        nn.init.zeros_(norm.weight)
        self.correct = nn.Sequential(nn.Conv2d(detail + skip, detail, 1, bias=False), norm)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(detail, classes, 3, padding=1)

    def forward(self, pixels: Tensor, finer: Tensor) -> Tensor:
        """Return the logits [B, S, upscale * h, upscale * w].

        Args:
            pixels: The map [B, width, h, w].
            finer: The encoder's map [B, skip, upscale * h, upscale * w].
        """
        detail = self.up(pixels)
        correction = self.correct(torch.cat((detail, self.skip(finer)), 1))
        logits: Tensor = self.classify(self.dropout(detail + correction))
        return logits

    def class_rows(self, name: str) -> DeclaredRows:
        """Return the rows of the last convolution.

        Args:
            name: Name of this head in the decoder.
        """
        return layer_rows(f"{name}.classify", "semantic")


def semantic_count(taxonomy: Taxonomy) -> int:
    """Return the number of segmentation classes.

    Raises:
        ValueError: There are none.
    """
    if taxonomy.num_semantic == 0:
        raise ValueError("segmentation: the taxonomy has no segmentation class; set the decoder to null")
    return taxonomy.num_semantic


class SubPixelDecoder(SegmentationDecoder):
    """Sums the neck's maps at the finest stride and classifies at a finer resolution.

    Args:
        shapes: Channels and strides of the maps, of which the neck's are read; set by the network.
        taxonomy: The categories, which give the number of classes; set from the data.
        width: Number of channels at the finest stride.
        upscale: Factor by which the logits are finer than the neck's finest map.
        detail: Number of channels at the resolution of the logits.
        dropout: Share of channels, 0 to 1, that is zeroed before the logits in training; 0 for none.
        separable: Whether the convolution at the finest stride is depthwise separable, which takes an eighth of its
            multiplications.
        skip: Whether the logits also see the encoder's map of their own stride, which is finer than all of the neck's;
            null if the encoder has one.

    Raises:
        ValueError: The taxonomy has no segmentation class, or the encoder has no map at the logits' stride for
            ``skip``.
    """

    def __init__(
        self,
        shapes: Shapes,
        taxonomy: Taxonomy,
        width: int = 64,
        upscale: int = 2,
        detail: int = 16,
        dropout: float = 0.0,
        separable: bool = False,
        skip: bool | None = None,
    ) -> None:
        super().__init__()
        classes = semantic_count(taxonomy)
        self.stride = shapes.strides[0] // upscale
        self.pixels = PyramidSum(shapes.channels, width, separable)
        self.head: SubPixelHead | SubPixelSkipHead
        self._finer = None if skip is False else self._own_stride(shapes, asked=skip is True)
        if self._finer is None:
            self.head = SubPixelHead(width, classes, upscale, detail, dropout)
        else:
            finer = shapes.encoder_channels[self._finer]
            self.head = SubPixelSkipHead(width, finer, classes, upscale, detail, dropout)

    def forward(self, features: Features) -> tuple[Tensor, ...]:
        """Return the logits [B, S, H / stride, W / stride]."""
        pixels = self.pixels(features.maps)
        if self._finer is not None:
            return (self.head(pixels, features.encoder_maps[self._finer]),)
        return (self.head(pixels),)

    def class_rows(self) -> DeclaredRows:
        """Return the rows of the head."""
        return self.head.class_rows("head")

    def _own_stride(self, shapes: Shapes, asked: bool) -> int | None:
        """Return the index of the encoder's map at the logits' stride; None if it has none and none was asked for."""
        index = last_of_each_stride(shapes.encoder_strides).get(self.stride)
        if index is None and asked:
            raise ValueError(
                f"segmentation: skip reads the encoder's map at stride {self.stride}, and its maps have "
                f"{shapes.encoder_strides}; set skip to false, or take another encoder or upscale"
            )
        return index
