"""Assignment: which candidate learns which box."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ocrnet_pl.losses.boxes import paired_iou
from ocrnet_pl.storage.recording import Recorded
from ocrnet_pl.structures import Batch, DetectionOutput


class Assignment(NamedTuple):
    """Pairs of a box and a candidate. Each image has P pairs, a fixed number that does not depend on its boxes.

    Attributes:
        candidates: int64 [B, P], indices of candidates.
        boxes: int64 [B, P], rows of the batch's boxes.
        positive: bool [B, P]. Only pairs with true here count; each candidate is in at most one of them.
        quality: float32 [B, P], 0 to 1: how well the candidate predicts its box, relative to the best candidate of that
            box.
    """

    candidates: Tensor
    boxes: Tensor
    positive: Tensor
    quality: Tensor


class Assigner(Recorded, nn.Module, ABC):
    """Chooses for each box the candidates that learn it."""

    @abstractmethod
    def forward(self, detection: DetectionOutput, batch: Batch) -> Assignment:
        """Return the pairs; no gradient flows through them."""


def window_candidates(boxes: Tensor, grids: tuple[tuple[int, int, int], ...], reach: int) -> tuple[Tensor, Tensor]:
    """Return the candidates in a square window around each box's centre, on every level.

    The cost of an assignment does not grow with the image's size, because only these candidates are considered.

    Args:
        boxes: float [B, M, 4], xyxy.
        grids: (height, width, stride) of each level.
        reach: Number of cells to each side of the cell at the box's centre.

    Returns:
        Indices int64 [B, M, L * (2 * reach + 1) ** 2], clamped to the level, and a bool tensor of the same shape that
        is false where a cell was outside the level.
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
    """Keep only the pair with the highest preference where several share a candidate; on a tie, the first one.

    Args:
        candidates: int64 [B, P], the candidate of each pair.
        positive: bool [B, P], the pairs that compete.
        preference: float [B, P], not negative.
        num_candidates: Number of candidates per image.

    Returns:
        bool [B, P], in which no candidate is true twice.
    """
    batch, pairs = candidates.shape
    # For floats that are not negative, larger values have larger bit patterns: one integer holds the preference and, in
    # its lower bits, the order.
    order = torch.arange(pairs - 1, -1, -1, device=candidates.device)
    key = torch.where(positive, (preference.float().view(torch.int32).long() << 32) + order, -1)
    best = key.new_full((batch, num_candidates), -1).scatter_reduce(1, candidates, key, "amax")
    return positive & (key == best.gather(1, candidates))


class TaskAlignedAssigner(Assigner):
    """Gives each box the candidates inside it that score and locate it best.

    Feng et al., "TOOD: Task-aligned One-stage Object Detection", ICCV 2021. Only candidates in a window around the
    box's centre are considered.

    Args:
        topk: Largest number of candidates per box.
        alpha: Exponent of the score in the ranking of candidates.
        beta: Exponent of the IoU in the ranking of candidates.
        reach: Number of cells to each side of the cell at the box's centre, on every level, in which candidates are
            considered.
    """

    def __init__(self, topk: int = 10, alpha: float = 0.5, beta: float = 6.0, reach: int = 3) -> None:
        super().__init__()
        self.topk = topk
        self.alpha = alpha
        self.beta = beta
        self.reach = reach

    @torch.no_grad()
    def forward(self, detection: DetectionOutput, batch: Batch) -> Assignment:
        """Return ``topk`` pairs per box; fewer of them may be positive for boxes smaller than a cell."""
        boxes, labels = batch.boxes.float(), batch.labels
        indices, exists = window_candidates(boxes, detection.grids, self.reach)
        points = detection.points[indices]
        inside = ((points > boxes[:, :, None, :2]) & (points < boxes[:, :, None, 2:])).all(-1)
        # A box that covers no cell centre still needs candidates: the nearest cells are used.
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
        # TOOD's normalisation: the best candidate of a box gets its IoU as the target, the others a proportional part.
        alive = positive.view_as(ranked)
        metric = torch.where(alive, ranked, 0.0)
        best_metric = metric.amax(-1, keepdim=True).clamp(min=1e-9)
        best_iou = torch.where(alive, chosen_iou, 0.0).amax(-1, keepdim=True)
        quality = (metric / best_metric * best_iou).flatten(1)
        return Assignment(candidates, rows, positive, quality)


class CenterAssigner(Assigner):
    """Gives each box the cells around its centre on the level that fits its size, regardless of the predictions.

    After Redmon et al., "You Only Look Once", CVPR 2016, on several levels as in Tian et al., "FCOS", ICCV 2019.

    Args:
        cells: Preferred box size in cells: the level whose stride times this is nearest to the box's size, on a log
            scale, is used.
        reach: Number of cells to each side of the cell at the box's centre that learn the box.
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
        # Built from tensors that are already on the device: numbers from the host would make it wait.
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
