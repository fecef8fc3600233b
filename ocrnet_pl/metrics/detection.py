"""COCO mean average precision of boxes or masks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ocrnet_pl.distributed.gather import compute_on_first
from ocrnet_pl.metrics.base import Metric
from ocrnet_pl.metrics.coco_evaluation import Matched, evaluate, mean_defined, ranks_in_class
from ocrnet_pl.metrics.figures import BOXES, MASKS
from ocrnet_pl.metrics.image_match import ImageMatch, Matching
from ocrnet_pl.metrics.matching import AREAS, COCO_LIMIT, IOU_50, IOU_75
from ocrnet_pl.structures import Prediction, Sample, Taxonomy


class DetectionMetric(Metric):
    """Average precision as COCO computes it, equal to that of pycocotools.

    Each image's predictions are matched to its objects at once, and only what the curves are made of is kept, so that a
    validation of any length fits into memory. All predictions count: only the decoder's ``max_detections`` limits them.
    ``map_100`` and ``mar_100`` are COCO's own figures, which count the best 100 of each image and class.

    A true object's size is its area in the instance map if the sample has one, else the area of its box. Images without
    detection supervision are left out; predictions of classes that an image was not labelled for are dropped.

    Args:
        taxonomy: The categories.
        masks: Whether masks are compared instead of boxes; the keys then start with ``mask_``, and samples without an
            instance map are left out.
        per_class: Whether ``map_per_class/<name>`` is added.
        matching: Matches predictions to objects, of boxes or of masks, for several metrics; None for this one alone.

    Attributes:
        matching: Matches the images of a batch.
        keep: Whether ``gathered`` keeps what the figures were computed from.
        gathered: The predictions of all processes' images, of the last :meth:`compute`, on the first process; None
            elsewhere.
    """

    def __init__(
        self, taxonomy: Taxonomy, masks: bool = False, per_class: bool = True, matching: Matching | None = None
    ) -> None:
        super().__init__(taxonomy)
        self.figures = MASKS if masks else BOXES
        self.masks = masks
        self.per_class = per_class
        self.matching = matching or Matching(masks)
        self.keep = False
        self.gathered: Matched | None = None
        self._parts: list[Matched] = []

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self.matching.reset()
        self._parts = []

    def update(self, predictions: list[Prediction], truths: list[Sample]) -> None:
        """Take in one batch."""
        found = [self._packed(each) for each in self.matching(predictions, truths) if each is not None]
        if found:
            self._parts.append(Matched.joined(found))

    def _packed(self, found: ImageMatch) -> Matched:
        places = found.objects.labels[:, None] * len(AREAS) + np.arange(len(AREAS))
        counts = np.bincount(places[~found.excluded], minlength=self.taxonomy.num_detection * len(AREAS))
        count = np.array([len(found.labels)], dtype=np.int32)
        ranks = ranks_in_class(found.labels)
        objects = counts.reshape(-1, len(AREAS))
        labels = found.labels.astype(np.uint16)
        return Matched([found.key], count, labels, ranks, found.scores, found.hits, found.alarms, objects)

    def compute(self) -> dict[str, Tensor]:
        """Return the figures over all processes' images; NaN where there is nothing to measure."""
        prefix = "mask_" if self.masks else ""
        # One array of each kind takes less than many small ones, here and on the way.
        self._parts = [Matched.joined(self._parts)] if self._parts else []
        figures = compute_on_first(self._parts, self._figures)
        return {prefix + name: torch.tensor(value, dtype=torch.float64) for name, value in figures.items()}

    def _figures(self, parts: list[list[Matched]]) -> dict[str, float]:
        found = [each for part in parts for each in part] or [Matched.nothing(self.taxonomy.num_detection)]
        matched = Matched.joined(found)
        self.gathered = matched if self.keep else None
        precision, recall = evaluate(matched)
        parts_of = {
            "map": precision[..., 0, -1],
            "map_50": precision[IOU_50, ..., 0, -1],
            "map_75": precision[IOU_75, ..., 0, -1],
            **{f"map_{area}": precision[..., index, -1] for index, area in enumerate(AREAS) if index},
            f"map_{COCO_LIMIT}": precision[..., 0, 0],
            "mar": recall[..., 0, -1],
            f"mar_{COCO_LIMIT}": recall[..., 0, 0],
        }
        figures = {name: mean_defined(part) for name, part in parts_of.items()}
        if self.per_class:
            for index, category in enumerate(self.taxonomy.detection_categories):
                figures[f"map_per_class/{category.name}"] = mean_defined(precision[:, :, index, 0, -1])
        return figures
