"""Panoptic quality."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.metrics.base import Metric
from ocrnet_pl.metrics.figures import PANOPTIC
from ocrnet_pl.metrics.runs import Overlay
from ocrnet_pl.metrics.shared import OncePerBatch
from ocrnet_pl.structures import IGNORE_INDEX, Prediction, Sample, Taxonomy

_IOU, _TP, _FP, _FN = range(4)


class PanopticMetric(Metric):
    """Panoptic quality (Kirillov et al., "Panoptic Segmentation", CVPR 2019), by the rules of COCO's panopticapi.

    True segments are the instances and, of every stuff class, its pixels. Pixels of a thing class outside every
    instance are a crowd of that class: they match nothing, and a predicted segment that is mostly on void or on a crowd
    of its class is not a false alarm. Nor is one of a category that the image was not labelled for. Each image costs
    one histogram of true against predicted segments.

    Args:
        taxonomy: The categories.
        overlays: Results of ``Overlay.of``, shared by metrics of the same predictions; None for separate ones.
    """

    figures = PANOPTIC
    _sums: Tensor

    def __init__(self, taxonomy: Taxonomy, overlays: OncePerBatch[Overlay] | None = None) -> None:
        super().__init__(taxonomy)
        count = len(taxonomy.categories)
        self.add_state("_sums", torch.zeros(4, count, dtype=torch.float64), dist_reduce_fx="sum")
        self._overlays = overlays or OncePerBatch(Overlay.of)
        self._images = OncePerBatch(self._image)
        self._of_detection = np.array(taxonomy.positions_of_detection, dtype=np.int64)
        self._of_semantic = np.array(taxonomy.positions_of_semantic, dtype=np.int64)
        self._is_thing = np.array([c.is_thing for c in taxonomy.categories], dtype=bool)

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self._overlays.reset()
        self._images.reset()

    def update(self, predictions: list[Prediction], truths: list[Sample]) -> None:
        """Take in one batch; samples that lack an instance or a semantic map are left out."""
        for sums in self.of_images(predictions, truths):
            if sums is not None:
                self._sums += torch.from_numpy(sums).to(self._sums.device)

    def of_images(
        self, predictions: Sequence[Prediction], truths: Sequence[Sample]
    ) -> list[NDArray[np.float64] | None]:
        """Return the sums [4, categories] of each image of a batch: IoU, hits, false alarms, misses.

        None without an instance or a semantic map.
        """
        return self._images(predictions, truths, self._overlays(predictions, truths))

    def _image(self, prediction: Prediction, truth: Sample, overlay: Overlay) -> NDArray[np.float64] | None:
        if truth.instances is None or truth.semantic is None or prediction.panoptic is None:
            return None
        assert overlay.true_instance is not None and overlay.true_class is not None
        assert overlay.found_segment is not None
        # The true segments: void, then the instances, then one per segmentation class.
        count, categories = len(truth.labels), len(self._is_thing)
        stuff = np.where(overlay.true_class == IGNORE_INDEX, 0, overlay.true_class + (count + 1))
        true = np.where(overlay.true_instance > 0, overlay.true_instance, stuff)
        category = np.concatenate(([-1], self._of_detection[truth.labels.numpy()], self._of_semantic))
        crowd = np.concatenate(([False], truth.crowd.numpy(), self._is_thing[self._of_semantic]))

        width = 1 + max((segment.id for segment in prediction.segments), default=0)
        predicted_category = np.full(width, -2)
        predicted_category[[segment.id for segment in prediction.segments]] = [s.category for s in prediction.segments]

        size = len(category)
        overlap = overlay.runs.pixels(true * width + overlay.found_segment, size * width).reshape(size, width)
        area, predicted_area = overlap.sum(1), overlap.sum(0)
        known = np.ones(categories, dtype=bool)
        known[self._of_detection[~truth.supervision.detection.numpy()]] = False
        known[self._of_semantic[~truth.supervision.semantic.numpy()]] = False

        # Few of all pairs overlap, and only those can match.
        row, column = overlap.nonzero()
        shared = overlap[row, column]
        iou = shared / (area[row] + predicted_area[column] - shared - overlap[0, column]).clip(min=1)
        same = category[row] == predicted_category[column]
        match = (iou > 0.5) & same & ~crowd[row] & known[category[row].clip(min=0)]
        hit, found = row[match], column[match]
        excused = overlap[0] + np.bincount(column, shared * (crowd[row] & same), width)
        unmatched, alarm = (area > 0) & ~crowd & (category >= 0), (predicted_area > 0) & (predicted_category >= 0)
        unmatched[hit], alarm[found] = False, False
        unmatched &= known[category.clip(min=0)]
        alarm &= known[predicted_category.clip(min=0)] & (excused <= 0.5 * predicted_area)
        return np.stack(
            (
                np.bincount(category[hit], iou[match], categories),
                np.bincount(category[hit], minlength=categories),
                np.bincount(predicted_category[alarm], minlength=categories),
                np.bincount(category[unmatched], minlength=categories),
            )
        )

    def compute(self) -> dict[str, Tensor]:
        """Return ``pq``, ``sq``, ``rq``, ``pq_things``, ``pq_stuff`` and ``pq_per_class/<name>``.

        A category that is neither in the truth nor predicted is left out of the means; NaN where all are.
        """
        sums, is_thing = self._sums.cpu(), torch.from_numpy(self._is_thing)
        weight = sums[_TP] + (sums[_FP] + sums[_FN]) / 2
        quality = sums[_IOU] / weight
        segmentation = torch.where(sums[_TP] > 0, sums[_IOU] / sums[_TP].clamp(min=1), 0.0)
        segmentation = torch.where(weight > 0, segmentation, float("nan"))
        figures = {
            "pq": quality.nanmean(),
            "sq": segmentation.nanmean(),
            "rq": (sums[_TP] / weight).nanmean(),
            "pq_things": quality[is_thing].nanmean(),
            "pq_stuff": quality[~is_thing].nanmean(),
        }
        for category, value in zip(self.taxonomy.categories, quality, strict=True):
            figures[f"pq_per_class/{category.name}"] = value
        return figures
