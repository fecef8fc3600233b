"""Detection decoders."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocrnet_pl.models.base import DetectionDecoder
from ocrnet_pl.models.layers import SeparableConv
from ocrnet_pl.structures import DetectionOutput, Taxonomy

PRIOR = 0.01
"""The probability of an object at a candidate before training (Lin et al., "Focal Loss", ICCV 2017)."""


def make_points(grids: Sequence[tuple[int, int, int]], like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cell centres (x, y) [A, 2] and strides [A] of the levels, in input pixels.

    Args:
        grids: (height, width, stride) a level.
        like: Gives the device.
    """
    points, strides = [], []
    for height, width, stride in grids:
        y = (torch.arange(height, device=like.device, dtype=torch.float32) + 0.5) * stride
        x = (torch.arange(width, device=like.device, dtype=torch.float32) + 0.5) * stride
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        points.append(torch.stack((grid_x, grid_y), -1).reshape(-1, 2))
        strides.append(torch.full((height * width,), float(stride), device=like.device))
    return torch.cat(points), torch.cat(strides)


class AnchorFreeDecoder(DetectionDecoder):
    """One candidate a cell and level: its distances to the four box sides, a confidence, and class scores.

    After Tian et al., "FCOS", ICCV 2019, with a confidence that estimates the box's IoU (Jiang et al., "IoU-Net",
    ECCV 2018). Each level has its own two towers, one for the box and one for confidence and class.

    Args:
        channels: Of the neck's maps.
        strides: Of the neck's maps.
        taxonomy: Gives the class count.
        max_stride: Coarsest level to detect on; coarser maps are not used.
        min_stride: Finest level to detect on; finer maps are not used.
        depth: Convolutions a tower.
        exclusive_classes: Class scores are a softmax over the classes, as a cross-entropy loss wants; by default
            each is a sigmoid of its own, as the binary losses want.

    Raises:
        ValueError: No map lies between the strides, or the taxonomy has no detection class.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        taxonomy: Taxonomy,
        max_stride: int = 32,
        min_stride: int = 4,
        depth: int = 1,
        exclusive_classes: bool = False,
    ) -> None:
        super().__init__()
        self._levels = [i for i, stride in enumerate(strides) if min_stride <= stride <= max_stride]
        if not self._levels:
            raise ValueError(
                f"detection: the neck's strides are {list(strides)}, none from {min_stride} to {max_stride}"
            )
        if taxonomy.num_detection == 0:
            raise ValueError("detection: the taxonomy has no detection class; set the detection decoder to null")
        self._strides = [strides[i] for i in self._levels]
        self.exclusive_classes = exclusive_classes
        widths = [channels[i] for i in self._levels]
        self.box_tower = nn.ModuleList(self._tower(width, depth) for width in widths)
        self.class_tower = nn.ModuleList(self._tower(width, depth) for width in widths)
        self.box_head = nn.ModuleList(nn.Conv2d(width, 4, 1) for width in widths)
        self.class_head = nn.ModuleList(nn.Conv2d(width, 1 + taxonomy.num_detection, 1) for width in widths)
        for box_head, class_head in zip(self.box_head, self.class_head, strict=True):
            nn.init.normal_(box_head.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.constant_(box_head.bias, 1.0)  # type: ignore[arg-type]
            nn.init.normal_(class_head.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.constant_(class_head.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]

    @staticmethod
    def _tower(width: int, depth: int) -> nn.Sequential:
        return nn.Sequential(*(SeparableConv(width, width) for _ in range(depth)))

    def forward(self, features: Sequence[Tensor]) -> DetectionOutput:
        """Return the candidates of all levels; boxes may reach past the image's edges."""
        distances, logits, grids = [], [], []
        for index, level in enumerate(self._levels):
            feature = features[level]
            box = self.box_head[index](self.box_tower[index](feature))
            score = self.class_head[index](self.class_tower[index](feature))
            distances.append(box.flatten(2))
            logits.append(score.flatten(2))
            grids.append((feature.shape[-2], feature.shape[-1], self._strides[index]))
        points, strides = make_points(grids, features[0])
        # Pixel coordinates need more digits than half precision has.
        reach = F.softplus(torch.cat(distances, 2).transpose(1, 2).float()) * strides[:, None]
        boxes = torch.cat((points - reach[..., :2], points + reach[..., 2:]), -1)
        joined = torch.cat(logits, 2).transpose(1, 2).float()
        confidence, classes = joined[..., 0], joined[..., 1:]
        return DetectionOutput(
            boxes, confidence, classes, self._scores(confidence, classes), points, strides, tuple(grids)
        )

    def _scores(self, confidence: Tensor, classes: Tensor) -> Tensor:
        probability = classes.softmax(-1) if self.exclusive_classes else classes.sigmoid()
        # The geometric mean keeps the scale of its factors, so that score thresholds keep their meaning.
        return (confidence.sigmoid()[..., None] * probability).clamp(min=1e-12).sqrt()
