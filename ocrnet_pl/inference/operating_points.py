"""The scores from which boxes count: read off curves of precision and recall, by what is wanted."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.errors import UsageError

NO_POINT = "none"
"""The name of the operating point that keeps all boxes."""
_FIXED = (NO_POINT, "best_f1", "bound")
_WANTED = ("precision", "recall")
_ROUNDING = 1e-5
"""Share of a score of the curve by which its threshold is lower: the same box has other last digits elsewhere."""


@dataclass(frozen=True)
class Curve:
    """Precision and recall of one class over the score, at scores at which the recall rises.

    Attributes:
        scores: Scores, falling.
        hits: Number of hits among the boxes of at least each score.
        alarms: Number of false alarms among them.
        objects: Number of labelled objects.
    """

    scores: tuple[float, ...]
    hits: tuple[int, ...]
    alarms: tuple[int, ...]
    objects: int

    def to_text(self) -> str:
        """Return the curve as a short text, for a checkpoint or JSON: base64 of little-endian numbers of 32 bits."""
        columns = (np.array(self.scores, "<f4"), np.array(self.hits, "<u4"), np.array(self.alarms, "<u4"))
        return base64.b64encode(b"".join(column.tobytes() for column in columns)).decode("ascii")

    @classmethod
    def from_text(cls, text: str, objects: int) -> Curve:
        """Rebuild a curve from :meth:`to_text`.

        Raises:
            ValueError: The text is damaged.
        """
        data = base64.b64decode(text, validate=True)
        if len(data) % 12:
            raise ValueError("a curve is cut off")
        end = len(data) // 3
        scores = np.frombuffer(data[:end], "<f4")
        hits, alarms = (np.frombuffer(data[part * end : (part + 1) * end], "<u4").astype(np.int64) for part in (1, 2))
        if not ((scores >= 0) & (scores <= 1)).all() or (np.diff(scores) > 0).any():
            raise ValueError("the scores of a curve are not falling from 1 to 0")
        if (np.diff(hits) < 0).any() or (np.diff(alarms) < 0).any() or hits.max(initial=0) > objects:
            raise ValueError("the counts of a curve are not rising, or more hits than objects")
        return cls(tuple(scores.tolist()), tuple(hits.tolist()), tuple(alarms.tolist()), objects)

    @property
    def precision(self) -> NDArray[np.float64]:
        """The share of hits among the boxes, at each score."""
        hits, alarms = np.array(self.hits, dtype=np.float64), np.array(self.alarms, dtype=np.float64)
        return hits / np.maximum(hits + alarms, 1)

    @property
    def recall(self) -> NDArray[np.float64]:
        """The share of found objects, at each score."""
        return np.array(self.hits, dtype=np.float64) / max(self.objects, 1)

    @property
    def f1(self) -> NDArray[np.float64]:
        """The harmonic mean of precision and recall, at each score."""
        hits, alarms = np.array(self.hits, dtype=np.float64), np.array(self.alarms, dtype=np.float64)
        return 2 * hits / np.maximum(hits + alarms + self.objects, 1)


class Threshold(NamedTuple):
    """The score from which boxes of one class count.

    Attributes:
        score: The score; 0 keeps all boxes, infinity none.
        refusal: Why the wish cannot be met, and what happens instead; None if it is met.
    """

    score: float
    refusal: str | None = None


@dataclass(frozen=True)
class OperatingPoint:
    """What is wanted of the boxes of each class.

    Attributes:
        kind: ``none``, ``best_f1``, ``bound``, ``precision`` or ``recall``.
        wanted: The least precision or recall; 0 for the others.
    """

    kind: str = NO_POINT
    wanted: float = 0.0

    @classmethod
    def parse(cls, text: str) -> OperatingPoint:
        """Read ``none``, ``best_f1``, ``bound``, ``precision=0.95`` or ``recall=0.99``.

        Raises:
            UsageError: It is none of these.
        """
        kind, equals, number = text.partition("=")
        if not equals and kind in _FIXED:
            return cls(kind)
        try:
            wanted = float(number)
        except ValueError:
            wanted = 0.0
        if kind in _WANTED and 0 < wanted <= 1:
            return cls(kind, wanted)
        raise UsageError(
            f"operating_point {text!r}: expected none, best_f1, bound, precision=P or recall=R, where P and R are "
            "above 0 and at most 1"
        )

    def __str__(self) -> str:
        return f"{self.kind}={self.wanted:g}" if self.kind in _WANTED else self.kind

    def threshold(self, curve: Curve | None, bound: Threshold | None = None) -> Threshold:
        """Return the score from which the boxes of a class count.

        Args:
            curve: The curve of the class; None if there was no object of it.
            bound: The score that was found to miss few enough objects; None if none was looked for.
        """
        if self.kind == NO_POINT:
            return Threshold(0.0)
        if self.kind == "bound":
            return bound or Threshold(0.0, "no bound was calculated for it; all its boxes are kept")
        if curve is None or not curve.objects:
            return Threshold(0.0, "the calibration images have no object of it; all its boxes are kept")
        if not curve.scores:
            return Threshold(0.0, "none of its objects was found in the calibration images; all its boxes are kept")
        if self.kind == "best_f1":
            return just_below(curve.scores[int(curve.f1.argmax())])
        values = curve.precision if self.kind == "precision" else curve.recall
        reached = np.flatnonzero(values >= self.wanted - 1e-9)
        if len(reached):
            # The most objects at this precision; the fewest false alarms at this recall.
            return just_below(curve.scores[int(reached[-1 if self.kind == "precision" else 0])])
        best = f"its {self.kind} reached at most {values.max():.3f} on the calibration images"
        if self.kind == "precision":
            return Threshold(float("inf"), f"{best}; its boxes are left out")
        return Threshold(0.0, f"{best}, with all boxes; all of them are kept")


def just_below(score: float) -> Threshold:
    """Return the threshold that lets boxes of a score pass, and those that are equal but for rounding."""
    return Threshold(score * (1 - _ROUNDING))
