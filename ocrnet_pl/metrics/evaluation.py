"""All metrics of a validation or a test."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ocrnet_pl.errors import one_line
from ocrnet_pl.metrics.background import Background
from ocrnet_pl.metrics.base import Metric, MetricFactory
from ocrnet_pl.metrics.detection import DetectionMetric
from ocrnet_pl.metrics.errors.record import ErrorRecord
from ocrnet_pl.metrics.figures import BY_NAME, FIGURES, FUSED, Figure
from ocrnet_pl.metrics.image_match import Matching, TrueObjects
from ocrnet_pl.metrics.object_limit import ObjectLimit
from ocrnet_pl.metrics.panoptic import PanopticMetric
from ocrnet_pl.metrics.runs import Overlay
from ocrnet_pl.metrics.segmentation import SegmentationMetric
from ocrnet_pl.metrics.shared import OncePerBatch
from ocrnet_pl.structures import Batch, Predictions, Sample, Taxonomy

Each = TypeVar("Each")


class EvaluationMetrics:
    """The metrics of one stage: those of the raw predictions, and the same after fusion under ``fused_``.

    They are no part of the module that they evaluate, so that they stay on the CPU, where predictions arrive, and work
    in a thread of their own, while the network is busy with the next batch.

    Args:
        taxonomy: Categories of the data.
        boxes: Whether the network detects.
        pixels: Whether the network segments.
        own: Classes or factories of additional metrics.

    Attributes:
        figures: All figures that may be logged, the package's own first.
        errors: Records where the network errs; None unless :meth:`record_errors` was called.

    Raises:
        ValueError: The name of an additional figure is taken, or a metric does not compute the figures it declares.
    """

    def __init__(self, taxonomy: Taxonomy, boxes: bool, pixels: bool, own: Sequence[MetricFactory] = ()) -> None:
        self.figures = (*FIGURES, *_checked([make(taxonomy) for make in own]))

        self.errors: ErrorRecord | None = None
        self._taxonomy = taxonomy
        self._count_own = len(own)
        self._background = Background()
        # The truth is that of the raw and of the fused figures, of boxes and of masks.
        objects = OncePerBatch(TrueObjects.of)

        def of_predictions() -> list[Metric]:
            metrics: list[Metric] = []
            overlays = OncePerBatch(Overlay.of)
            if boxes:
                metrics.append(DetectionMetric(taxonomy, matching=Matching(true_objects=objects)))
            if pixels:
                metrics.append(SegmentationMetric(taxonomy, overlays))
            if boxes and pixels:
                metrics.append(PanopticMetric(taxonomy, overlays))
                metrics.append(DetectionMetric(taxonomy, True, matching=Matching(True, objects, overlays)))
            return [*metrics, *(make(taxonomy) for make in own)]

        # The data does not change from one epoch to the next: it is told once.
        self._limit: ObjectLimit | None = ObjectLimit()
        self.raw = of_predictions()
        self.fused = of_predictions() if boxes and pixels else []

    def update(self, predictions: Predictions, batch: Batch, limits: Sequence[int] | None = None) -> None:
        """Take in one batch, some time before :meth:`compute` is called.

        What a metric raises is raised with a later batch, or by :meth:`compute`.

        Args:
            predictions: Predictions, raw and fused.
            batch: The batch with its truths.
            limits: Largest number of boxes that the network returns for each image; None if there is no limit.
        """
        self._background.do(lambda: self._update(predictions, batch.truths, limits))

    def record_errors(self, score: float, pictures: int) -> None:
        """Record the errors of the next evaluation, for :attr:`errors` to be analysed after :meth:`compute`.

        Args:
            score: Smallest score of boxes that count where a threshold is needed, 0 to 1.
            pictures: Number of images of each gallery.
        """
        self.errors = ErrorRecord(self.raw, self.fused, self._taxonomy, score, pictures)

    def wait(self) -> None:
        """Wait until all batches are taken in."""
        self._background.finish()

    def _update(self, predictions: Predictions, truths: Sequence[Sample], limits: Sequence[int] | None) -> None:
        if limits is not None and self._limit is not None:
            self._limit.update(truths, limits)
        # An image without any label may only keep a process busy, and is none of the set.
        labelled = [bool(t.supervision.detection.any() or t.supervision.semantic.any()) for t in truths]
        if not any(labelled):
            return

        def chosen(images: Sequence[Each]) -> list[Each]:
            return [each for each, counts in zip(images, labelled, strict=True) if counts]

        # The same lists for all metrics, by which they know the same batch.
        kept = chosen(truths)
        found = {"": chosen(predictions.raw), FUSED: chosen(predictions.fused or []) if self.fused else []}
        for prefix, metric in self._metrics():
            metric.update(found[prefix], kept)
        if self.errors is not None:
            self.errors.update(found[""], found[FUSED], kept)

    def compute(self) -> dict[str, Tensor]:
        """Return all figures, gathered over all processes, and start again.

        ``score`` is the mean of box mAP and mIoU, after fusion where there is fusion: one figure to choose checkpoints
        by. Of the two, one that there is nothing to measure for (NaN) is left out; without either, the score is NaN.
        """
        self._background.finish()
        values: dict[str, Tensor] = {}
        for prefix, metric in self._metrics():
            values |= {prefix + key: value for key, value in metric.computed().items()}
            metric.reset()
        prefix = FUSED if self.fused else ""
        parts = [values[key] for key in (f"{prefix}map", f"{prefix}miou") if key in values]
        values["score"] = torch.stack(parts).nanmean()
        return values

    @property
    def own(self) -> list[Metric]:
        """The additional metrics of the raw predictions."""
        return [metric for _, metric in self._metrics()][len(self.raw) - self._count_own : len(self.raw)]

    def names(self) -> list[str]:
        """Return the names of all that :meth:`compute` returns."""
        self._background.finish()
        with warnings.catch_warnings():
            # The names do not depend on what was seen.
            warnings.simplefilter("ignore")
            return list(copy.deepcopy(self).compute())

    def _metrics(self) -> Iterator[tuple[str, Metric]]:
        """Yield all metrics, each with what the names of its figures begin with."""
        for prefix, metrics in (("", self.raw), (FUSED, self.fused)):
            for metric in metrics:
                yield prefix, metric

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


def _checked(metrics: Sequence[Metric]) -> list[Figure]:
    """Return the figures of additional metrics, after trying each before its first update."""
    taken = dict.fromkeys(BY_NAME, "the package's own")
    for metric in metrics:
        kind = type(metric).__name__
        if not isinstance(metric, Metric):
            raise ValueError(f"model.metrics: {kind} does not extend ocrnet_pl.metrics.base.Metric")
        if not metric.figures:
            raise ValueError(f"model.metrics: {kind} declares no figures; set its attribute figures")
        for figure in metric.figures:
            if figure.name in taken:
                raise ValueError(
                    f"model.metrics: {kind} has a figure {figure.name!r}, which is {taken[figure.name]}; rename it"
                )
            taken[figure.name] = f"one of {kind} already"
        if kept := list(metric.state_dict()):
            raise ValueError(f"model.metrics: {kind}.{kept[0]} would be part of checkpoints; use persistent=False")
        # Nothing was measured yet, and other processes may not be here: no exchange between processes.
        metric._to_sync = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                metric.computed()
            except Exception as error:
                text = one_line(error)
                raise ValueError(
                    f"model.metrics: {kind} cannot compute before the first update ({text}); return NaN then"
                ) from error
    return [figure for metric in metrics for figure in metric.figures]
