"""Panoptic quality."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from ocrnet_pl.metrics.sync import sum_over_processes
from ocrnet_pl.structures import IGNORE_INDEX, Prediction, Sample, Taxonomy

_IOU, _TP, _FP, _FN = range(4)


class PanopticMetric(Metric):
    """Panoptic quality (Kirillov et al., "Panoptic Segmentation", CVPR 2019), by the rules of COCO's panopticapi.

    True segments are the instances and, of every stuff class, its pixels. Pixels of a thing class outside every
    instance are a crowd of that class: they match nothing, and a predicted segment that lies mostly on void or on a
    crowd of its class is no false alarm. Nor is one of a category that the image was not labelled for. Each image
    costs one histogram of true against predicted segments.

    Args:
        taxonomy: The categories.
    """

    full_state_update = False
    _sums: Tensor

    def __init__(self, taxonomy: Taxonomy) -> None:
        super().__init__(sync_on_compute=False)
        self.taxonomy = taxonomy
        count = len(taxonomy.categories)
        self.add_state("_sums", torch.zeros(4, count, dtype=torch.float64), dist_reduce_fx=None)
        position = {category.name: index for index, category in enumerate(taxonomy.categories)}
        self._of_detection = torch.tensor([position[c.name] for c in taxonomy.detection_categories], dtype=torch.long)
        self._of_semantic = torch.tensor([position[c.name] for c in taxonomy.semantic_categories], dtype=torch.long)
        self._semantic_is_thing = torch.tensor([c.is_thing for c in taxonomy.semantic_categories], dtype=torch.bool)
        self._is_thing = torch.tensor([c.is_thing for c in taxonomy.categories], dtype=torch.bool)

    def update(self, predictions: list[Prediction], truths: list[Sample]) -> None:
        """Take in one batch; samples that lack an instance or a semantic map are left out."""
        for prediction, truth in zip(predictions, truths, strict=True):
            if truth.instances is not None and truth.semantic is not None and prediction.panoptic is not None:
                self._sums += self._image(prediction, truth).to(self._sums.device)

    def _truth_map(self, truth: Sample) -> tuple[Tensor, Tensor, Tensor]:
        """Return the map of true segments, 0 = void, with each segment's category and whether it is a crowd."""
        count, num_semantic = len(truth.labels), len(self._of_semantic)
        instances = torch.as_tensor(truth.instances).long()
        semantic = torch.as_tensor(truth.semantic).long()
        # Void, then the instances, then one segment a segmentation class.
        ids = torch.where(semantic == IGNORE_INDEX, 0, semantic + 1 + count)
        ids = torch.where(instances > 0, instances, ids)
        void = torch.full((1,), -1)
        category = torch.cat((void, self._of_detection[truth.labels], self._of_semantic))
        crowd = torch.cat((torch.tensor([False]), truth.crowd.cpu(), self._semantic_is_thing))
        assert len(category) == 1 + count + num_semantic
        return ids, category, crowd

    def _image(self, prediction: Prediction, truth: Sample) -> Tensor:
        """Return the image's sums of IoU, hits, false alarms and misses, float64 [4, categories]."""
        ids, category, crowd = self._truth_map(truth)
        assert prediction.panoptic is not None
        predicted = prediction.panoptic.cpu().long()
        width = 1 + max((segment.id for segment in prediction.segments), default=0)
        predicted_category = torch.full((width,), -2)
        for segment in prediction.segments:
            predicted_category[segment.id] = segment.category

        cells = torch.bincount((ids * width + predicted).flatten(), minlength=len(category) * width)
        overlap = cells.view(len(category), width).double()
        area, predicted_area = overlap.sum(1), overlap.sum(0)
        union = area[:, None] + predicted_area - overlap - overlap[0]
        iou = overlap / union.clamp(min=1)
        match = (iou > 0.5) & (category[:, None] == predicted_category) & ~crowd[:, None]

        known = torch.ones(self._sums.shape[1], dtype=torch.bool)
        for of_task, labelled in (
            (self._of_detection, truth.supervision.detection),
            (self._of_semantic, truth.supervision.semantic),
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
        sums = sum_over_processes(self._sums, self.device)
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
