"""Assignment: which candidate learns which box."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ocrnet_pl.losses.boxes import paired_iou
from ocrnet_pl.structures import Batch, DetectionOutput


class Assignment(NamedTuple):
    """Pairs of a box and a candidate, P an image (a fixed number, whatever the boxes).

    Attributes:
        candidates: int64 [B, P], indices of candidates.
        boxes: int64 [B, P], rows of the batch's boxes.
        positive: bool [B, P]; only these pairs count. No candidate stands in two of them.
        quality: float32 [B, P], 0 to 1: how well the candidate does for its box, relative to the box's best.
    """

    candidates: Tensor
    boxes: Tensor
    positive: Tensor
    quality: Tensor


class Assigner(nn.Module, ABC):
    """Chooses for each box the candidates that learn it."""

    @abstractmethod
    def forward(self, detection: DetectionOutput, batch: Batch) -> Assignment:
        """Return the pairs; no gradient flows through them."""


def window_candidates(boxes: Tensor, grids: tuple[tuple[int, int, int], ...], reach: int) -> tuple[Tensor, Tensor]:
    """Return the candidates in a square window around each box's centre, on every level.

    Looking at these alone makes the cost of an assignment independent of the image's size.

    Args:
        boxes: float [B, M, 4], xyxy.
        grids: (height, width, stride) a level.
        reach: Cells to each side of the centre's cell.

    Returns:
        Indices int64 [B, M, L * (2 * reach + 1) ** 2], clamped into the level, and whether each stands for itself,
        bool of the same shape.
    """
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2
    steps = torch.arange(-reach, reach + 1, device=boxes.device)
    offset_y, offset_x = (g.reshape(-1) for g in torch.meshgrid(steps, steps, indexing="ij"))
    indices, inside = [], []
    start = 0
    for height, width, stride in grids:
        column = (centers[..., 0:1] / stride).floor().long() + offset_x
        row = (centers[..., 1:2] / stride).floor().long() + offset_y
        inside.append((column >= 0) & (column < width) & (row >= 0) & (row < height))
        indices.append(start + row.clamp(0, height - 1) * width + column.clamp(0, width - 1))
        start += height * width
    return torch.cat(indices, -1), torch.cat(inside, -1)


def gather_rows(values: Tensor, indices: Tensor) -> Tensor:
    """Return ``values[b, indices[b, ...]]`` for values [B, N, C] and indices [B, ...] as [B, ..., C]."""
    flat = indices.flatten(1)
    rows = values.gather(1, flat[..., None].expand(-1, -1, values.shape[-1]))
    return rows.view(*indices.shape, values.shape[-1])


def resolve_conflicts(candidates: Tensor, positive: Tensor, preference: Tensor, num_candidates: int) -> Tensor:
    """Keep, of the pairs that share a candidate, the one with the highest preference, the first on a tie.

    Args:
        candidates: int64 [B, P].
        positive: bool [B, P].
        preference: float [B, P], not negative.
        num_candidates: Per image.

    Returns:
        bool [B, P], no candidate twice.
    """
    batch, pairs = candidates.shape
    # The bits of a float that is not negative grow with it: one number holds the preference and, below it, the order.
    order = torch.arange(pairs - 1, -1, -1, device=candidates.device)
    key = torch.where(positive, (preference.float().view(torch.int32).long() << 32) + order, -1)
    best = key.new_full((batch, num_candidates), -1).scatter_reduce(1, candidates, key, "amax")
    return positive & (key == best.gather(1, candidates))


class TaskAlignedAssigner(Assigner):
    """Gives each box the candidates inside it that score and locate it best.

    Feng et al., "TOOD: Task-aligned One-stage Object Detection", ICCV 2021. Only candidates in a window around the
    box's centre are looked at.

    Args:
        topk: Candidates a box.
        alpha: Exponent of the score.
        beta: Exponent of the IoU.
        reach: Cells to each side of the centre's cell, on every level.
    """

    def __init__(self, topk: int = 10, alpha: float = 0.5, beta: float = 6.0, reach: int = 3) -> None:
        super().__init__()
        self.topk = topk
        self.alpha = alpha
        self.beta = beta
        self.reach = reach

    @torch.no_grad()
    def forward(self, detection: DetectionOutput, batch: Batch) -> Assignment:
        """Return ``topk`` pairs a box; boxes smaller than a cell may have fewer positive ones."""
        boxes, labels = batch.boxes.float(), batch.labels
        indices, exists = window_candidates(boxes, detection.grids, self.reach)
        points = detection.points[indices]
        inside = ((points > boxes[:, :, None, :2]) & (points < boxes[:, :, None, 2:])).all(-1)
        # A box that covers no cell centre still wants a teacher: its nearest cells stand in.
        centers = (boxes[..., :2] + boxes[..., 2:]) / 2
        near = ((points - centers[:, :, None]).abs() <= detection.strides[indices][..., None] / 2).all(-1)
        eligible = exists & (inside | near) & batch.valid[..., None]
        predicted = gather_rows(detection.boxes.detach().float(), indices)
        iou = paired_iou(predicted, boxes[:, :, None])
        batch_index = torch.arange(len(boxes), device=boxes.device)[:, None, None]
        score = detection.scores.detach().float()[batch_index, indices, labels[..., None]]
        metric = score.pow(self.alpha) * iou.pow(self.beta)
        ranked, order = torch.where(eligible, metric, -1.0).topk(min(self.topk, metric.shape[-1]), -1)
        candidates = indices.gather(-1, order).flatten(1)
        chosen_iou = iou.gather(-1, order)
        rows = torch.arange(boxes.shape[1], device=boxes.device)[None, :, None].expand_as(order).flatten(1)
        positive = (ranked >= 0).flatten(1)
        positive = resolve_conflicts(candidates, positive, chosen_iou.flatten(1), detection.points.shape[0])
        # TOOD's normalisation: the best candidate of a box gets its IoU as the target, the others their share.
        alive = positive.view_as(ranked)
        metric = torch.where(alive, ranked, 0.0)
        best_metric = metric.amax(-1, keepdim=True).clamp(min=1e-9)
        best_iou = torch.where(alive, chosen_iou, 0.0).amax(-1, keepdim=True)
        quality = (metric / best_metric * best_iou).flatten(1)
        return Assignment(candidates, rows, positive, quality)


class CenterAssigner(Assigner):
    """Gives each box the cells around its centre on the level that fits its size, whatever the network says.

    After Redmon et al., "You Only Look Once", CVPR 2016, on several levels as in Tian et al., "FCOS", ICCV 2019.

    Args:
        cells: The level is the one whose stride times this is nearest to the box's size, on a log scale.
        reach: Cells to each side of the centre's cell.
    """

    def __init__(self, cells: float = 4.0, reach: int = 1) -> None:
        super().__init__()
        self.cells = cells
        self.reach = reach

    @torch.no_grad()
    def forward(self, detection: DetectionOutput, batch: Batch) -> Assignment:
        """Return the pairs with quality 1."""
        boxes = batch.boxes.float()
        indices, exists = window_candidates(boxes, detection.grids, self.reach)
        side = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1.0).prod(-1).sqrt()
        # From what is on the device already: numbers from the host would make it wait.
        starts = [0, *accumulate(height * width for height, width, _ in detection.grids[:-1])]
        level_strides = torch.stack([detection.strides[start] for start in starts])
        level = (side[..., None] / (self.cells * level_strides)).log().abs().argmin(-1)
        fits = detection.strides[indices] == level_strides[level][..., None]
        points = detection.points[indices]
        centers = (boxes[..., :2] + boxes[..., 2:]) / 2
        distance = (points - centers[:, :, None]).abs().amax(-1)
        inside = ((points > boxes[:, :, None, :2]) & (points < boxes[:, :, None, 2:])).all(-1)
        own_cell = distance <= detection.strides[indices] / 2
        positive = (exists & fits & (inside | own_cell) & batch.valid[..., None]).flatten(1)
        rows = torch.arange(boxes.shape[1], device=boxes.device)[None, :, None].expand_as(indices).flatten(1)
        candidates = indices.flatten(1)
        closeness = 1.0 / (1.0 + distance.flatten(1))
        positive = resolve_conflicts(candidates, positive, closeness, detection.points.shape[0])
        return Assignment(candidates, rows, positive, positive.float())
