"""Finds the fusion settings on labelled images, and the classes for which the raw output is better."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ocrnet_pl.calibration.raw_results import Collected
from ocrnet_pl.inference.fusion import Corrected, FusionPostProcess
from ocrnet_pl.inference.heuristic import HeuristicMerge
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.metrics.detection import DetectionMetric
from ocrnet_pl.metrics.panoptic import PanopticMetric
from ocrnet_pl.metrics.segmentation import SegmentationMetric
from ocrnet_pl.structures import Prediction, Taxonomy

SCORES = ("map", "miou", "pq", "mask_map")
"""The figures that fusion is judged by, in equal parts."""

_PANOPTIC = ("mask_threshold", "min_fill", "min_stuff_area")
_GRID: dict[str, tuple[tuple[float, ...], tuple[str, ...]]] = {
    "spread": ((0.7, 1.0, 1.5, 2.5, 5.0), SCORES),
    "claim": ((0.0, 0.1, 0.25, 0.5, 1.0, 2.0), SCORES),
    "rescore": ((0.0, 0.15, 0.3, 0.5, 0.75), ("map", "mask_map")),
    "refine": ((0.0, 0.15, 0.3, 0.5, 0.75, 1.0), ("map",)),
    "mask_threshold": ((0.2, 0.25, 0.3, 0.35, 0.4, 0.5), ("pq",)),
    "min_fill": ((0.0, 0.1, 0.2, 0.3, 0.4, 0.5), ("pq",)),
    "min_stuff_area": ((0, 64, 256, 1024), ("pq",)),
}
"""The values that are tried for each setting, and the figures that it can change."""
_GAIN = 1e-4
"""A change must improve the mean score by this much; less is noise."""
_EXACT = 1e-9

Figures = dict[str, float]


@dataclass(frozen=True)
class Calibration:
    """How the fusion settings are chosen.

    Attributes:
        images: Largest number of validation images to use, spread evenly over the set; at least 2.
        holdout: Whether to choose on one half of the images and reject changes that lower the score on the other half.
        rounds: Largest number of passes over all settings; 0 keeps the settings that the checkpoint has.
        seed: Seed of the random split into halves.
        agnostic_iou: IoU above which a box is dropped in favour of a better one of any class, 0 to 1, here and in all
            that uses the new checkpoint; null keeps what the checkpoint has.

    Raises:
        ValueError: A number is out of range.
    """

    images: int = 200
    holdout: bool = True
    rounds: int = 2
    seed: int = 0
    agnostic_iou: float | None = None

    def __post_init__(self) -> None:
        if self.images < 2:
            raise ValueError(f"calibration.images: expected at least 2, got {self.images}")
        if self.rounds < 0:
            raise ValueError(f"calibration.rounds: expected at least 0, got {self.rounds}")
        if self.agnostic_iou is not None and not 0 <= self.agnostic_iou <= 1:
            raise ValueError(f"calibration.agnostic_iou: expected 0 to 1, got {self.agnostic_iou}")


@dataclass(frozen=True)
class Report:
    """The result of a calibration.

    Attributes:
        settings: The chosen settings.
        images: Number of images in all, and in the half that was used only to reject changes (0 without one).
        figures: The figures by set of images ("all", "held out") and way of merging ("raw", "fused before", "fused
            calibrated"); raw boxes and pixels are merged by rule.
    """

    settings: FusionSettings
    images: tuple[int, int]
    figures: dict[str, dict[str, Figures]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "settings": self.settings.to_dict(),
            "images": self.images[0],
            "images_held_out": self.images[1],
            "figures": self.figures,
        }


def measure(
    predictions: Sequence[Prediction], items: Sequence[Collected], taxonomy: Taxonomy, kinds: Iterable[str] = SCORES
) -> Figures:
    """Return the figures of predictions; the requested ones include their parts per class.

    Args:
        predictions: One prediction per item.
        items: Collected results, which contain the truths.
        taxonomy: The categories.
        kinds: Names of the requested figures, from :data:`SCORES`.
    """
    makers: dict[str, Callable[[], Any]] = {
        "map": lambda: DetectionMetric(taxonomy),
        "miou": lambda: SegmentationMetric(taxonomy),
        "pq": lambda: PanopticMetric(taxonomy),
        "mask_map": lambda: DetectionMetric(taxonomy, masks=True, per_class=False),
    }
    figures: Figures = {}
    for kind in kinds:
        metric = makers[kind]()
        metric.update(list(predictions), [item.truth for item in items])
        values = metric.compute()
        figures[kind] = float(values[kind])
        figures |= {key: float(value) for key, value in values.items() if "_per_class/" in key}
    return figures


def mean_score(figures: Figures) -> float:
    """Return the mean of the scores that are defined; NaN where there are none."""
    values = [figures[key] for key in SCORES if not math.isnan(figures.get(key, math.nan))]
    return sum(values) / len(values) if values else math.nan


def in_hashed_order(ids: Sequence[int | str], seed: int) -> list[int]:
    """Return the rows in a random order that depends only on the ids and the seed."""
    keys = [hashlib.sha256(f"{seed}:{image_id}".encode()).digest() for image_id in ids]
    return sorted(range(len(ids)), key=lambda row: keys[row])


def split_in_two(ids: Sequence[int | str], seed: int) -> tuple[list[int], list[int]]:
    """Split rows into halves that depend only on the ids and the seed; the first is the larger one."""
    order = in_hashed_order(ids, seed)
    middle = (len(ids) + 1) // 2
    return sorted(order[:middle]), sorted(order[middle:])


class Calibrator:
    """Searches the settings, one after the other, on collected results.

    Args:
        items: One collected result per image.
        taxonomy: The categories.
        start: The settings to start from.
        heuristic: How raw predictions are merged.
        options: How to choose the settings.
        progress: Called after each of at most :attr:`steps` steps.
    """

    def __init__(
        self,
        items: Sequence[Collected],
        taxonomy: Taxonomy,
        start: FusionSettings | None = None,
        heuristic: HeuristicMerge | None = None,
        options: Calibration | None = None,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.items = items
        self.taxonomy = taxonomy
        self.start = start or FusionSettings()
        self.options = options or Calibration()
        self.progress = progress
        self._heuristic = heuristic or HeuristicMerge()
        chosen = list(range(len(items)))
        held: list[int] = []
        if self.options.holdout:
            chosen, held = split_in_two([item.truth.image_id for item in items], self.options.seed)
        self._groups = {"chosen": chosen} | ({"held out": held} if held else {})

    @property
    def steps(self) -> int:
        """The largest number of evaluations that the search needs, without those that decide which classes stay raw."""
        return self.options.rounds * sum(len(values) for values, _ in _GRID.values())

    def run(self) -> Report:
        """Search, decide which classes stay raw, and measure."""
        raw = [self._heuristic(i.detections, _labels(i), self.taxonomy) for i in self.items]
        settings = self._fall_back(self._search(), raw) if self.options.rounds else self.start
        ways = {"raw": raw, "fused before": self._fuse(self.start), "fused calibrated": self._fuse(settings)}
        figures: dict[str, dict[str, Figures]] = {"all": {}}
        for way, predictions in ways.items():
            figures["all"][way] = measure(predictions, self.items, self.taxonomy)
            if "held out" in self._groups:
                figures.setdefault("held out", {})[way] = self._measure("held out", predictions, SCORES)
        images = len(self.items), len(self._groups.get("held out", ()))
        return Report(settings, images, figures)

    def _search(self) -> FusionSettings:
        best = self.start
        corrected = self._correct(best)
        figures = self._of_groups(self._panoptic(best, corrected), SCORES)
        for _ in range(self.options.rounds):
            before = best
            for name, (values, kinds) in _GRID.items():
                trials = []
                for value in values:
                    self.progress()
                    if value == getattr(best, name):
                        continue
                    change: dict[str, Any] = {name: value}
                    trial = replace(best, **change)
                    again = corrected if name in _PANOPTIC else self._correct(trial)
                    # Without its panoptic map where it is not needed.
                    shown = self._panoptic(trial, again) if "pq" in kinds else [part.prediction for part in again]
                    own = self._of_groups(shown, kinds)
                    trials.append(({group: figures[group] | own[group] for group in figures}, trial))
                for own, trial in sorted(trials, key=lambda pair: mean_score(pair[0]["chosen"]), reverse=True):
                    if mean_score(own["chosen"]) < mean_score(figures["chosen"]) + _GAIN:
                        break
                    if all(mean_score(own[group]) >= mean_score(figures[group]) for group in own):
                        best, figures = trial, own
                        corrected = corrected if name in _PANOPTIC else self._correct(best)
                        break
            if best == before:
                break
        return best

    def _fall_back(self, settings: FusionSettings, raw: Sequence[Prediction]) -> FusionSettings:
        """Exclude each class that fusion makes worse, on all images or on either half.

        Of classes that the images are not labelled for, those stay excluded that were.
        """
        every = {"all": list(range(len(self.items))), **self._groups}
        plain = {group: self._at(rows, raw, ("map", "miou")) for group, rows in every.items()}
        settings = replace(
            settings,
            raw_boxes=_unmeasured(self.start.raw_boxes, plain["all"], "map"),
            raw_pixels=_unmeasured(self.start.raw_pixels, plain["all"], "iou"),
        )
        while True:
            fused = self._fuse(settings)
            losses: dict[str, dict[str, float]] = {"map": {}, "iou": {}}
            for group, rows in every.items():
                own = self._at(rows, fused, ("map", "miou"))
                for key, value in plain[group].items():
                    kind, _, name = key.partition("_per_class/")
                    lost = _loss(value, own[key])
                    if name and lost > _EXACT:
                        losses[kind][name] = max(losses[kind].get(name, 0.0), lost)
            # Boxes do not depend on other classes' boxes. Pixels do: a class that takes too many lowers those that it
            # takes from, so the worst classes are excluded first, and the rest is measured again.
            things = {category.name for category in self.taxonomy.semantic_categories if category.is_thing}
            worst = sorted(losses["iou"], key=lambda name: (name not in things, -losses["iou"][name]))
            order = [name for name in worst if name not in settings.raw_pixels]
            pixels = order[: max(1, len(order) // 4)]
            if worst and not order:
                # An excluded class loses where others take pixels that did not count: those of a class that the image
                # was not labelled for. No pixel changes once all classes with boxes are excluded.
                pixels = [c.name for c in self.taxonomy.semantic_categories if c.detection is not None]
            before = settings
            settings = replace(
                settings,
                raw_boxes=_joined(settings.raw_boxes, losses["map"]),
                raw_pixels=_joined(settings.raw_pixels, pixels),
            )
            if settings == before:
                return settings

    def _correct(self, settings: FusionSettings) -> list[Corrected]:
        fusion = _with(settings)
        return [
            fusion.correct(item.detections, item.semantic(settings.temperature), self.taxonomy) for item in self.items
        ]

    def _panoptic(self, settings: FusionSettings, corrected: Sequence[Corrected]) -> list[Prediction]:
        fusion = _with(settings)
        return [fusion.with_panoptic(part, self.taxonomy) for part in corrected]

    def _fuse(self, settings: FusionSettings) -> list[Prediction]:
        return self._panoptic(settings, self._correct(settings))

    def _measure(self, group: str, predictions: Sequence[Prediction], kinds: Iterable[str]) -> Figures:
        return self._at(self._groups[group], predictions, kinds)

    def _at(self, rows: Sequence[int], predictions: Sequence[Prediction], kinds: Iterable[str]) -> Figures:
        return measure([predictions[r] for r in rows], [self.items[r] for r in rows], self.taxonomy, kinds)

    def _of_groups(self, predictions: Sequence[Prediction], kinds: Iterable[str]) -> dict[str, Figures]:
        return {group: self._measure(group, predictions, kinds) for group in self._groups}


def _loss(raw: float, fused: float) -> float:
    """Return by how much a class is worse when fused; infinite for one without a score before: it lowers the mean."""
    if math.isnan(raw):
        return 0.0 if math.isnan(fused) else math.inf
    return raw - fused


def _unmeasured(names: Iterable[str], figures: Figures, kind: str) -> tuple[str, ...]:
    """Return the names of classes without a figure."""
    return tuple(name for name in names if math.isnan(figures.get(f"{kind}_per_class/{name}", math.nan)))


def _with(settings: FusionSettings) -> FusionPostProcess:
    fusion = FusionPostProcess()
    fusion.settings = settings
    return fusion


def _labels(item: Collected) -> Tensor:
    return item.semantic().labels.to(torch.uint8)


def _joined(names: tuple[str, ...], more: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*names, *more}))
