"""Boundary IoU."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ocrnet_pl.metrics.base import Metric
from ocrnet_pl.metrics.figures import Figure, Place
from ocrnet_pl.structures import IGNORE_INDEX, Prediction, Sample, Taxonomy

_OUTSIDE = -1


class BoundaryIoU(Metric):
    """IoU of every class, of the pixels along its edges alone (Cheng et al., "Boundary IoU", CVPR 2021).

    mIoU hardly sees how well edges are drawn, since most pixels of large regions are inside. Here only those pixels of
    a region count that are near its edge; the image's border and unlabelled pixels are edges too. As for mIoU, pixels
    are counted over the whole set, and those of a class that an image was not labelled for do not count.

    Args:
        taxonomy: Categories of the data.
        width: Width of the band along the edges that is compared, as a share of the image's diagonal, above 0 and
            below 1; at least one pixel wide.

    Raises:
        ValueError: The width is not between 0 and 1.
    """

    figures = (
        Figure("boundary_iou", "boundary IoU"),
        Figure("boundary_iou_per_class", "boundary IoU", per_class=True, places=Place.TABLE),
    )
    intersection: Tensor
    union: Tensor

    def __init__(self, taxonomy: Taxonomy, width: float = 0.02) -> None:
        super().__init__(taxonomy)
        if not 0 < width < 1:
            raise ValueError(f"BoundaryIoU.width: expected a share between 0 and 1, got {width}")
        self.width = width
        for name in ("intersection", "union"):
            self.add_state(name, torch.zeros(taxonomy.num_semantic, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: list[Prediction], truths: list[Sample]) -> None:
        """Take in one batch; samples without a semantic map are left out."""
        for prediction, truth in zip(predictions, truths, strict=True):
            if truth.semantic is None or prediction.semantic is None:
                continue
            found = prediction.semantic.as_subclass(Tensor).long()
            true = truth.semantic.as_subclass(Tensor).to(found.device).long()
            pixels = max(1, round(self.width * math.hypot(*true.shape)))
            labelled = true != IGNORE_INDEX
            # Where nothing is known, neither side has a region.
            true, found = true.where(labelled, _OUTSIDE), found.where(labelled, _OUTSIDE)
            known = torch.cat((truth.supervision.semantic, torch.tensor([False]))).to(found.device)
            counted = known[true] & known[found]
            own, other = near_edges(true, pixels) & counted, near_edges(found, pixels) & counted
            size = len(self.union)
            both = torch.bincount(true[own & other & (true == found)], minlength=size)
            either = torch.bincount(true[own], minlength=size) + torch.bincount(found[other], minlength=size) - both
            self.intersection += both.to(self.intersection.device)
            self.union += either.to(self.union.device)

    def compute(self) -> dict[str, Tensor]:
        """Return ``boundary_iou``, the mean over the classes there are, and ``boundary_iou_per_class/<name>``."""
        iou = self.intersection.cpu().double() / self.union.cpu()
        names = [f"boundary_iou_per_class/{category.name}" for category in self.taxonomy.semantic_categories]
        return {"boundary_iou": iou.nanmean(), **dict(zip(names, iou, strict=True))}


def near_edges(classes: Tensor, pixels: int) -> Tensor:
    """Return which pixels of a map [H, W] have another class, or the border, at most so many pixels away.

    Ways along both axes and the diagonals count alike.

    Args:
        classes: Map of classes, with values from -1.
        pixels: Largest distance to the edge.
    """
    # All classes at once: a pixel is inside if the largest and the smallest class around it are its own. Bordered by
    # what is neither, and widened threefold at each step, which costs no more for far edges.
    extremes = torch.stack((classes, -classes)).float()[:, None]
    reached = 0
    while reached < pixels:
        step = min(2 * reached + 1, pixels - reached)
        extremes = F.pad(extremes, (step,) * 4, value=math.inf)
        extremes = F.max_pool2d(extremes, 3, stride=1, dilation=step)
        reached += step
    largest, smallest = extremes[0, 0], -extremes[1, 0]
    return (largest != classes) | (smallest != classes)
