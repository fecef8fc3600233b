"""Which of the boxes that were found are given out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import torch
from torch import Tensor

from ocrnet_pl.errors import CheckpointError, UsageError
from ocrnet_pl.inference.chosen_rows import with_rows
from ocrnet_pl.inference.counting import expected_counts, rule_table
from ocrnet_pl.inference.operating_points import NO_POINT, OperatingPoint
from ocrnet_pl.inference.probabilities import probabilities, table
from ocrnet_pl.inference.score_calibration import ScoreCalibration
from ocrnet_pl.structures import Prediction, Taxonomy


@dataclass(frozen=True)
class BoxChoice:
    """Decides which boxes are given out, before or after fusion.

    Attributes:
        thresholds: float32 [num_detection], the score from which boxes of each class count; None if all count.
        classes: bool [num_detection], the classes that are given out; None for all.
        maps: float64 [num_detection, 3], the maps from scores to probabilities; None to give out the scores.
        rules: float64 [num_detection, 2], how to count objects; None if that is not known.
    """

    thresholds: Tensor | None = None
    classes: Tensor | None = None
    maps: Tensor | None = None
    rules: Tensor | None = None

    def counts(self, scores: Tensor, labels: Tensor) -> Tensor | None:
        """Return the numbers of objects as :class:`Prediction` has them; None if they are not known.

        Args:
            scores: Scores [N] of all boxes, of the decoder or of the fusion.
            labels: int64 [N].
        """
        if self.rules is None:
            return None
        found = expected_counts(self._final(scores, labels), labels, self.rules)
        return found if self.classes is None else found.masked_fill(~self.classes[:, None], torch.nan)

    def counting(self, scores: Tensor, labels: Tensor) -> Tensor | None:
        """Return which boxes reach the score of their class, bool [N]; None if all boxes count whatever their score.

        Args:
            scores: Scores [N] of the decoder or of the fusion.
            labels: int64 [N].
        """
        return None if self.thresholds is None else self._final(scores, labels) >= self.thresholds[labels]

    def finish(self, prediction: Prediction, counting: Tensor | None) -> Prediction:
        """Return a prediction with probabilities for scores, without the boxes and segments that are not given out.

        Args:
            prediction: The prediction, on the CPU.
            counting: bool [N], the boxes that count; None for all.
        """
        kept = counting
        if self.classes is not None:
            of_class = self.classes[prediction.labels]
            kept = of_class if kept is None else kept & of_class
        if self.maps is None:
            return prediction if kept is None else with_rows(prediction, kept.nonzero()[:, 0])
        final = self._final(prediction.scores, prediction.labels)
        # The order within a class does not change, that of the classes does.
        order = final.argsort(descending=True, stable=True)
        return with_rows(replace(prediction, scores=final), order if kept is None else order[kept[order]])

    def _final(self, scores: Tensor, labels: Tensor) -> Tensor:
        return scores if self.maps is None else probabilities(scores, labels, self.maps)


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
        if calibration is None and point.kind == NO_POINT:
            return cls(BoxChoice(None, allowed), BoxChoice(None, allowed))
        if calibration is None:
            raise no_points(operating_point)
        plain = {way: _plain(calibration, way, allowed, taxonomy) for way in calibration.curves}
        if point.kind == NO_POINT:
            return cls(plain["raw"], plain.get("fused", plain["raw"]))
        found = {way: calibration.thresholds(way, point, taxonomy) for way in calibration.curves}
        shown = found.get("fused", found["raw"])
        refusals = tuple(
            f"operating point {point}: {category.name!r}: {threshold.refusal}"
            for category, threshold in zip(taxonomy.detection_categories, shown, strict=True)
            if threshold.refusal is not None and (not classes or category.name in classes)
        )
        ways = {
            way: replace(plain[way], thresholds=torch.tensor([each.score for each in thresholds], dtype=torch.float32))
            for way, thresholds in found.items()
        }
        return cls(ways["raw"], ways.get("fused", ways["raw"]), refusals, True)


def no_points(operating_point: str) -> CheckpointError:
    """Return the error for an operating point of a network that was not calibrated."""
    return CheckpointError(
        f"operating_point {operating_point!r}: the network has no operating points; run `python train.py calibrate "
        "--ckpt_path FILE`, and use the checkpoint that it writes"
    )


def _plain(calibration: ScoreCalibration, way: str, allowed: Tensor | None, taxonomy: Taxonomy) -> BoxChoice:
    """Return the choice of all boxes of the given classes."""
    names = [category.name for category in taxonomy.detection_categories]
    maps, rules = calibration.probabilities.get(way), calibration.counts.get(way)
    return BoxChoice(
        None,
        allowed,
        table(maps.get(name) for name in names) if maps else None,
        rule_table(rules.get(name) for name in names) if rules else None,
    )


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
