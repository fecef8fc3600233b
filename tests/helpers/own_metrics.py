"""Metrics as a user writes them."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ocrnet_pl.metrics.base import Metric
from ocrnet_pl.metrics.figures import Figure
from ocrnet_pl.structures import Prediction, Sample, Taxonomy


class FoundBoxes(Metric):
    """The share of true boxes that any predicted box overlaps, whatever its class: sums, and one figure."""

    figures = (Figure("found_boxes", "boxes found, any class"),)
    found: Tensor
    total: Tensor

    def __init__(self, taxonomy: Taxonomy, iou: float = 0.1) -> None:
        super().__init__(taxonomy)
        self.iou = iou
        for name in ("found", "total"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: list[Prediction], truths: list[Sample]) -> None:
        for prediction, truth in zip(predictions, truths, strict=True):
            boxes = torch.as_tensor(truth.boxes)[~truth.crowd]
            overlaps = box_iou(boxes, prediction.boxes.cpu())
            self.found += (overlaps > self.iou).any(1).sum()
            self.total += len(boxes)

    def compute(self) -> Tensor:
        return self.found / self.total


class CountError(Metric):
    """By how much the sum of scores is off: a list of [images, 2], a figure of which less is better, one per class."""

    figures = (
        Figure("count_error", "wrong number of boxes", higher_is_better=False),
        Figure("seen_per_class", "boxes", per_class=True),
    )
    counts: list[Tensor] | Tensor

    def __init__(self, taxonomy: Taxonomy) -> None:
        super().__init__(taxonomy)
        self.add_state("counts", [], dist_reduce_fx="cat")
        self.add_state("seen", torch.zeros(taxonomy.num_detection), dist_reduce_fx="sum")

    def update(self, predictions: list[Prediction], truths: list[Sample]) -> None:
        for prediction, truth in zip(predictions, truths, strict=True):
            self.counts.append(torch.tensor([[float(prediction.scores.double().sum()), len(truth.labels)]]).double())
            self.seen += torch.bincount(prediction.labels.cpu(), minlength=len(self.seen))

    def compute(self) -> dict[str, Tensor]:
        counts = torch.cat(self.counts) if isinstance(self.counts, list) and self.counts else self.counts
        error = counts.double().diff(dim=1).abs().mean() if len(counts) else torch.tensor(torch.nan)
        names = [category.name for category in self.taxonomy.detection_categories]
        return {"count_error": error, **{f"seen_per_class/{n}": s for n, s in zip(names, self.seen, strict=True)}}
