"""The well-known merge of instances and stuff by a fixed rule, against which fusion is measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.inference.decode import Detections
from ocrnet_pl.inference.panoptic import add_panoptic
from ocrnet_pl.structures import Prediction, Taxonomy

_MANY = 2048
"""Number of boxes beyond which it costs more to compare all pairs than it saves."""
_FULL_SIZE = 480 * 640
"""Number of pixels of the images that the rule's limit on stuff was made for."""


@dataclass(frozen=True)
class HeuristicMerge:
    """Merges as "Panoptic Segmentation" (Kirillov et al., CVPR 2019) describes and detectron2 does by default.

    Instances are placed best first. An instance is dropped if more than ``overlap_threshold`` of it is already covered;
    otherwise its uncovered part counts. Stuff takes the remaining pixels, by their semantic class, where its region is
    large enough.

    The network has no masks for instances: the mask of a box is the pixels inside it whose most probable class is the
    box's. Boxes below ``score_threshold`` are left out of the panoptic map, and so cannot disturb it; they come last,
    and still get masks, which count in mask mAP.

    Attributes:
        score_threshold: Score from which instances enter the panoptic map, 0 to 1.
        overlap_threshold: Share of an instance's mask, 0 to 1, that may already be covered; with more, the instance is
            dropped.
        stuff_area: Number of pixels of the smallest stuff region in an image of 640 x 480 or larger, at least 0; in
            smaller images it is lower in proportion.

    Raises:
        ValueError: A number is out of range.
    """

    score_threshold: float = 0.5
    overlap_threshold: float = 0.5
    stuff_area: int = 4096

    def __post_init__(self) -> None:
        for name in ("score_threshold", "overlap_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"heuristic.{name}: expected 0 to 1, got {getattr(self, name)}")
        if self.stuff_area < 0:
            raise ValueError(f"heuristic.stuff_area: expected at least 0, got {self.stuff_area}")

    def __call__(self, detections: Detections, semantic: Tensor, taxonomy: Taxonomy) -> Prediction:
        """Return the merged prediction; boxes, scores and pixels do not change.

        Args:
            detections: Best first, in the frame of ``semantic``.
            semantic: uint8 [H, W], the arg-max class of every pixel. Both are on the CPU.
            taxonomy: Relates detection to segmentation classes.
        """
        boxes, scores, labels = detections
        # One box after the other, each on a small part of the image: numpy has the least overhead for that.
        classes = semantic.numpy()
        owner = np.zeros(classes.shape, dtype=np.int32)
        of_class = taxonomy.detection_to_semantic
        # The pixels whose centre is in the box.
        sides = (boxes - 0.5).ceil().clamp(min=0).int()
        rows = zip(sides.tolist(), labels.tolist(), _compete(sides.numpy(), labels.numpy()).tolist(), strict=True)
        for row, ((x1, y1, x2, y2), label, competes) in enumerate(rows):
            if of_class[label] < 0:
                continue
            window = owner[y1:y2, x1:x2]
            mask = classes[y1:y2, x1:x2] == of_class[label]
            if not competes:
                np.copyto(window, row + 1, where=mask)
                continue
            free = mask & (window == 0)
            area, left = np.count_nonzero(mask), np.count_nonzero(free)
            if area - left > self.overlap_threshold * area:
                continue
            np.copyto(window, row + 1, where=free)
        prediction = Prediction(boxes, scores, labels, semantic, torch.from_numpy(owner))
        limit = self.stuff_area * min(1.0, semantic.numel() / _FULL_SIZE)
        add_panoptic(prediction, scores >= self.score_threshold, limit, taxonomy)
        return prediction


def _compete(sides: NDArray[np.int32], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return, bool [N], whether an earlier box of the same class may already have pixels of each box [N, 4]."""
    if len(labels) > _MANY:
        return np.ones(len(labels), dtype=bool)
    x1, y1, x2, y2 = sides.T
    meet = labels[:, None] == labels
    for low, high in ((x1, x2), (y1, y2)):
        before = low[:, None] < high
        meet &= before
        meet &= before.T
    found: NDArray[np.bool_] = np.tril(meet, -1).any(1)
    return found
