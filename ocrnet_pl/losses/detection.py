"""Detection losses: box regression + confidence + classification."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from ocrnet_pl.losses.assignment import Assigner, Assignment, CenterAssigner, TaskAlignedAssigner, gather_rows
from ocrnet_pl.losses.base import Measured, SummedLoss, zero_of
from ocrnet_pl.losses.boxes import BoxLoss, GIoULoss, MSEBoxLoss, paired_iou
from ocrnet_pl.losses.scores import MSEScore, QualityFocalScore, ScoreLoss
from ocrnet_pl.structures import Batch, DetectionOutput, Output


def spread(values: Tensor, assignment: Assignment, num_candidates: int) -> Tensor:
    """Write each positive pair's value to its candidate, zero elsewhere: [B, P] to [B, A]."""
    target = values.new_zeros(values.shape[0], num_candidates)
    return target.scatter_add(1, assignment.candidates, torch.where(assignment.positive, values, 0.0))


def outside_crowds(detection: DetectionOutput, batch: Batch) -> Tensor:
    """Return bool [B, A]: whether the candidate's centre is outside all crowd regions, whose objects are not marked.

    Each region is drawn with its four corners and two running sums, so the cost does not grow with boxes x candidates.
    """
    if not batch.has_crowds:
        return torch.ones(len(batch), len(detection.points), dtype=torch.bool, device=batch.crowd.device)
    corner = batch.crowd.to(torch.int32)
    covered = []
    for height, width, stride in detection.grids:
        # Cells whose centre is in [low, high): the first centre at or past each edge.
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
    total = zero_of(detection.boxes) + zero_of(detection.confidence) + zero_of(detection.classes)
    if detection.distribution is not None:
        total = total + zero_of(detection.distribution)
    return total


def distribution_focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy with the two bins next to each target, weighted by how near each is, not reduced.

    Li et al., "Generalized Focal Loss", NeurIPS 2020, equation 6.

    Args:
        logits: float [..., bins], where bin i stands for the distance i.
        target: float [...], clamped to the range of the bins.
    """
    last = logits.shape[-1] - 1
    target = target.clamp(0, last)
    left = target.floor().clamp(max=last - 1)
    share = (target - left)[..., None]
    pair = logits.log_softmax(-1).gather(-1, torch.stack((left, left + 1), -1).long())
    return -(pair * torch.cat((1 - share, share), -1)).sum(-1)


class DetectionLoss(SummedLoss):
    """The three terms of detection, in float32; no terms for a network that does not detect."""

    def measure(self, output: Output, batch: Batch) -> Measured:
        """Return the sums of the terms, and ``total``, by which they are divided.

        Raises:
            ValueError: The decoder has a second branch that this loss would leave untrained.
        """
        detection = output.detection
        if detection is None:
            return Measured({}, {})
        if detection.one_to_many is not None:
            raise ValueError(
                f"model.detection_loss: {type(self).__name__} does not train the one-to-many branch of model.detection;"
                " set model.detection_loss to OneToOneDetectionLoss, or model.detection to a decoder without the branch"
            )
        with torch.autocast(batch.images.device.type, enabled=False):
            sums = self._sums(detection, batch)
            sums["box"] = sums["box"] + keep_in_graph(detection)
            return Measured(sums, {})

    @abstractmethod
    def _sums(self, detection: DetectionOutput, batch: Batch) -> dict[str, Tensor]:
        """Compute the sums."""

    @property
    @abstractmethod
    def _factors(self) -> dict[str, float]:
        """The factor of each term."""

    def combine(self, totals: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the terms ``box``, ``confidence`` and ``class``, and any further terms of the subclass."""
        if not totals:
            return {}
        total = totals["total"].clamp(min=1.0)
        return {name: self._factors[name] * each / total for name, each in totals.items() if name != "total"}


class QualityDetectionLoss(DetectionLoss):
    """IoU loss on boxes, and confidence and classes trained towards each candidate's quality.

    The classification target of a positive candidate is its task-aligned quality (Feng et al., TOOD, ICCV 2021), its
    confidence target is the IoU of its box. A class that an image was not labelled for is left out of that image's
    classification loss. Where any class was not labelled, the background is left out of the confidence loss, since an
    unlabelled object may be there.

    Args:
        assigner: Pairs candidates with boxes; null for ``TaskAlignedAssigner``.
        box_loss: Compares the paired boxes; null for ``GIoULoss``.
        box_weight: Factor of the box term.
        confidence_weight: Factor of the confidence term.
        class_weight: Factor of the classification term.
        confidence_loss: Compares the confidence with its target; null for quality focal loss.
        class_loss: Compares the class scores with their targets; null for quality focal loss.
        distribution_weight: Factor of the term ``dfl``, which moves the distribution of each side to the two bins next
            to the true distance. It is used only where the decoder emits distributions.
    """

    def __init__(
        self,
        assigner: Assigner | None = None,
        box_loss: BoxLoss | None = None,
        box_weight: float = 2.0,
        confidence_weight: float = 0.5,
        class_weight: float = 1.0,
        confidence_loss: ScoreLoss | None = None,
        class_loss: ScoreLoss | None = None,
        distribution_weight: float = 0.25,
    ) -> None:
        super().__init__()
        self.assigner = assigner or TaskAlignedAssigner()
        self.box_loss = box_loss or GIoULoss()
        self.box_weight = box_weight
        self.confidence_weight = confidence_weight
        self.class_weight = class_weight
        self.confidence_loss = confidence_loss or QualityFocalScore()
        self.class_loss = class_loss or QualityFocalScore()
        self.distribution_weight = distribution_weight

    def _sums(self, detection: DetectionOutput, batch: Batch) -> dict[str, Tensor]:
        assignment = self.assigner(detection, batch)
        quality = assignment.quality * assignment.positive
        predicted = gather_rows(detection.boxes, assignment.candidates)
        target = gather_rows(batch.boxes, assignment.boxes)
        sums = {"total": quality.sum(), "box": (self.box_loss(predicted, target) * quality).sum()}

        num_candidates = detection.points.shape[0]
        iou = paired_iou(predicted.detach(), target)
        confidence_target = spread(iou, assignment, num_candidates)
        is_positive = spread(assignment.positive.float(), assignment, num_candidates) > 0
        background = ~is_positive & outside_crowds(detection, batch)
        counts = is_positive | (background & batch.detection_classes.all(1, keepdim=True))
        sums["confidence"] = (self.confidence_loss(detection.confidence, confidence_target) * counts).sum()

        labels = batch.labels.gather(1, assignment.boxes)
        label = spread(labels.float(), assignment, num_candidates).long()
        level = spread(quality, assignment, num_candidates)
        class_target = torch.zeros_like(detection.classes).scatter(2, label[..., None], level[..., None])
        counts = (is_positive | background)[..., None] & batch.detection_classes[:, None]
        sums["class"] = (self.class_loss(detection.classes, class_target) * counts).sum()
        if detection.distribution is not None:
            logits = gather_rows(detection.distribution.flatten(2), assignment.candidates)
            points = detection.points[assignment.candidates]
            sides = torch.cat((points - target[..., :2], target[..., 2:] - points), -1)
            sides = sides / detection.strides[assignment.candidates][..., None]
            loss = distribution_focal_loss(logits.view(*sides.shape, -1), sides).mean(-1)
            sums["dfl"] = (loss * quality).sum()
        return sums

    @property
    def _factors(self) -> dict[str, float]:
        return {
            "box": self.box_weight,
            "confidence": self.confidence_weight,
            "class": self.class_weight,
            "dfl": self.distribution_weight,
        }


class TutorialDetectionLoss(DetectionLoss):
    """Mean squared error on box and confidence and cross-entropy on the class: the tutorial's recipe.

    The detection decoder's class scores should be exclusive (a softmax) under this loss.

    Args:
        assigner: Pairs candidates with boxes; null for ``CenterAssigner``.
        box_loss: Compares the paired boxes; null for ``MSEBoxLoss``.
        box_weight: Factor of the box term.
        confidence_weight: Factor of the confidence term.
        class_weight: Factor of the classification term.
        background_weight: Factor of background candidates in the confidence term (YOLO uses 0.5).
        confidence_loss: Compares the confidence with 1 on paired candidates and 0 on background; null for the squared
            error.
    """

    def __init__(
        self,
        assigner: Assigner | None = None,
        box_loss: BoxLoss | None = None,
        box_weight: float = 5.0,
        confidence_weight: float = 1.0,
        class_weight: float = 1.0,
        background_weight: float = 0.5,
        confidence_loss: ScoreLoss | None = None,
    ) -> None:
        super().__init__()
        self.assigner = assigner or CenterAssigner()
        self.box_loss = box_loss or MSEBoxLoss()
        self.box_weight = box_weight
        self.confidence_weight = confidence_weight
        self.class_weight = class_weight
        self.background_weight = background_weight
        self.confidence_loss = confidence_loss or MSEScore()

    def _sums(self, detection: DetectionOutput, batch: Batch) -> dict[str, Tensor]:
        assignment = self.assigner(detection, batch)
        positive = assignment.positive
        predicted = gather_rows(detection.boxes, assignment.candidates)
        target = gather_rows(batch.boxes, assignment.boxes)
        box = (self.box_loss(predicted, target) * positive).sum()

        is_positive = spread(positive.float(), assignment, detection.points.shape[0])
        background = (is_positive == 0) & outside_crowds(detection, batch)
        background = background & batch.detection_classes.all(1, keepdim=True)
        weight = is_positive + self.background_weight * background
        confidence = (self.confidence_loss(detection.confidence, is_positive) * weight).sum()

        # A class that the image was not labelled for is left out of its softmax.
        known = batch.detection_classes[:, None]
        logits = gather_rows(detection.classes, assignment.candidates).masked_fill(~known, -1e9)
        labels = batch.labels.gather(1, assignment.boxes)
        counts = positive & batch.detection_classes.gather(1, labels)
        classes = (F.cross_entropy(logits.transpose(1, 2), labels, reduction="none") * counts).sum()
        return {"total": positive.sum().to(box.dtype), "box": box, "confidence": confidence, "class": classes}

    @property
    def _factors(self) -> dict[str, float]:
        return {"box": self.box_weight, "confidence": self.confidence_weight, "class": self.class_weight}
