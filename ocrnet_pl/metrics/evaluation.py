"""All metrics of a validation or a test."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ocrnet_pl.metrics.detection import DetectionMetric, encoded_truth, measured_truth
from ocrnet_pl.metrics.object_limit import ObjectLimit
from ocrnet_pl.metrics.panoptic import PanopticMetric, TrueSegments
from ocrnet_pl.metrics.segmentation import SegmentationMetric
from ocrnet_pl.metrics.shared import OncePerBatch
from ocrnet_pl.structures import Batch, Predictions, Taxonomy


class EvaluationMetrics(nn.Module):
    """The metrics of one stage: those of the raw predictions, and the same after fusion under ``fused_``.

    Args:
        taxonomy: The categories.
        boxes: The network detects.
        pixels: The network segments.
    """

    def __init__(self, taxonomy: Taxonomy, boxes: bool, pixels: bool) -> None:
        super().__init__()

        # The truth is that of the raw and of the fused figures, of boxes and of masks.
        instances = OncePerBatch(encoded_truth if pixels else measured_truth)
        segments = OncePerBatch(TrueSegments(taxonomy))

        def of_predictions() -> nn.ModuleList:
            metrics: list[nn.Module] = []
            if boxes:
                metrics.append(DetectionMetric(taxonomy, true_instances=instances))
            if pixels:
                metrics.append(SegmentationMetric(taxonomy))
            if boxes and pixels:
                metrics.append(PanopticMetric(taxonomy, segments))
                metrics.append(DetectionMetric(taxonomy, masks=True, true_instances=instances))
            return nn.ModuleList(metrics)

        # The data does not change from one epoch to the next: it is told once.
        self._limit: ObjectLimit | None = ObjectLimit()
        self.raw = of_predictions()
        self.fused = of_predictions() if boxes and pixels else nn.ModuleList()

    def update(self, predictions: Predictions, batch: Batch, limits: Sequence[int] | None = None) -> None:
        """Take in one batch.

        Args:
            predictions: Predictions, raw and fused.
            batch: The batch with its truths.
            limits: Largest number of boxes that the network returns for each image; None if there is no limit.
        """
        if limits is not None and self._limit is not None:
            self._limit.update(batch.truths, limits)
        for metric in self.raw:
            metric.update(predictions.raw, batch.truths)  # type: ignore[operator]
        for metric in self.fused:
            metric.update(predictions.fused, batch.truths)  # type: ignore[operator]

    def compute(self) -> dict[str, Tensor]:
        """Return all figures, gathered over all processes, and start again.

        ``score`` is the mean of box mAP and mIoU, after fusion where there is fusion: one figure to choose checkpoints
        by. Of the two, one that there is nothing to measure for (NaN) is left out; without either, the score is NaN.
        """
        values: dict[str, Tensor] = {}
        for prefix, metrics in (("", self.raw), ("fused_", self.fused)):
            for metric in metrics:
                for key, value in metric.compute().items():  # type: ignore[operator]
                    values[prefix + key] = value
                metric.reset()  # type: ignore[operator]
        prefix = "fused_" if self.fused else ""
        parts = [values[key] for key in (f"{prefix}map", f"{prefix}miou") if key in values]
        values["score"] = torch.stack(parts).nanmean()
        return values

    def over_limit(self) -> str | None:
        """Return one line if images have more objects than the network may return, only after the first epoch."""
        if self._limit is None:
            return None
        found = self._limit.compute()
        self._limit = None
        return str(found) if found.images else None

    def confusion(self) -> Tensor | None:
        """Return the last epoch's confusion matrix [S, S], or None without a segmentation decoder."""
        for metric in self.raw:
            if isinstance(metric, SegmentationMetric):
                return metric.confusion
        return None
