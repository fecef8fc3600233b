"""The errors as tables, for files and trackers alike."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.metrics.errors.gallery import Shown
from ocrnet_pl.metrics.errors.kinds import Kind
from ocrnet_pl.metrics.errors.record import ErrorAnalysis
from ocrnet_pl.metrics.image_match import known_predictions

_MOST_POINTS = 200


class BoxRow(NamedTuple):
    """One box of a gallery's image, or one object in it that nothing finds.

    Attributes:
        image: The image's path, or its id.
        result: ``hit``, the kind of error, ``missed``, or ``ignored`` for a box on a crowd.
        category: Name of the class, that of the object if it is missed.
        score: The box's score; NaN for a missed object.
        area: Share of the image's area, 0 to 1.
        box: Position as shares of the image's width and height, xyxy.
    """

    image: str
    result: str
    category: str
    score: float
    area: float
    box: tuple[float, float, float, float]


class CurveRow(NamedTuple):
    """One point of a class's curves over the smallest score that counts."""

    boxes: str
    category: str
    score: float
    precision: float
    recall: float
    f1: float


def box_images(analysis: ErrorAnalysis) -> list[Shown]:
    """Return the images of the galleries of the worst and of the surprising boxes, each once."""
    if analysis.best not in analysis.boxes:
        return []
    return list({shown.key: shown for shown in (*analysis.worst, *analysis.alarming)}.values())


def box_rows(analysis: ErrorAnalysis, shown: Shown) -> list[BoxRow]:
    """Return the boxes of an image by falling score, then the objects that nothing finds.

    Args:
        analysis: The errors.
        shown: One of :func:`box_images`.
    """
    found = analysis.boxes[analysis.best]
    names = [category.name for category in analysis.taxonomy.detection_categories]
    truth = shown.truth
    height, width = truth.size
    scale = np.array([width, height, width, height], dtype=np.float64)

    def row(result: str, label: int, score: float, box: NDArray[np.float64]) -> BoxRow:
        x1, y1, x2, y2 = (float(value) for value in box / scale)
        area = max(x2 - x1, 0.0) * max(y2 - y1, 0.0)
        return BoxRow(truth.path or str(truth.image_id), result, names[label], score, area, (x1, y1, x2, y2))

    same = [number for number, own in enumerate(analysis.images.ids) if own == shown.key]
    if len(same) != 1 or not analysis.images.boxed[same[0]]:
        # Another image has the same id, or its boxes are not compared.
        return []
    place = int(analysis.images.boxed[: same[0]].sum())
    boxes, objects = _slice(found.matched.counts, place), _slice(found.errors.counts, place)
    order, labels, scores = known_predictions(shown.prediction, truth)
    placed = shown.prediction.boxes.double().numpy()[order]
    counted = ((found.matched.hits | found.matched.alarms)[boxes] & np.uint64(1)).astype(bool)
    rows = []
    for kind, counts, *box in zip(found.errors.kinds[boxes], counted, labels, scores, placed, strict=True):
        rows.append(row(Kind(kind).name.lower() if counts else "ignored", int(box[0]), float(box[1]), box[2]))
    true = np.asarray(truth.boxes.as_subclass(Tensor), dtype=np.float64).reshape(-1, 4)[~truth.crowd.numpy()]
    for number in np.flatnonzero(found.errors.missed[objects]).tolist():
        rows.append(row("missed", int(found.errors.labels[objects][number]), math.nan, true[number]))
    return rows


def _slice(counts: NDArray[np.int32], place: int) -> slice:
    """Return where the rows of one image are among those of all."""
    start = int(counts[:place].sum())
    return slice(start, start + int(counts[place]))


def curve_rows(analysis: ErrorAnalysis) -> Iterator[CurveRow]:
    """Yield points of all classes' curves, raw and fused, spread over each."""
    for name, found in analysis.boxes.items():
        for category, curve in zip(analysis.taxonomy.detection_categories, found.curves, strict=True):
            points = zip(curve.scores, curve.precision, curve.recall, curve.f1, strict=True)
            kept = set(_spread(len(curve.scores)))
            for number, values in enumerate(points):
                if number in kept:
                    yield CurveRow(name, category.name, *(float(value) for value in values))


def _spread(count: int) -> list[int]:
    """Return the places of some points of a curve, spread over all of it."""
    points = min(count, _MOST_POINTS)
    return [round(number * (count - 1) / max(points - 1, 1)) for number in range(points)]


def confusion_names(analysis: ErrorAnalysis) -> list[str]:
    """Return the names of the rows and columns of the boxes' confusion matrix."""
    return [*(category.name for category in analysis.taxonomy.detection_categories), "background"]
