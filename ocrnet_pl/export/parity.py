"""How far the predictions of an exported file are from those of the network that it was made from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ocrnet_pl import structures
from ocrnet_pl.metrics.panoptic import PanopticMetric
from ocrnet_pl.runtime.prediction import Prediction
from ocrnet_pl.structures import Sample, Taxonomy

_NEAR = 2.0
"""Distance in pixels up to which two boxes may stand for each other."""


@dataclass(frozen=True)
class Limits:
    """The largest differences with which a file is kept.

    Attributes:
        boxes: Largest difference of a box side, in pixels.
        scores: Largest difference of a score, beyond what differing pixels explain: fusion rescores a box by its own
            pixels, of which rounding may give one on the edge of two classes to either.
        pixels: Largest share of pixels with another class, or another segment.
        lonely: Largest share of boxes without a partner: of two that suppress each other, rounding may keep either.
        pq: Largest difference of the panoptic quality.
    """

    boxes: float = 0.5
    scores: float = 1e-3
    pixels: float = 1e-3
    lonely: float = 2e-3
    pq: float = 1e-3


STRICT = Limits()
"""The limits of ``ocrnet export``."""
HALF = Limits(boxes=2.0, scores=0.2, pixels=5e-3, lonely=0.02, pq=0.01)
"""The limits of files in half precision: fusion rescores a box by its pixels, so that a few scores move far."""
UNLIMITED = Limits(*[math.inf] * 5)
"""The limits of files in int8, of which only the figures count."""


class _Pairs(NamedTuple):
    """Boxes that stand for each other.

    Attributes:
        wanted: int64 [P], rows of the network's boxes.
        got: int64 [P], rows of the file's.
    """

    wanted: NDArray[np.int64]
    got: NDArray[np.int64]


class Difference:
    """What was compared, and the largest differences that were found.

    Args:
        limits: The differences to allow.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.images = 0
        self.found: dict[str, float] = {}
        self._count: dict[str, list[int]] = {}
        self._panoptic: tuple[PanopticMetric, PanopticMetric] | None = None

    def largest(self, name: str, values: NDArray[Any]) -> None:
        """Keep the largest of some differences."""
        value = float(np.abs(values).max()) if values.size else 0.0
        # A NaN is a difference, and no number is larger.
        self.found[name] = max(self.found.get(name, 0.0), value if np.isfinite(value) else np.inf)

    def share(self, name: str, differs: NDArray[np.bool_]) -> None:
        """Add to the share of those that differ."""
        sums = self._count.setdefault(name, [0, 0])
        sums[0] += int(differs.sum())
        sums[1] += differs.size
        self.found[name] = sums[0] / max(sums[1], 1)

    def add(self, wanted: structures.Prediction, got: Prediction, edge: float) -> None:
        """Compare two predictions for an image.

        Args:
            wanted: The network's prediction.
            got: The file's.
            edge: Score up to which a box may be there or not, since boxes below it are dropped.
        """
        self.images += 1
        pairs = _pairs(wanted, got)
        if wanted.semantic is None or wanted.instances is not None:
            self._boxes(wanted, got, pairs, edge)
        if wanted.semantic is not None:
            assert got.semantic is not None
            self.share("pixels", wanted.semantic.numpy() != got.semantic)
        if wanted.panoptic is not None:
            assert got.panoptic is not None
            names = _box_numbers(len(wanted.boxes), len(got.boxes), pairs)
            self.share("segments", _shown(wanted, names[0]) != _shown(got, names[1]))

    def _boxes(self, wanted: structures.Prediction, got: Prediction, pairs: _Pairs, edge: float) -> None:
        scores = wanted.scores.numpy()
        # Those at the edge are dropped by one and kept by the other.
        edge += self.limits.scores
        alone = np.ones(len(scores), bool), np.ones(len(got.scores), bool)
        for one, rows in zip(alone, pairs, strict=True):
            one[rows] = False
        self.share("lonely", np.concatenate((alone[0][scores > edge], alone[1][got.scores > edge])))
        self.largest("boxes", wanted.boxes.numpy()[pairs.wanted] - got.boxes[pairs.got])
        moved = np.abs(scores[pairs.wanted] - got.scores[pairs.got])
        self.largest("scores", np.maximum(moved - _repainted(wanted, got, *pairs), 0.0))

    def evaluate(self, wanted: structures.Prediction, got: Prediction, truth: Sample, taxonomy: Taxonomy) -> None:
        """Add both predictions to the panoptic quality of each."""
        if self._panoptic is None:
            self._panoptic = PanopticMetric(taxonomy), PanopticMetric(taxonomy)
        for metric, prediction in zip(self._panoptic, (wanted, as_tensors(got)), strict=True):
            metric.update([prediction], [truth])

    def finish(self) -> list[tuple[str, str, str]]:
        """Return a line for each difference: what it is of, its size, and its limit."""
        if self._panoptic is not None:
            ours, theirs = (float(metric.compute()["pq"]) for metric in self._panoptic)
            self.found["pq"] = 0.0 if np.isnan(ours) and np.isnan(theirs) else abs(ours - theirs)
        lines = []
        for name, value in self.found.items():
            limit = self._limit(name)
            lines.append((_NAMES[name], _text(name, value), "any" if math.isinf(limit) else _text(name, limit)))
        return lines

    @property
    def too_large(self) -> list[str]:
        """What differs by more than is allowed."""
        return [_NAMES[name] for name, value in self.found.items() if not value <= self._limit(name)]

    def _limit(self, name: str) -> float:
        return float(getattr(self.limits, "pixels" if name == "segments" else name))


_NAMES = {
    "boxes": "box sides, in pixels",
    "scores": "scores, beyond what differing pixels explain",
    "lonely": "boxes without a partner",
    "pixels": "pixels of another class",
    "segments": "pixels of another segment",
    "pq": "panoptic quality",
}


def _pairs(wanted: structures.Prediction, got: Prediction) -> _Pairs:
    """Return the boxes of one class that are each other's nearest, in place and score."""
    boxes, scores, labels = wanted.boxes.numpy(), wanted.scores.numpy(), wanted.labels.numpy()
    apart = np.abs(boxes[:, None] - got.boxes).max(-1, initial=0.0) + np.abs(scores[:, None] - got.scores)
    apart = np.where(labels[:, None] == got.labels, apart, np.inf)
    rows = np.arange(len(scores))
    if not apart.size:
        return _Pairs(rows[:0], rows[:0])
    nearest = apart.argmin(1)
    paired = (apart.argmin(0)[nearest] == rows) & (apart[rows, nearest] < _NEAR)
    return _Pairs(rows[paired], nearest[paired])


def _repainted(
    wanted: structures.Prediction, got: Prediction, rows: NDArray[np.int64], partners: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return which share of the pixels of each pair of boxes only one of both has."""
    if wanted.instances is None or got.instances is None:
        return np.zeros(len(rows))
    ours, theirs = wanted.instances.numpy().astype(np.int64), got.instances.astype(np.int64)
    # Objects are numbered from 1; 0 is what belongs to none.
    shape = (len(wanted.scores) + 1, len(got.scores) + 1)
    shared = np.bincount((ours * shape[1] + theirs).ravel(), minlength=math.prod(shape)).reshape(shape)
    common = shared[rows + 1, partners + 1]
    either = shared.sum(1)[rows + 1] + shared.sum(0)[partners + 1] - common
    share: NDArray[np.float64] = (either - common) / np.maximum(either, 1)
    return share


def _text(name: str, value: float) -> str:
    return f"{value:.4%}" if name in ("lonely", "pixels", "segments") else f"{value:.6f}"


def _box_numbers(wanted: int, got: int, pairs: _Pairs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a number for each box of both predictions, which only those of a pair share; 0 is that of no box."""
    ours, theirs = np.arange(wanted + 1), np.arange(wanted + 1, wanted + got + 2)
    theirs[0] = 0
    theirs[pairs.got + 1] = pairs.wanted + 1
    return ours, theirs


def _shown(prediction: structures.Prediction | Prediction, names: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what each pixel shows: the category of its segment and, for an object, the name of its box."""
    assert prediction.panoptic is not None
    table = [0]
    for segment in prediction.segments:
        box = 0 if segment.instance is None else names[segment.instance + 1]
        table.append(1 + segment.category + 1000 * int(box))
    shown: NDArray[np.int64] = np.array(table, np.int64)[np.asarray(prediction.panoptic)]
    return shown


def as_tensors(prediction: Prediction) -> structures.Prediction:
    """Return the runtime's prediction as the package's own."""
    maps = (prediction.semantic, prediction.instances, prediction.panoptic)
    semantic, instances, merged = (None if each is None else torch.from_numpy(each.copy()) for each in maps)
    return structures.Prediction(
        torch.from_numpy(prediction.boxes.copy()),
        torch.from_numpy(prediction.scores.copy()),
        torch.from_numpy(prediction.labels.copy()),
        semantic,
        instances,
        merged,
        [structures.Segment(s.id, s.category, s.score, s.area, s.instance) for s in prediction.segments],
        prediction.image_id,
        prediction.path,
    )
