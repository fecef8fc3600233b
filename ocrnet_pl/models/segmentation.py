"""Segmentation decoders."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ocrnet_pl.models.base import SegmentationDecoder
from ocrnet_pl.models.layers import ConvNorm
from ocrnet_pl.structures import Taxonomy


class SubPixelDecoder(SegmentationDecoder):
    """Sums the neck's maps at the finest stride and refines them below it by sub-pixel convolution.

    The sum is that of Panoptic FPN's semantic branch (Kirillov et al., CVPR 2019); the refinement is that of Shi et
    al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel CNN", CVPR 2016: it gives
    edges finer than the finest map for the price of a pointwise convolution.

    Args:
        channels: Of the neck's maps.
        strides: Of the neck's maps.
        taxonomy: Gives the class count.
        width: Channels at the finest stride.
        upscale: Side of the sub-pixel block: logits stand at the finest stride divided by it.
        detail: Channels below the finest stride.
        dropout: Share of channels zeroed before the logits.

    Raises:
        ValueError: The taxonomy has no segmentation class.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        taxonomy: Taxonomy,
        width: int = 64,
        upscale: int = 2,
        detail: int = 16,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if taxonomy.num_semantic == 0:
            raise ValueError("segmentation: the taxonomy has no segmentation class; set the decoder to null")
        self.stride = strides[0] // upscale
        self.project = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in channels)
        self.fuse = nn.Sequential(nn.BatchNorm2d(width), nn.SiLU(inplace=True), ConvNorm(width, width))
        self.expand = nn.Sequential(
            nn.Conv2d(width, detail * upscale**2, 1, bias=False),
            nn.PixelShuffle(upscale),
            nn.BatchNorm2d(detail),
            nn.SiLU(inplace=True),
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(detail, taxonomy.num_semantic, 3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the logits [B, S, H / stride, W / stride]."""
        size = features[0].shape[-2:]
        total = self.project[0](features[0])
        # Coarse to fine, so that each map is interpolated once and by a small factor.
        coarse = self.project[-1](features[-1])
        for project, feature in zip(list(self.project)[-2:0:-1], list(features)[-2:0:-1], strict=True):
            here = project(feature)
            coarse = here + F.interpolate(coarse, size=here.shape[-2:], mode="bilinear", align_corners=False)
        if len(features) > 1:
            total = total + F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
        return (self.classify(self.dropout(self.expand(self.fuse(total)))),)
