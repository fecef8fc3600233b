"""Scores turned into probabilities by a graph; :mod:`ocrnet_pl.inference.probabilities` has the original."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.export.decoding import Rows
from ocrnet_pl.export.graph import Graph, Value
from ocrnet_pl.inference.decode import NO_SCORE
from ocrnet_pl.inference.score_calibration import ScoreCalibration
from ocrnet_pl.structures import Taxonomy

_CLOSEST = 1e-7
"""How close to 0 and 1 scores come before they are taken to be that far away."""


class Reordered(NamedTuple):
    """Boxes in the order of other scores.

    Attributes:
        rows: The boxes, best first.
        row: int64 [B, N], the new row of each box.
    """

    rows: Rows
    row: Value


def probability_maps(calibration: ScoreCalibration | None, fused: bool, taxonomy: Taxonomy) -> NDArray[np.float32]:
    """Return the maps of the boxes that are given out, float32 [K, 3], NaN for classes without one.

    Args:
        calibration: What is known of the scores; None for nothing.
        fused: Whether boxes are fused with pixels.
        taxonomy: The categories.
    """
    found = np.full((taxonomy.num_detection, 3), np.nan, np.float32)
    if calibration is None:
        return found
    way = "fused" if fused and "fused" in calibration.curves else "raw"
    own = calibration.probabilities.get(way, {})
    for row, category in zip(found, taxonomy.detection_categories, strict=True):
        if category.name in own:
            row[:] = own[category.name]
    return found


def with_probabilities(graph: Graph, rows: Rows, maps: NDArray[np.float32]) -> Reordered:
    """Turn scores into probabilities, which changes the order of the classes.

    Args:
        graph: The graph.
        rows: The boxes.
        maps: The maps of the classes, at least one of them a number.
    """
    per_image, count = rows.scores, rows.length
    # Not NaN, which times 0 is NaN.
    a, b, c = (graph.constant(column).take(rows.labels) for column in np.nan_to_num(maps).T.copy())
    scores = per_image.at_least(0.0)
    logit = a * graph.op("Log", scores.at_least(_CLOSEST))
    logit = logit - b * graph.op("Log", (1.0 - scores).at_least(_CLOSEST)) + c
    mapped = graph.constant(~np.isnan(maps[:, 0])).take(rows.labels)
    found = graph.where(mapped, graph.op("Sigmoid", logit), scores)
    best, order = graph.best(graph.where(rows.valid, found, NO_SCORE), count)
    every_side = graph.op("Tile", order.expand(-1), graph.constant(np.array([1, 1, 4], np.int64)))
    boxes = graph.op("GatherElements", rows.boxes, every_side, axis=1)
    labels = graph.op("GatherElements", rows.labels, order, axis=1)
    row = order.filled(0).scatter(order, order.filled(0) + graph.constant(np.arange(count)), axis=1)
    return Reordered(Rows(boxes, best, labels, best > NO_SCORE / 2, count), row)
