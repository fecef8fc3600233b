"""All that labelled images say of scores: curves, probabilities, numbers of objects, and a bound on what is missed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ocrnet_pl.calibration.box_outcomes import HIT_IOU, BoxOutcomes, ClassOutcomes
from ocrnet_pl.calibration.count_rules import count_rule
from ocrnet_pl.calibration.probability_fit import LEAST, fit_beta
from ocrnet_pl.calibration.risk_bound import Wager, bound_threshold
from ocrnet_pl.calibration.score_options import ScoreOptions
from ocrnet_pl.calibration.shares import Shares
from ocrnet_pl.inference.counting import CountRule
from ocrnet_pl.inference.operating_points import Threshold
from ocrnet_pl.inference.probabilities import Beta, probabilities, table
from ocrnet_pl.inference.score_calibration import ScoreCalibration
from ocrnet_pl.metrics.reliability import Reliability
from ocrnet_pl.structures import Taxonomy


@dataclass(frozen=True)
class ScoreReport:
    """How far scores could be taken at their word before and after.

    Attributes:
        images: Number of images that judge it.
        reliability: Before and after, by class, and of the pixels; of the boxes that are given out.
        unmapped: Names of the classes that keep their scores.
    """

    images: int = 0
    reliability: dict[str, tuple[Reliability, Reliability]] = field(default_factory=dict)
    unmapped: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the errors as plain values, for JSON."""
        pairs = self.reliability.items()
        errors = {name: {"before": before.error, "after": after.error} for name, (before, after) in pairs}
        return {"images": self.images, "calibration_error": errors, "unchanged": list(self.unmapped)}

    def unmapped_line(self) -> str | None:
        """Return which classes keep their scores and why; None if none does."""
        if not self.unmapped:
            return None
        return (
            f"The scores of {', '.join(self.unmapped)} are no probabilities: that needs {LEAST} hits and {LEAST} false "
            "alarms, and hits with higher scores"
        )


def fit_scores(
    outcomes: Mapping[str, BoxOutcomes], shares: Shares, options: ScoreOptions, taxonomy: Taxonomy
) -> tuple[ScoreCalibration, ScoreReport]:
    """Return what is known of the scores of each class.

    Args:
        outcomes: The boxes of all images by way, ``raw`` and, with both tasks, ``fused``.
        shares: Which images are used for what; the curves are of all.
        options: What is to be found.
        taxonomy: The categories.
    """
    names = [category.name for category in taxonomy.detection_categories]
    maps: dict[str, dict[str, Beta]] = {}
    rules: dict[str, dict[str, CountRule]] = {}
    bounds: dict[str, dict[str, Threshold]] = {}
    mapped: dict[str, BoxOutcomes] = {}
    for way, own in outcomes.items():
        found: dict[str, ClassOutcomes] = dict(zip(names, own.classes, strict=True))
        if options.probabilities:
            fits = {name: fit_beta(*each.of_images(shares.chosen)[:2]) for name, each in found.items()}
            maps[way] = {name: fit for name, fit in fits.items() if fit is not None}
            found = {name: map_scores(each, fits[name]) for name, each in found.items()}
            counts = {
                name: count_rule(found[name], shares.chosen, shares.judging, options.confidence) for name in maps[way]
            }
            rules[way] = {name: rule for name, rule in counts.items() if rule is not None}
        if options.miss_rate is not None:
            bounds[way] = {
                name: _bound(each, shares, options.miss_rate, options.confidence) for name, each in found.items()
            }
        mapped[way] = BoxOutcomes(tuple(found.values()))
    calibration = ScoreCalibration(
        sum(map(len, shares)),
        HIT_IOU,
        {way: own.curves(taxonomy) for way, own in mapped.items()},
        maps,
        rules,
        bounds,
        options.miss_rate,
        options.confidence,
    )
    if not options.probabilities:
        return calibration, ScoreReport()
    way = "fused" if "fused" in outcomes else "raw"
    reliability = {}
    for number, name in enumerate(names):
        if name in maps[way]:
            pair = (each[way].classes[number].of_images(shares.judging) for each in (outcomes, mapped))
            before, after = (Reliability.of(each.scores, each.hits) for each in pair)
            reliability[name] = (before, after)
    unmapped = tuple(name for name in names if name not in maps[way])
    return calibration, ScoreReport(len(shares.judging), reliability, unmapped)


def _bound(outcomes: ClassOutcomes, shares: Shares, miss_rate: float, confidence: float) -> Threshold:
    wager = Wager.choose(outcomes.of_images(shares.settings), miss_rate, confidence)
    return bound_threshold(outcomes.of_images(shares.signing), wager, miss_rate, confidence)


def map_scores(outcomes: ClassOutcomes, beta: Beta | None) -> ClassOutcomes:
    """Return the boxes of one class with probabilities for scores.

    Args:
        outcomes: The boxes.
        beta: The map of the class; None to keep the scores.
    """
    labels = torch.zeros(len(outcomes.scores), dtype=torch.int64)
    found = probabilities(torch.from_numpy(outcomes.scores), labels, table([beta]))
    return outcomes._replace(scores=np.asarray(found))
