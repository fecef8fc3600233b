"""A pyramid for models that have none from stride 4 on: plain transformers, and networks that begin at stride 16."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, cat, nn
from torch.nn import functional as F

from ocrnet_pl.models.layers import ConvNorm, SeparableConv

LEVELS = (4, 8, 16, 32)
"""Strides of the pyramid of a plain transformer."""


class PlainPyramid(nn.Module):
    """Four maps of strides 4, 8, 16 and 32 from blocks at a quarter, half, three quarters and the end of the depth.

    Each level resamples one block's map: by a transposed convolution without overlap to finer strides, by pooling to
    coarser ones, as in the simple feature pyramid (Li et al., "Exploring Plain Vision Transformer Backbones for Object
    Detection", ECCV 2022). It reads intermediate blocks as well (Chen et al., "ViT-Adapter", ICLR 2023), because early
    blocks know best where things are. Levels finer than a patch are joined by convolutions on the image itself (Huang
    et al., "Real-Time Object Detection Meets DINOv3", 2025): a patch is as wide as a small object, and its token has
    hardly kept where its edges were. Coarser levels need none.

    A network whose maps are a pyramid, but a coarse one, keeps them: the levels that are finer than its first map are
    made from that map in the same way, and stand before them.

    Args:
        channels: Number of channels of each map, from the first block to the last.
        strides: Stride of each map, a power of two; of a plain transformer from 4 to 32.
        in_channels: Number of channels of the images.
        begun: Whether the maps are the coarse levels of a pyramid, of which only the finer ones are missing.

    Attributes:
        channels: Number of channels of each level, finest first.
        strides: Strides of the levels.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], in_channels: int, begun: bool = False) -> None:
        super().__init__()
        self._made = [level for level in LEVELS if not begun or level < strides[0]]
        width = channels[0] if begun else max(channels)
        outs = [width // 4, width // 2, width, width][: len(self._made)]
        self._read = [0 if begun else level * len(channels) // len(LEVELS) for level in range(len(self._made))]
        self._kept = begun
        self.channels = [*outs, *(channels if begun else ())]
        self.strides = [*self._made, *(strides if begun else ())]
        self.norm = nn.ModuleList(nn.LayerNorm(channels[i]) for i in self._read)
        self.resample = nn.ModuleList(
            _resample(channels[i], out, strides[i], level)
            for i, out, level in zip(self._read, outs, self._made, strict=True)
        )
        finer = sum(level < strides[i] for i, level in zip(self._read, self._made, strict=True))
        details = [max(16, out // 4) for out in outs[:finer]]
        self.detail = nn.ModuleList()
        before = 0
        for level, out in enumerate(details):
            stem = [] if level else [ConvNorm(in_channels, out, 3, stride=2)]
            self.detail.append(nn.Sequential(*stem, SeparableConv(before or out, out, 3, stride=2)))
            before = out
        details += [0] * (len(outs) - finer)
        self.join = nn.ModuleList(ConvNorm(out + detail, out, 1) for out, detail in zip(outs, details, strict=True))

    def forward(self, images: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the levels, finest first.

        Args:
            images: Normalised images [B, C, H, W], whose sides are multiples of the strides.
            maps: The blocks' maps [B, channels[i], h, w] in any grid; kept maps in that of their stride.
        """
        height, width = images.shape[-2:]
        levels = []
        fine = images
        for level, (stride, read) in enumerate(zip(self._made, self._read, strict=True)):
            tokens = self.norm[level](maps[read].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            feature = on_grid(self.resample[level](tokens), (height // stride, width // stride))
            if level < len(self.detail):
                fine = self.detail[level](fine)
                feature = cat((feature, fine), 1)
            levels.append(self.join[level](feature))
        return [*levels, *maps] if self._kept else levels


def on_grid(feature: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a map at this (height, width), resampled only if it has another."""
    if feature.shape[-2:] == size:
        return feature
    return F.interpolate(feature, size, mode="bilinear", align_corners=False)


def _resample(channels: int, out: int, stride: int, level: int) -> nn.Module:
    """Return what takes a map of this many channels and this stride to ``out`` channels and the level's stride."""
    project = nn.Conv2d(channels, out, 1, bias=False)
    if level < stride:
        return nn.Sequential(project, nn.ConvTranspose2d(out, out, stride // level, stride // level, bias=False))
    if level > stride:
        return nn.Sequential(nn.MaxPool2d(level // stride), project)
    return project
