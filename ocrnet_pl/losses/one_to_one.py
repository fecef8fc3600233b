"""The loss of detection decoders that need no suppression."""

from __future__ import annotations

from torch import Tensor

from ocrnet_pl.losses.assignment import TaskAlignedAssigner
from ocrnet_pl.losses.base import Measured, SummedLoss
from ocrnet_pl.losses.detection import DetectionLoss, QualityDetectionLoss
from ocrnet_pl.structures import Batch, Output

_MANY = "many_"
"""What the names of the second branch begin with."""


class OneToOneDetectionLoss(SummedLoss):
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

    def measure(self, output: Output, batch: Batch) -> Measured:
        """Measure both branches; of a network in evaluation, which has no one-to-many branch, the other one.

        Raises:
            ValueError: The decoder has no one-to-many branch to train.
        """
        detection = output.detection
        if detection is None:
            return Measured({}, {})
        many = detection.one_to_many
        if many is None and not self.training:
            return self.one_to_one.measure(output, batch)
        if many is None:
            raise ValueError(
                "model.detection_loss: OneToOneDetectionLoss needs a decoder with a one-to-many branch; set "
                "model.detection to one, or model.detection_loss to QualityDetectionLoss"
            )
        one = self.one_to_one.measure(Output(detection._replace(one_to_many=None), None), batch)
        others = self.one_to_many.measure(Output(many, None), batch)
        return Measured(*(mine | _marked(theirs) for mine, theirs in zip(one, others, strict=True)))

    def combine(self, totals: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the terms of the branches that were measured."""
        (one, many), (own_one, own_many) = _parted(totals), _parted(own)
        return self.one_to_one.combine(one, own_one) | _marked(self.one_to_many.combine(many, own_many))


def _marked(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {_MANY + name: value for name, value in values.items()}


def _parted(values: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    one = {name: value for name, value in values.items() if not name.startswith(_MANY)}
    return one, {name.removeprefix(_MANY): value for name, value in values.items() if name.startswith(_MANY)}
