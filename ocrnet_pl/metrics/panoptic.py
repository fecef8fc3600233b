"""Panoptic quality."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ocrnet_pl.metrics.base import Metric
from ocrnet_pl.metrics.figures import PANOPTIC
from ocrnet_pl.metrics.shared import OncePerBatch
from ocrnet_pl.structures import IGNORE_INDEX, Prediction, Sample, Taxonomy

_IOU, _TP, _FP, _FN = range(4)


class Segments(NamedTuple):
    """True segments: a map of their numbers, int32 [H, W], 0 = void; of each its category and whether it is a crowd."""

    ids: Tensor
    category: Tensor
    crowd: Tensor


class TrueSegments:
    """Makes the segments of a sample: void, then its instances, then one per segmentation class.

    Args:
        taxonomy: The categories.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        position = {category.name: index for index, category in enumerate(taxonomy.categories)}
        self.of_detection = torch.tensor([position[c.name] for c in taxonomy.detection_categories], dtype=torch.long)
        self.of_semantic = torch.tensor([position[c.name] for c in taxonomy.semantic_categories], dtype=torch.long)
        self._is_thing = torch.tensor([c.is_thing for c in taxonomy.semantic_categories], dtype=torch.bool)

    def __call__(self, truth: Sample) -> Segments | None:
        """Return the segments, None for a sample that lacks an instance or a semantic map."""
        if truth.instances is None or truth.semantic is None:
            return None
        count = len(truth.labels)
        instances = truth.instances.as_subclass(Tensor)
        semantic = truth.semantic.as_subclass(Tensor)
        stuff = semantic.int().add_(count + 1).masked_fill_(semantic == IGNORE_INDEX, 0)
        ids = torch.where(instances > 0, instances.int(), stuff)
        category = torch.cat((torch.full((1,), -1), self.of_detection[truth.labels], self.of_semantic))
        crowd = torch.cat((torch.tensor([False]), truth.crowd.cpu(), self._is_thing))
        return Segments(ids, category, crowd)


class PanopticMetric(Metric):
    """Panoptic quality (Kirillov et al., "Panoptic Segmentation", CVPR 2019), by the rules of COCO's panopticapi.

    True segments are the instances and, of every stuff class, its pixels. Pixels of a thing class outside every
    instance are a crowd of that class: they match nothing, and a predicted segment that is mostly on void or on a crowd
    of its class is not a false alarm. Nor is one of a category that the image was not labelled for. Each image costs
    one histogram of true against predicted segments.

    Args:
        taxonomy: The categories.
        true_segments: Results of :class:`TrueSegments`, shared by metrics of the same batches; None for separate ones.
    """

    figures = PANOPTIC
    _sums: Tensor

    def __init__(self, taxonomy: Taxonomy, true_segments: OncePerBatch[Segments | None] | None = None) -> None:
        super().__init__(taxonomy)
        count = len(taxonomy.categories)
        self.add_state("_sums", torch.zeros(4, count, dtype=torch.float64), dist_reduce_fx="sum")
        segments = TrueSegments(taxonomy)
        self._true_segments = true_segments or OncePerBatch(segments)
        self._of_tasks = (segments.of_detection, segments.of_semantic)
        self._is_thing = torch.tensor([c.is_thing for c in taxonomy.categories], dtype=torch.bool)

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self._true_segments.reset()

    def update(self, predictions: list[Prediction], truths: list[Sample]) -> None:
        """Take in one batch; samples that lack an instance or a semantic map are left out."""
        for prediction, truth, segments in zip(predictions, truths, self._true_segments(truths), strict=True):
            if segments is not None and prediction.panoptic is not None:
                self._sums += self._image(prediction, truth, segments).to(self._sums.device)

    def _image(self, prediction: Prediction, truth: Sample, segments: Segments) -> Tensor:
        """Return the image's sums of IoU, hits, false alarms and misses, float64 [4, categories]."""
        ids, category, crowd = segments
        assert prediction.panoptic is not None
        predicted = prediction.panoptic.cpu().int()
        width = 1 + max((segment.id for segment in prediction.segments), default=0)
        predicted_category = torch.full((width,), -2)
        for segment in prediction.segments:
            predicted_category[segment.id] = segment.category

        # 32 bits are enough for any number of cells that fits into memory.
        pairs = (ids * width).add_(predicted)
        cells = torch.bincount(pairs.flatten(), minlength=len(category) * width)
        overlap = cells.view(len(category), width).double()
        area, predicted_area = overlap.sum(1), overlap.sum(0)
        union = area[:, None] + predicted_area - overlap - overlap[0]
        iou = overlap / union.clamp(min=1)
        match = (iou > 0.5) & (category[:, None] == predicted_category) & ~crowd[:, None]

        known = torch.ones(self._sums.shape[1], dtype=torch.bool)
        for of_task, labelled in zip(
            self._of_tasks, (truth.supervision.detection, truth.supervision.semantic), strict=True
        ):
            known[of_task[~labelled.cpu()]] = False
        match &= known[category.clamp(min=0)][:, None]

        sums = torch.zeros_like(self._sums, device="cpu")
        true, found = match.nonzero(as_tuple=True)
        sums[_IOU].index_add_(0, category[true], iou[true, found])
        sums[_TP].index_add_(0, category[true], torch.ones_like(iou[true, found]))
        missed = ~match.any(1) & ~crowd & (area > 0) & (category >= 0) & known[category.clamp(min=0)]
        sums[_FN].index_add_(0, category[missed], torch.ones(int(missed.sum()), dtype=torch.float64))
        same_crowd = crowd[:, None] & (category[:, None] == predicted_category)
        excused = (overlap[0] + (overlap * same_crowd).sum(0)) > 0.5 * predicted_area
        alarm = ~match.any(0) & ~excused & (predicted_area > 0) & (predicted_category >= 0)
        alarm &= known[predicted_category.clamp(min=0)]
        sums[_FP].index_add_(0, predicted_category[alarm], torch.ones(int(alarm.sum()), dtype=torch.float64))
        return sums

    def compute(self) -> dict[str, Tensor]:
        """Return ``pq``, ``sq``, ``rq``, ``pq_things``, ``pq_stuff`` and ``pq_per_class/<name>``.

        A category that is neither in the truth nor predicted is left out of the means; NaN where all are.
        """
        sums = self._sums.cpu()
        weight = sums[_TP] + (sums[_FP] + sums[_FN]) / 2
        quality = sums[_IOU] / weight
        segmentation = torch.where(sums[_TP] > 0, sums[_IOU] / sums[_TP].clamp(min=1), 0.0)
        segmentation = torch.where(weight > 0, segmentation, float("nan"))
        figures = {
            "pq": quality.nanmean(),
            "sq": segmentation.nanmean(),
            "rq": (sums[_TP] / weight).nanmean(),
            "pq_things": quality[self._is_thing].nanmean(),
            "pq_stuff": quality[~self._is_thing].nanmean(),
        }
        for category, value in zip(self.taxonomy.categories, quality, strict=True):
            figures[f"pq_per_class/{category.name}"] = value
        return figures
