"""Detection losses: box regression + confidence + classification."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from ocrnet_pl.losses.assignment import Assigner, Assignment, CenterAssigner, TaskAlignedAssigner, gather_rows
from ocrnet_pl.losses.base import Loss
from ocrnet_pl.losses.boxes import BoxLoss, GIoULoss, MSEBoxLoss, paired_iou
from ocrnet_pl.structures import Batch, DetectionOutput, Output


def spread(values: Tensor, assignment: Assignment, num_candidates: int) -> Tensor:
    """Write each positive pair's value to its candidate, zero elsewhere: [B, P] to [B, A]."""
    target = values.new_zeros(values.shape[0], num_candidates)
    return target.scatter_add(1, assignment.candidates, torch.where(assignment.positive, values, 0.0))


def outside_crowds(detection: DetectionOutput, batch: Batch) -> Tensor:
    """Return bool [B, A]: the candidate's centre lies in no crowd region, whose objects nobody has marked.

    Each region is drawn by its four corners and two running sums, so the cost does not grow with boxes x candidates.
    """
    corner = batch.crowd.to(torch.int32)
    covered = []
    for height, width, stride in detection.grids:
        # Cells whose centre lies in [low, high): the first centre at or past each edge.
        first = (batch.boxes / stride - 0.5).ceil().long()
        x1, x2 = first[..., 0].clamp(0, width), first[..., 2].clamp(0, width)
        y1, y2 = first[..., 1].clamp(0, height), first[..., 3].clamp(0, height)
        steps = corner.new_zeros(len(batch), (height + 1) * (width + 1))
        for row, column, sign in ((y1, x1, 1), (y1, x2, -1), (y2, x1, -1), (y2, x2, 1)):
            steps = steps.scatter_add(1, row * (width + 1) + column, sign * corner)
        count = steps.view(-1, height + 1, width + 1).cumsum(1).cumsum(2)
        covered.append(count[:, :height, :width].flatten(1))
    return torch.cat(covered, 1) == 0


def keep_in_graph(detection: DetectionOutput) -> Tensor:
    """Return a zero that depends on all the decoder's outputs, so that every parameter gets a gradient."""
    return (detection.boxes.sum() + detection.confidence.sum() + detection.classes.sum()) * 0.0


class DetectionLoss(Loss):
    """The three terms of detection, in float32; none for a network that does not detect."""

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Return the terms ``box``, ``confidence`` and ``class``."""
        detection = output.detection
        if detection is None:
            return {}
        with torch.autocast(batch.images.device.type, enabled=False):
            return self._terms(detection, batch)

    @abstractmethod
    def _terms(self, detection: DetectionOutput, batch: Batch) -> dict[str, Tensor]:
        """Compute the terms."""


class QualityDetectionLoss(DetectionLoss):
    """IoU loss on boxes, and confidence and classes trained towards each candidate's quality.

    The classification target of a positive candidate is its task-aligned quality (Feng et al., TOOD, ICCV 2021), its
    confidence target the IoU of its box. A class that an image was not labelled for is left out of its
    classification loss; where any class was not labelled, background teaches the confidence nothing, since an
    unlabelled object may stand there.

    Args:
        assigner: Pairs candidates with boxes.
        box_loss: Compares the paired boxes.
        box_weight: Of the box term.
        confidence_weight: Of the confidence term.
        class_weight: Of the classification term.
        focus: Exponent by which background that is already seen as such counts less (Lin et al., ICCV 2017).
    """

    def __init__(
        self,
        assigner: Assigner | None = None,
        box_loss: BoxLoss | None = None,
        box_weight: float = 2.0,
        confidence_weight: float = 0.5,
        class_weight: float = 1.0,
        focus: float = 2.0,
    ) -> None:
        super().__init__()
        self.assigner = assigner or TaskAlignedAssigner()
        self.box_loss = box_loss or GIoULoss()
        self.box_weight = box_weight
        self.confidence_weight = confidence_weight
        self.class_weight = class_weight
        self.focus = focus

    def _terms(self, detection: DetectionOutput, batch: Batch) -> dict[str, Tensor]:
        assignment = self.assigner(detection, batch)
        quality = assignment.quality * assignment.positive
        total = quality.sum().clamp(min=1.0)
        predicted = gather_rows(detection.boxes, assignment.candidates)
        target = gather_rows(batch.boxes, assignment.boxes)
        box = (self.box_loss(predicted, target) * quality).sum() / total

        num_candidates = detection.points.shape[0]
        iou = paired_iou(predicted.detach(), target)
        confidence_target = spread(iou, assignment, num_candidates)
        is_positive = spread(assignment.positive.float(), assignment, num_candidates) > 0
        background = ~is_positive & outside_crowds(detection, batch)
        counts = is_positive | (background & batch.detection_classes.all(1, keepdim=True))
        confidence = (self._binary(detection.confidence, confidence_target) * counts).sum() / total

        labels = batch.labels.gather(1, assignment.boxes)
        label = spread(labels.float(), assignment, num_candidates).long()
        level = spread(quality, assignment, num_candidates)
        class_target = torch.zeros_like(detection.classes).scatter(2, label[..., None], level[..., None])
        counts = (is_positive | background)[..., None] & batch.detection_classes[:, None]
        classes = (self._binary(detection.classes, class_target) * counts).sum() / total
        return {
            "box": self.box_weight * box + keep_in_graph(detection),
            "confidence": self.confidence_weight * confidence,
            "class": self.class_weight * classes,
        }

    def _binary(self, logits: Tensor, target: Tensor) -> Tensor:
        """Quality focal loss (Li et al., "Generalized Focal Loss", NeurIPS 2020), not reduced."""
        distance = (target - logits.sigmoid()).abs().pow(self.focus)
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none") * distance


class TutorialDetectionLoss(DetectionLoss):
    """Mean squared error on box and confidence and cross-entropy on the class: the tutorial's recipe.

    The detection decoder's class scores should be exclusive (a softmax) under this loss.

    Args:
        assigner: Pairs candidates with boxes.
        box_loss: Compares the paired boxes.
        box_weight: Of the box term.
        confidence_weight: Of the confidence term.
        class_weight: Of the classification term.
        background_weight: Of background candidates in the confidence term (YOLO's 0.5).
    """

    def __init__(
        self,
        assigner: Assigner | None = None,
        box_loss: BoxLoss | None = None,
        box_weight: float = 5.0,
        confidence_weight: float = 1.0,
        class_weight: float = 1.0,
        background_weight: float = 0.5,
    ) -> None:
        super().__init__()
        self.assigner = assigner or CenterAssigner()
        self.box_loss = box_loss or MSEBoxLoss()
        self.box_weight = box_weight
        self.confidence_weight = confidence_weight
        self.class_weight = class_weight
        self.background_weight = background_weight

    def _terms(self, detection: DetectionOutput, batch: Batch) -> dict[str, Tensor]:
        assignment = self.assigner(detection, batch)
        positive = assignment.positive
        total = positive.sum().clamp(min=1)
        predicted = gather_rows(detection.boxes, assignment.candidates)
        target = gather_rows(batch.boxes, assignment.boxes)
        box = (self.box_loss(predicted, target) * positive).sum() / total

        is_positive = spread(positive.float(), assignment, detection.points.shape[0])
        background = (is_positive == 0) & outside_crowds(detection, batch)
        background = background & batch.detection_classes.all(1, keepdim=True)
        weight = is_positive + self.background_weight * background
        confidence = ((detection.confidence.sigmoid() - is_positive).square() * weight).sum() / total

        # A class that the image was not labelled for takes no part in its softmax.
        known = batch.detection_classes[:, None]
        logits = gather_rows(detection.classes, assignment.candidates).masked_fill(~known, -1e9)
        labels = batch.labels.gather(1, assignment.boxes)
        counts = positive & batch.detection_classes.gather(1, labels)
        classes = (F.cross_entropy(logits.transpose(1, 2), labels, reduction="none") * counts).sum() / total
        return {
            "box": self.box_weight * box + keep_in_graph(detection),
            "confidence": self.confidence_weight * confidence,
            "class": self.class_weight * classes,
        }
