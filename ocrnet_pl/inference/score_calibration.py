"""What is known of the scores of a network's boxes, from labelled images that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ocrnet_pl.inference.operating_points import Curve, OperatingPoint, Threshold
from ocrnet_pl.structures import Taxonomy

WAYS = ("raw", "fused")
"""The boxes before and after fusion, whose scores differ."""


@dataclass(frozen=True)
class ScoreCalibration:
    """What ``calibrate`` found of the scores, per class.

    Attributes:
        images: Number of labelled images that it is from.
        iou: IoU with an object from which a box counts as a hit.
        curves: Curves by way (``raw``, and ``fused`` with both tasks) and class; classes without objects have none.
    """

    images: int
    iou: float
    curves: Mapping[str, Mapping[str, Curve]] = field(default_factory=dict)

    def thresholds(self, way: str, point: OperatingPoint, taxonomy: Taxonomy) -> list[Threshold]:
        """Return the threshold of each detection class.

        Args:
            way: ``raw`` or ``fused``.
            point: What is wanted.
            taxonomy: The categories.
        """
        curves = self.curves[way]
        return [point.threshold(curves.get(category.name)) for category in taxonomy.detection_categories]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint or JSON."""
        curves = {
            way: {name: [curve.objects, curve.to_text()] for name, curve in own.items()}
            for way, own in self.curves.items()
        }
        return {"images": self.images, "iou": self.iou, "curves": curves}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], taxonomy: Taxonomy) -> ScoreCalibration:
        """Rebuild it from :meth:`to_dict`.

        Args:
            data: The plain values, which may contain anything.
            taxonomy: The categories that the names must belong to.

        Raises:
            ValueError: A value is missing, unknown or wrong.
        """
        known = {"images", "iou", "curves"}
        for key in data:
            if key not in known:
                raise ValueError(f"{key!r:.80} is unknown; it was written by a newer version")
        try:
            curves = {
                way: {name: Curve.from_text(text, _count(objects)) for name, (objects, text) in own.items()}
                for way, own in data["curves"].items()
            }
            found = cls(_count(data["images"]), _share(data["iou"]), curves)
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"an entry is missing or wrong ({type(error).__name__}: {error!s:.80})") from error
        _check_names(curves, taxonomy)
        return found


def _check_names(by_way: Mapping[str, Mapping[str, Any]], taxonomy: Taxonomy) -> None:
    names = {category.name for category in taxonomy.detection_categories}
    if "raw" not in by_way or set(by_way) - set(WAYS):
        raise ValueError(f"expected entries for {' and '.join(WAYS)}")
    for own in by_way.values():
        for name in own:
            if name not in names:
                raise ValueError(f"{name!r:.80} is not a class with boxes")


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a number of at least 0, got {value!r:.80}")
    return value


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and 0 <= value <= 1):
        raise ValueError(f"expected a number from 0 to 1, got {value!r:.80}")
    return float(value)
