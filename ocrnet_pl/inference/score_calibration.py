"""What is known of the scores of a network's boxes, from labelled images that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ocrnet_pl.inference.counting import CountRule
from ocrnet_pl.inference.operating_points import Curve, OperatingPoint, Threshold
from ocrnet_pl.inference.probabilities import Beta
from ocrnet_pl.structures import Taxonomy

ONE_PASS = "single passes over whole images"
"""How an image is predicted without several scales and without tiles, in words for messages."""
WAYS = ("raw", "fused")
"""The boxes before and after fusion, whose scores differ."""

T = TypeVar("T")
ByClass = Mapping[str, Mapping[str, T]]
"""Something by way (``raw``, and ``fused`` with both tasks) and name of the class."""


@dataclass(frozen=True)
class ScoreCalibration:
    """What ``calibrate`` found of the scores, per class.

    Attributes:
        images: Number of labelled images that it is from.
        iou: IoU with an object from which a box counts as a hit.
        curves: Precision and recall; classes without objects have none.
        probabilities: Maps from scores to probabilities; classes without one keep their scores. All else is about the
            probabilities.
        counts: How to count objects; classes without probabilities have none.
        bounds: Thresholds that miss at most ``miss_rate`` of the objects.
        miss_rate: The share of objects that the bounds promise not to miss; None without bounds.
        confidence: The confidence of the bounds and of the intervals of numbers of objects.
        passes: How the images were predicted, in words; other passes have other scores.
    """

    images: int
    iou: float
    curves: ByClass[Curve] = field(default_factory=dict)
    probabilities: ByClass[Beta] = field(default_factory=dict)
    counts: ByClass[CountRule] = field(default_factory=dict)
    bounds: ByClass[Threshold] = field(default_factory=dict)
    miss_rate: float | None = None
    confidence: float = 0.9
    passes: str = ONE_PASS

    def thresholds(self, way: str, point: OperatingPoint, taxonomy: Taxonomy) -> list[Threshold]:
        """Return the threshold of each detection class.

        Args:
            way: ``raw`` or ``fused``.
            point: What is wanted.
            taxonomy: The categories.
        """
        curves, bounds = self.curves[way], self.bounds.get(way, {})
        names = [category.name for category in taxonomy.detection_categories]
        return [point.threshold(curves.get(name), bounds.get(name)) for name in names]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint or JSON."""
        return {
            "images": self.images,
            "iou": self.iou,
            "curves": _each(self.curves, lambda curve: [curve.objects, curve.to_text()]),
            "probabilities": _each(self.probabilities, list),
            "counts": _each(self.counts, list),
            "bounds": _each(self.bounds, list),
            "miss_rate": self.miss_rate,
            "confidence": self.confidence,
            "passes": self.passes,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], taxonomy: Taxonomy) -> ScoreCalibration:
        """Rebuild it from :meth:`to_dict`.

        Args:
            data: The plain values, which may contain anything.
            taxonomy: The categories that the names must belong to.

        Raises:
            ValueError: A value is missing, unknown or wrong.
        """
        try:
            found = cls(
                _count(data["images"]),
                _share(data["iou"]),
                _each(data["curves"], lambda row: Curve.from_text(row[1], _count(row[0]))),
                _each(data["probabilities"], lambda row: _beta(*row)),
                _each(data["counts"], lambda row: _rule(*row)),
                _each(data["bounds"], lambda row: _threshold(*row)),
                None if data["miss_rate"] is None else _share(data["miss_rate"]),
                _share(data["confidence"]),
                # Earlier versions knew no others.
                _line(data.get("passes", ONE_PASS)),
            )
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"an entry is missing or wrong ({type(error).__name__}: {error!s:.80})") from error
        for key in data:
            if key not in found.to_dict():
                raise ValueError(f"{key!r:.80} is unknown; it was written by a newer version")
        if "raw" not in found.curves:
            raise ValueError("there are no curves of raw boxes")
        for by_class in (found.curves, found.probabilities, found.counts, found.bounds):
            _check_names(by_class, taxonomy)
        return found


def _each(by_class: ByClass[Any], change: Callable[[Any], T]) -> dict[str, dict[str, T]]:
    return {way: {name: change(value) for name, value in own.items()} for way, own in by_class.items()}


def _check_names(by_class: ByClass[Any], taxonomy: Taxonomy) -> None:
    names = {category.name for category in taxonomy.detection_categories}
    for way, own in by_class.items():
        if way not in WAYS:
            raise ValueError(f"{way!r:.80} is none of {', '.join(WAYS)}")
        for name in own:
            if name not in names:
                raise ValueError(f"{name!r:.80} is not a class with boxes")


def _beta(a: Any, b: Any, c: Any) -> Beta:
    found = Beta(_number(a), _number(b), _number(c))
    if min(found.a, found.b) < 0 or max(found.a, found.b) == 0:
        raise ValueError("a map to probabilities does not rise with the score")
    return found


def _rule(recall: Any, margin: Any) -> CountRule:
    found = CountRule(_share(recall), None if margin is None else _number(margin))
    if not found.recall or (found.margin is not None and found.margin < 0):
        raise ValueError("to count objects, a recall above 0 and a margin of at least 0 are needed")
    return found


def _threshold(score: Any, refusal: Any) -> Threshold:
    return Threshold(_share(score), None if refusal is None else _line(refusal))


def _line(value: Any) -> str:
    if not (isinstance(value, str) and value.isprintable() and len(value) < 500):
        raise ValueError(f"expected a line of text, got {value!r:.80}")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a number of at least 0, got {value!r:.80}")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"expected a number, got {value!r:.80}")
    return float(value)


def _share(value: Any) -> float:
    if not 0 <= _number(value) <= 1:
        raise ValueError(f"expected a number from 0 to 1, got {value!r:.80}")
    return float(value)
