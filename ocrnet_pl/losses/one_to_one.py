"""The loss of detection decoders that need no suppression."""

from __future__ import annotations

from torch import Tensor

from ocrnet_pl.losses.assignment import TaskAlignedAssigner
from ocrnet_pl.losses.base import Loss
from ocrnet_pl.losses.detection import DetectionLoss, QualityDetectionLoss
from ocrnet_pl.structures import Batch, Output


class OneToOneDetectionLoss(Loss):
    """Trains one branch with one candidate per box, which is kept, and one with many, which trains the features.

    Wang et al., "YOLOv10", NeurIPS 2024: consistent dual assignment, that is, both branches rank candidates alike.

    Args:
        one_to_one: Loss of the branch that is kept after training; null for a task-aligned assignment of one candidate.
        one_to_many: Loss of the branch that is used in training only; null for a task-aligned assignment of ten
            candidates. Its terms are logged as ``many_<term>``.
    """

    def __init__(self, one_to_one: DetectionLoss | None = None, one_to_many: DetectionLoss | None = None) -> None:
        super().__init__()
        self.one_to_one = one_to_one or QualityDetectionLoss(TaskAlignedAssigner(topk=1))
        self.one_to_many = one_to_many or QualityDetectionLoss(TaskAlignedAssigner(topk=10))

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of both branches.

        Raises:
            ValueError: The decoder has no one-to-many branch.
        """
        detection = output.detection
        if detection is None:
            return {}
        many = detection.one_to_many
        if many is None:
            raise ValueError(
                "model.detection_loss: OneToOneDetectionLoss needs a decoder with a one-to-many branch; set "
                "model.detection to one, or model.detection_loss to QualityDetectionLoss"
            )
        terms: dict[str, Tensor] = self.one_to_one(Output(detection._replace(one_to_many=None), None), batch)
        others: dict[str, Tensor] = self.one_to_many(Output(many, None), batch)
        return terms | {f"many_{name}": term for name, term in others.items()}
