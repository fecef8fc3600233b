"""What ``calibrate`` is to find of the scores."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ScoreOptions:
    """What is found of the scores besides the operating points.

    Attributes:
        probabilities: Whether scores of boxes, and the certainty of pixels, become probabilities; then objects are
            counted as well.
        miss_rate: Share of the objects of a class that may be missed, above 0 and below 1, for the operating point
            ``bound``; None for no bound.
        confidence: Confidence of the bound and of the intervals of numbers of objects, above 0 and below 1.

    Raises:
        ValueError: A number is out of range.
    """

    probabilities: bool = False
    miss_rate: float | None = None
    confidence: float = 0.9

    def __post_init__(self) -> None:
        for name in ("miss_rate", "confidence"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{name}: expected more than 0 and less than 1, got {value}")
