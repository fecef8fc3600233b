"""The well-known merge of instances and stuff by rule, against which fusion is measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ocrnet_pl.inference.decode import Detections
from ocrnet_pl.inference.panoptic import add_panoptic
from ocrnet_pl.structures import Prediction, Taxonomy

_FULL_SIZE = 480 * 640
"""Pixels of the images that the rule's limit on stuff was made for."""


@dataclass(frozen=True)
class HeuristicMerge:
    """Merges as "Panoptic Segmentation" (Kirillov et al., CVPR 2019) describes and detectron2 does by default.

    Instances are laid down best first. One of which more than ``overlap_threshold`` is covered already is dropped, of
    the others the uncovered part counts. Stuff takes what is left, by its semantic class, where it is large enough.

    The network has no masks of its own for instances: a box's mask is the pixels of its class, by arg max, inside it.
    Boxes under ``score_threshold`` stay out of the panoptic map, and so cannot disturb it; they come last, and still
    get masks, by which mask mAP is measured.

    Attributes:
        score_threshold: Of the instances in the panoptic map, 0 to 1.
        overlap_threshold: Share of an instance's mask, 0 to 1.
        stuff_area: Pixels of the smallest stuff region in an image of 640 x 480 or more, less in proportion in
            smaller images.

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
        """Return the merged prediction; boxes, scores and pixels stay as they are.

        Args:
            detections: Best first, in the frame of ``semantic``.
            semantic: uint8 [H, W], the arg-max class of every pixel.
            taxonomy: Relates detection to segmentation classes.
        """
        boxes, scores, labels = detections
        # One box after the other, each on a small part of the image: numpy has the least overhead for that.
        classes = semantic.cpu().numpy()
        owner = np.zeros(classes.shape, dtype=np.int32)
        areas = np.zeros(len(scores), dtype=np.int64)
        of_class = taxonomy.detection_to_semantic
        # The pixels whose centre lies in the box.
        sides = (boxes - 0.5).ceil().clamp(min=0).int().tolist()
        rows = zip(sides, labels.tolist(), strict=True)
        for row, ((x1, y1, x2, y2), label) in enumerate(rows):
            if of_class[label] < 0:
                continue
            window = owner[y1:y2, x1:x2]
            mask = classes[y1:y2, x1:x2] == of_class[label]
            free = mask & (window == 0)
            area, left = np.count_nonzero(mask), np.count_nonzero(free)
            if area - left > self.overlap_threshold * area:
                continue
            window[free] = row + 1
            areas[row] = left
        instances = torch.from_numpy(owner).to(semantic.device)
        pixels = torch.from_numpy(areas).to(semantic.device)
        prediction = Prediction(boxes, scores, labels, semantic, instances)
        limit = self.stuff_area * min(1.0, semantic.numel() / _FULL_SIZE)
        add_panoptic(prediction, (scores >= self.score_threshold) & (pixels > 0), pixels, limit, taxonomy)
        return prediction
