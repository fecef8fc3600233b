"""Detection decoders."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocrnet_pl.models.base import ClassRows, DeclaredRows, DetectionDecoder, layer_rows
from ocrnet_pl.models.layers import SeparableConv, SharedTower
from ocrnet_pl.structures import DetectionOutput, Taxonomy

PRIOR = 0.01
"""The probability of an object at a candidate before training (Lin et al., "Focal Loss", ICCV 2017)."""

START = 1.0
"""The box head's output before training: a softplus of 1.3 strides."""

BranchFactory = Callable[[list[int], list[int], Taxonomy], DetectionDecoder]
"""Makes a detection decoder from the neck's channels and strides and the taxonomy."""


def make_points(grids: Sequence[tuple[int, int, int]], like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cell centres (x, y) [A, 2] and strides [A] of the levels, in input pixels.

    Args:
        grids: (height, width, stride) of each level.
        like: Tensor on the device where the result is made.
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
    """One candidate per cell and level: its distances to the four box sides, a confidence, and class scores.

    After Tian et al., "FCOS", ICCV 2019, with a confidence that estimates the box's IoU (Jiang et al., "IoU-Net",
    ECCV 2018). Each level has its own two towers, one for the box and one for confidence and class, unless they are
    shared. Distances are the means of distributions over whole strides (Li et al., "Generalized Focal Loss", NeurIPS
    2020), or regressed directly.

    Args:
        channels: Number of channels of each of the neck's maps; set by the network.
        strides: Stride of each of the neck's maps; set by the network.
        taxonomy: The categories, which give the number of classes; set from the data.
        max_stride: Coarsest stride to detect on; coarser maps are not used.
        min_stride: Finest stride to detect on; finer maps are not used.
        depth: Number of convolutions per tower.
        exclusive_classes: True makes the class scores a softmax over the classes, as a cross-entropy loss needs; false
            gives each class its own sigmoid, as the binary losses need.
        shared: True uses one pair of towers and heads for all levels; each level keeps its own normalisation and its
            own factor on the box head's output.
        bins: Number of bins of the distribution of each distance, which stand for 0 to ``bins - 1`` strides; at least
            2. No side can be farther from a candidate than ``bins - 1`` strides. Null regresses the distances directly,
            without a limit.

    Raises:
        ValueError: No map is between the strides, the taxonomy has no detection class, ``bins`` is below 2, or towers
            are shared among maps of different widths.
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
        shared: bool = False,
        bins: int | None = 16,
    ) -> None:
        super().__init__()
        self._levels = [i for i, stride in enumerate(strides) if min_stride <= stride <= max_stride]
        if not self._levels:
            raise ValueError(
                f"detection: the neck's strides are {list(strides)}, none from {min_stride} to {max_stride}"
            )
        if taxonomy.num_detection == 0:
            raise ValueError("detection: the taxonomy has no detection class; set the detection decoder to null")
        if bins is not None and bins < 2:
            raise ValueError(f"detection: bins is {bins}; give at least 2, or null to regress distances directly")
        self._strides = [strides[i] for i in self._levels]
        self.exclusive_classes = exclusive_classes
        self.shared = shared
        self.bins = bins
        widths = [channels[i] for i in self._levels]
        if shared and len(set(widths)) > 1:
            raise ValueError(f"detection: the neck's maps have {widths} channels; shared towers need one width")
        self.box_tower = self._towers(widths, depth)
        self.class_tower = self._towers(widths, depth)
        heads = widths[:1] if shared else widths
        self.box_head = nn.ModuleList(nn.Conv2d(width, 4 * (bins or 1), 1) for width in heads)
        self.class_head = nn.ModuleList(nn.Conv2d(width, 1 + taxonomy.num_detection, 1) for width in heads)
        for box_head, class_head in zip(self.box_head, self.class_head, strict=True):
            nn.init.normal_(box_head.weight, std=0.01)  # type: ignore[arg-type]
            self._start_small(box_head.bias)  # type: ignore[arg-type]
            nn.init.normal_(class_head.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.constant_(class_head.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]
        if shared:
            self.factor = nn.Parameter(torch.ones(len(widths)))

    def _towers(self, widths: Sequence[int], depth: int) -> SharedTower | nn.ModuleList:
        if self.shared:
            return SharedTower(widths[0], depth, len(widths))
        return nn.ModuleList(nn.Sequential(*(SeparableConv(w, w) for _ in range(depth))) for w in widths)

    def _start_small(self, bias: nn.Parameter) -> None:
        """Let boxes begin about 2.6 strides wide with either regression: most objects are small on their level."""
        nn.init.constant_(bias, START)
        if self.bins is not None:
            # A geometric distribution of that mean; a uniform one would begin ``bins - 1`` strides wide.
            mean = math.log1p(math.exp(START))
            steps = torch.arange(self.bins, dtype=torch.float32) * math.log(mean / (1 + mean))
            bias.data.copy_(steps.repeat(4))

    def forward(self, features: Sequence[Tensor]) -> DetectionOutput:
        """Return the candidates of all levels; boxes may extend beyond the image's edges."""
        sides, logits, grids = [], [], []
        for index, level in enumerate(self._levels):
            feature = features[level]
            box, score = self._heads(feature, index)
            sides.append(box.flatten(2))
            logits.append(score.flatten(2))
            grids.append((feature.shape[-2], feature.shape[-1], self._strides[index]))
        points, strides = make_points(grids, features[0])
        # Pixel coordinates need more digits than half precision has.
        joined_sides = torch.cat(sides, 2).float()
        if self.bins is None:
            distribution, distances = None, F.softplus(joined_sides).transpose(1, 2)
        else:
            # The cells stay side by side in memory, as the convolutions leave them.
            logs = joined_sides.unflatten(1, (4, self.bins))
            values = torch.arange(self.bins, device=logs.device, dtype=torch.float32)
            distances = (logs.softmax(2) * values[:, None]).sum(2).transpose(1, 2)
            distribution = logs.permute(0, 3, 1, 2)
        reach = distances * strides[:, None]
        boxes = torch.cat((points - reach[..., :2], points + reach[..., 2:]), -1)
        joined = torch.cat(logits, 2).transpose(1, 2).float()
        confidence, classes = joined[..., 0], joined[..., 1:]
        scores = self._scores(confidence, classes)
        return DetectionOutput(boxes, confidence, classes, scores, points, strides, tuple(grids), distribution)

    def class_rows(self) -> DeclaredRows:
        """Return the rows of the class heads, whose first output is the confidence."""
        rows: dict[str, Sequence[ClassRows]] = {}
        for index in range(len(self.class_head)):
            rows |= layer_rows(f"class_head.{index}", "detection", first=1)
        return rows

    def _heads(self, feature: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Return the box head's and the class head's output on one level."""
        if self.shared:
            box = self.box_head[0](self.box_tower(feature, index)) * self.factor[index]
            return box, self.class_head[0](self.class_tower(feature, index))
        boxes, classes = cast(nn.ModuleList, self.box_tower), cast(nn.ModuleList, self.class_tower)
        return self.box_head[index](boxes[index](feature)), self.class_head[index](classes[index](feature))

    def _scores(self, confidence: Tensor, classes: Tensor) -> Tensor:
        probability = classes.softmax(-1) if self.exclusive_classes else classes.sigmoid()
        # The geometric mean has the scale of its factors, so that score thresholds keep their meaning.
        return (confidence.sigmoid()[..., None] * probability).clamp(min=1e-12).sqrt()


class OneToOneDecoder(DetectionDecoder):
    """Two decoders of one kind: one learns a single candidate per box, the other many; only the first one predicts.

    After Wang et al., "YOLOv10: Real-Time End-to-End Object Detection", NeurIPS 2024. The first branch learns what
    suppression does otherwise. The second one trains the maps that both share, and costs nothing in evaluation. The
    first does not change the maps: its gradient ends there. Set ``iou_threshold`` of the postprocess's ``Decode`` to
    null, and give the task a loss that trains both branches, such as ``OneToOneDetectionLoss``.

    Args:
        channels: Number of channels of each of the neck's maps; set by the network.
        strides: Stride of each of the neck's maps; set by the network.
        taxonomy: The categories, which give the number of classes; set from the data.
        decoder: Makes each of the two decoders from the same channels, strides and taxonomy.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        taxonomy: Taxonomy,
        decoder: BranchFactory = AnchorFreeDecoder,
    ) -> None:
        super().__init__()
        self.one_to_many = decoder(list(channels), list(strides), taxonomy)
        self.one_to_one = decoder(list(channels), list(strides), taxonomy)
        self.exclusive_classes = self.one_to_one.exclusive_classes

    def forward(self, features: Sequence[Tensor]) -> DetectionOutput:
        """Return the one-to-one candidates; in training, the one-to-many candidates are attached to them."""
        if not self.training:
            return self.one_to_one(features)  # type: ignore[no-any-return]
        single: DetectionOutput = self.one_to_one([feature.detach() for feature in features])
        return single._replace(one_to_many=self.one_to_many(features))

    def class_rows(self) -> DeclaredRows | None:
        """Return the rows of both branches; None if their decoder declares none."""
        rows: dict[str, Sequence[ClassRows]] = {}
        for name, branch in self.named_children():
            own = cast(DetectionDecoder, branch).class_rows()
            if own is None:
                return None
            rows |= {f"{name}.{tensor}": classes for tensor, classes in own.items()}
        return rows
