"""Boxes inside larger boxes of their class, as operators; :mod:`ocrnet_pl.inference.nesting` has the original."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ocrnet_pl.export.decoding import Rows
from ocrnet_pl.export.graph import Graph, Value
from ocrnet_pl.export.letterbox import Frame
from ocrnet_pl.export.pixels import BoxReach, ClassMap, box_pixels
from ocrnet_pl.inference import nesting as rules


class Nesting(NamedTuple):
    """What outer boxes leave to boxes nested in them.

    Attributes:
        factor: float32 [B * N], factor on each box's evidence that puts outer boxes behind the right ones nested in
            them.
        both: float32 [B, N, N], 1 where the inner box (row) is nested in the outer one (column) and both are right.
    """

    factor: Value
    both: Value


def find_nesting(
    graph: Graph,
    rows: Rows,
    confident: Value,
    of_class: Value,
    image: Value,
    pixels: ClassMap,
    frame: Frame,
    edge: float,
) -> Nesting:
    """Find which nested boxes come before the outer ones.

    Args:
        graph: The graph.
        rows: The boxes, within their images.
        confident: bool [B, N], the boxes to consider.
        of_class: int64 [B * N], the segmentation class of each box.
        image: int64 [B * N], the image of each box.
        pixels: The pixels' classes.
        frame: The size of the images.
        edge: The place prior at a box's corner, as a share of the prior at its centre.
    """
    count = rows.length
    scores = rows.scores.at_least(0.0)
    nested, area = _pairs(graph, rows, confident)
    touched = _any(nested, 1) | _any(nested, 2)
    boxes = graph.where(touched.expand(-1), rows.boxes, 0.0).reshape(-1, 4)
    tightness = places(graph, graph.where(touched, area, 0.0), count).reshape(-1)
    whole, left = _reach_and_what_smaller_leave(graph, boxes, tightness, of_class, image, pixels, frame)
    reached = whole.share()
    per_image = (frame.batch, count)
    fits = (left.share() >= reached * rules._FITS).reshape(*per_image)
    made_up = left.number().to(np.float32) < whole.number().to(np.float32) * rules._NOTHING
    credible = scores * reached.reshape(*per_image)
    needed = (area.expand(2) * rules._LOSS / area.expand(1)).at_least(rules._CREDIBLE)
    both = nested & fits.expand(1) & (credible.expand(2) >= needed * credible.expand(1))
    voices = graph.where(fits, credible, 0.0).expand(2)
    together = graph.where(nested, voices, 0.0).total(1)
    instead = made_up.reshape(*per_image) & (together >= credible * rules._TOGETHER)
    first = nested & fits.expand(2) & (both | instead.expand(1))
    strength = scores
    for _ in range(rules._LEVELS):
        behind = graph.where(first, (strength * (rules._BEFORE * edge)).expand(2), np.inf)
        strength = strength.at_most(behind.smallest(1))
    return Nesting((strength / scores.at_least(1e-12)).reshape(-1), (first & both).to(np.float32))


def places(graph: Graph, values: Value, count: int) -> Value:
    """Return each value's place in its image, int64 [B, count], from 0 for the largest, the earlier of equal ones."""
    _, order = graph.best(values, count)
    return order.filled(0).scatter(order, order.filled(0) + graph.constant(np.arange(count)), axis=1)


def _any(pairs: Value, axis: int) -> Value:
    return pairs.to(np.float32).largest(axis) > 0.0


def _pairs(graph: Graph, rows: Rows, confident: Value) -> tuple[Value, Value]:
    """Return which box (row) is nested in which (column), bool [B, N, N], and the areas, float32 [B, N]."""
    x1, y1, x2, y2 = (rows.boxes.column(side) for side in range(4))
    area = (x2 - x1) * (y2 - y1)
    wide, high = (
        (upper.expand(2).at_most(upper.expand(1)) - lower.expand(2).at_least(lower.expand(1))).at_least(0.0)
        for lower, upper in ((x1, x2), (y1, y2))
    )
    own, other = area.expand(2), area.expand(1)
    margin = (wide * high - own * rules._INSIDE).at_most(other * rules._SMALLER - own)
    chosen = confident & (area > 0.0)
    same = rows.labels.expand(2).equals(rows.labels.expand(1))
    return (margin >= 0.0) & same & chosen.expand(2) & chosen.expand(1), area


def _reach_and_what_smaller_leave(
    graph: Graph, boxes: Value, tightness: Value, of_class: Value, image: Value, pixels: ClassMap, frame: Frame
) -> tuple[BoxReach, BoxReach]:
    """Return each box's reach with all pixels of its class, and with those that are in no smaller box of its class."""
    listed = box_pixels(graph, boxes, image, frame)
    own = pixels.labels.at(listed.pixel).equals(listed.of_row(of_class.to(np.int32))).to(np.float32)
    # The tightest box of each pixel: the larger the number, the tighter. Boxes of no interest have no pairs.
    tight = listed.of_row(tightness).to(np.float32) + 1.0
    tightest = pixels.most.filled(0.0).scatter(listed.pixel, tight * own, "max")
    left = own * tightest.at(listed.pixel).equals(tight).to(np.float32)
    column = listed.column
    return BoxReach.of(listed, column, own), BoxReach.of(listed, column, left)
