"""The numbers that fusion works with, and the classes that it does not change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ocrnet_pl.structures import Taxonomy


@dataclass(frozen=True)
class FusionSettings:
    """How boxes and pixels are merged.

    Attributes:
        mask_threshold: Score below which boxes are left out of the panoptic map, 0 to 1.
        spread: Width of the Gaussian prior on a pixel's place in the box, in half box sides, above 0; small values
            separate touching objects.
        claim: Factor on the probability that a box of score 1 adds to its class at its centre, at least 0; 0 adds
            nothing.
        rescore: Exponent of the pixel agreement in the fused score, 0 to 1; 0 keeps the scores.
        refine: How far fused box sides move towards the bounds of their pixels, 0 to 1; 0 does not move them.
        min_fill: Share of its area below which a box that does not reach its sides either is left out of the panoptic
            map, 0 to 1.
        min_stuff_area: Number of pixels below which a stuff region becomes void, at least 0.
        agnostic_iou: IoU above which a box is dropped in favour of a better one of any class, 0 to 1, for objects that
            cannot be of two classes; null drops only boxes of the same class.
        temperature: Number that the pixels' logits are divided by, above 0; larger ones make them less certain.
        raw_boxes: Names of the categories whose boxes and scores are not changed by fusion.
        raw_pixels: Names of the categories that neither gain nor lose pixels by fusion.

    Raises:
        ValueError: A number is out of range.
    """

    mask_threshold: float = 0.3
    spread: float = 1.5
    claim: float = 0.25
    rescore: float = 0.3
    refine: float = 0.3
    min_fill: float = 0.2
    min_stuff_area: int = 64
    agnostic_iou: float | None = None
    temperature: float = 1.0
    raw_boxes: tuple[str, ...] = ()
    raw_pixels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("mask_threshold", "rescore", "refine", "min_fill", "agnostic_iou"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"postprocess.{name}: expected 0 to 1, got {value}")
        for name in ("spread", "temperature"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"postprocess.{name}: expected a positive number, got {value}")
        if not (self.claim >= 0 and math.isfinite(self.claim)):
            raise ValueError(f"postprocess.claim: expected a number of at least 0, got {self.claim}")
        if self.min_stuff_area < 0:
            raise ValueError(f"postprocess.min_stuff_area: expected at least 0, got {self.min_stuff_area}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists, for a checkpoint or JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], taxonomy: Taxonomy) -> FusionSettings:
        """Rebuild settings from :meth:`to_dict`.

        Args:
            data: The plain values; missing ones get their defaults.
            taxonomy: The categories that the names must belong to.

        Raises:
            ValueError: A key or a category is unknown, or a number is out of range.
        """
        known = {field.name for field in fields(cls)}
        for key in data:
            if key not in known:
                raise ValueError(f"checkpoint: fusion setting {key!r} is unknown; it was written by a newer version")
        names = {category.name for category in taxonomy.categories}
        lists = {key: tuple(data.get(key, ())) for key in ("raw_boxes", "raw_pixels")}
        for key, chosen in lists.items():
            for name in chosen:
                if name not in names:
                    raise ValueError(f"checkpoint: fusion setting {key} names {name!r}, which is not a category")
        return cls(**{**data, **lists})
