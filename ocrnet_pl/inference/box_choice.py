"""Which of the boxes that were found are given out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import torch
from torch import Tensor

from ocrnet_pl.errors import CheckpointError, UsageError
from ocrnet_pl.inference.operating_points import NO_POINT, OperatingPoint
from ocrnet_pl.inference.score_calibration import ScoreCalibration
from ocrnet_pl.structures import Prediction, Taxonomy


@dataclass(frozen=True)
class BoxChoice:
    """Decides which boxes are given out, before or after fusion.

    Attributes:
        thresholds: float32 [num_detection], the score from which boxes of each class count; None if all count.
        classes: bool [num_detection], the classes that are given out; None for all.
    """

    thresholds: Tensor | None = None
    classes: Tensor | None = None

    def counting(self, scores: Tensor, labels: Tensor) -> Tensor | None:
        """Return which boxes reach the score of their class, bool [N]; None if all boxes count whatever their score."""
        return None if self.thresholds is None else scores >= self.thresholds[labels]

    def finish(self, prediction: Prediction, counting: Tensor | None) -> Prediction:
        """Return a prediction without the boxes, masks and segments that are not given out.

        Args:
            prediction: The prediction, on the CPU.
            counting: bool [N], the boxes that count; None for all.
        """
        kept = counting
        if self.classes is not None:
            of_class = self.classes[prediction.labels]
            kept = of_class if kept is None else kept & of_class
        return prediction if kept is None else _only(prediction, kept.nonzero()[:, 0])


def _only(prediction: Prediction, rows: Tensor) -> Prediction:
    """Return a prediction with these of its boxes, in this order; the pixels of the others' segments become void."""
    number = torch.zeros(len(prediction.scores) + 1, dtype=torch.int32)
    number[rows + 1] = torch.arange(1, len(rows) + 1, dtype=torch.int32)
    changed = replace(
        prediction, boxes=prediction.boxes[rows], scores=prediction.scores[rows], labels=prediction.labels[rows]
    )
    if prediction.instances is not None:
        changed.instances = number[prediction.instances.long()]
    if prediction.panoptic is not None:
        place = number.tolist()
        segments = [each for each in prediction.segments if each.instance is None or place[each.instance + 1]]
        ids = torch.zeros(max((each.id for each in prediction.segments), default=0) + 1, dtype=torch.int32)
        for position, each in enumerate(segments, 1):
            ids[each.id] = position
        changed.panoptic = ids[prediction.panoptic.long()]
        changed.segments = [
            replace(each, id=position, instance=None if each.instance is None else place[each.instance + 1] - 1)
            for position, each in enumerate(segments, 1)
        ]
    return changed


@dataclass(frozen=True)
class Choices:
    """The choice of boxes before and after fusion, and what has to be said of it.

    Attributes:
        raw: The choice before fusion.
        fused: The choice after fusion.
        refusals: One line for each class that the operating point cannot be had for.
        active: Whether an operating point decides what counts as an object.
    """

    raw: BoxChoice = BoxChoice()
    fused: BoxChoice = BoxChoice()
    refusals: tuple[str, ...] = ()
    active: bool = False

    @classmethod
    def make(
        cls, operating_point: str, classes: Sequence[str], calibration: ScoreCalibration | None, taxonomy: Taxonomy
    ) -> Choices:
        """Return the choice for an operating point and for some of the classes.

        Args:
            operating_point: The text of an :class:`OperatingPoint`.
            classes: Names of the classes that are given out; empty for all.
            calibration: What is known of the scores; None if ``calibrate`` was not run.
            taxonomy: The categories.

        Raises:
            UsageError: The text is no operating point, or a name is no class with boxes.
            CheckpointError: An operating point is wanted, and nothing is known of the scores.
        """
        point = OperatingPoint.parse(operating_point)
        allowed = _chosen_classes(classes, taxonomy)
        if point.kind == NO_POINT:
            return cls(BoxChoice(None, allowed), BoxChoice(None, allowed))
        if calibration is None:
            raise CheckpointError(
                f"operating_point {operating_point!r}: the network has no operating points; run `python train.py "
                "calibrate --ckpt_path FILE`, and use the checkpoint that it writes"
            )
        found = {way: calibration.thresholds(way, point, taxonomy) for way in calibration.curves}
        shown = found.get("fused", found["raw"])
        refusals = tuple(
            f"operating point {point}: {category.name!r}: {threshold.refusal}"
            for category, threshold in zip(taxonomy.detection_categories, shown, strict=True)
            if threshold.refusal is not None and (not classes or category.name in classes)
        )
        ways = {
            way: BoxChoice(torch.tensor([each.score for each in thresholds], dtype=torch.float32), allowed)
            for way, thresholds in found.items()
        }
        return cls(ways["raw"], ways.get("fused", ways["raw"]), refusals, True)


def _chosen_classes(names: Sequence[str], taxonomy: Taxonomy) -> Tensor | None:
    if not names:
        return None
    known = [category.name for category in taxonomy.detection_categories]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, known[:20]))}"
            raise UsageError(f"classes: there is no class {name!r} with boxes; {hint}")
    return torch.tensor([name in names for name in known], dtype=torch.bool)
