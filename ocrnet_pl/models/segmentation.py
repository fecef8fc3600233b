"""Segmentation decoders."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ocrnet_pl.models.base import Features, SegmentationDecoder, Shapes
from ocrnet_pl.models.layers import ConvNorm
from ocrnet_pl.structures import Taxonomy


class SubPixelDecoder(SegmentationDecoder):
    """Sums the neck's maps at the finest stride and refines them below it by sub-pixel convolution.

    The sum is that of Panoptic FPN's semantic branch (Kirillov et al., CVPR 2019); the refinement is that of Shi et
    al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel CNN", CVPR 2016: it gives
    edges finer than the finest map for the price of a pointwise convolution.

    Args:
        shapes: Of the maps; it reads the neck's.
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
        shapes: Shapes,
        taxonomy: Taxonomy,
        width: int = 64,
        upscale: int = 2,
        detail: int = 16,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if taxonomy.num_semantic == 0:
            raise ValueError("segmentation: the taxonomy has no segmentation class; set the decoder to null")
        self.stride = shapes.strides[0] // upscale
        self.project = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in shapes.channels)
        self.fuse = nn.Sequential(nn.BatchNorm2d(width), nn.SiLU(inplace=True), ConvNorm(width, width))
        self.expand = nn.Sequential(
            nn.Conv2d(width, detail * upscale**2, 1, bias=False),
            nn.PixelShuffle(upscale),
            nn.BatchNorm2d(detail),
            nn.SiLU(inplace=True),
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(detail, taxonomy.num_semantic, 3, padding=1)

    def forward(self, features: Features) -> tuple[Tensor, ...]:
        """Return the logits [B, S, H / stride, W / stride]."""
        maps = features.maps
        size = maps[0].shape[-2:]
        total = self.project[0](maps[0])
        # Coarse to fine, so that each map is interpolated once and by a small factor.
        coarse = self.project[-1](maps[-1])
        for project, feature in zip(list(self.project)[-2:0:-1], maps[-2:0:-1], strict=True):
            here = project(feature)
            coarse = here + F.interpolate(coarse, size=here.shape[-2:], mode="bilinear", align_corners=False)
        if len(maps) > 1:
            total = total + F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
        return (self.classify(self.dropout(self.expand(self.fuse(total)))),)
