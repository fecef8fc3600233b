"""The choice of the boxes as operators of a graph; :mod:`ocrnet_pl.inference.decode` has the original."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ocrnet_pl.export.graph import Graph, Value
from ocrnet_pl.export.letterbox import Frame
from ocrnet_pl.inference.decode import NO_SCORE, Decode

_TINY = float(np.finfo(np.float32).tiny)
"""The least that a sum is divided by: a union of areas, or of weights, can be zero, and so is what it divides then."""


class Rows(NamedTuple):
    """The boxes of a batch, best first; rows beyond an image's own are zero.

    Attributes:
        boxes: float32 [B, N, 4].
        scores: float32 [B, N]; NO_SCORE where there is no box.
        labels: int64 [B, N].
        valid: bool [B, N], whether there is a box.
        length: N.
    """

    boxes: Value
    scores: Value
    labels: Value
    valid: Value
    length: int


def decode(
    graph: Graph,
    boxes: Value,
    scores: Value,
    shape: tuple[int, int],
    size: tuple[int, int],
    frame: Frame,
    thresholds: Value,
    rule: Decode,
) -> Rows:
    """Choose the best candidates of each image.

    Args:
        graph: The graph.
        boxes: float32 [B, A, 4], in pixels of the input.
        scores: float32 [B, A, K].
        shape: (A, K).
        size: (height, width) of the input; boxes are clipped to it.
        frame: Where the images lie in the input; candidates of which nothing is in the image are left out.
        thresholds: float32 [K], the score below which boxes of each class are dropped, at least that of ``rule``.
        rule: Limits, and how boxes are suppressed.
    """
    candidates, classes = shape
    suppressed = rule.iou_threshold is not None
    limit = min(rule.max_candidates if suppressed else rule.max_detections, candidates * classes)
    # Side by side, the four numbers of a box would be taken apart one by one.
    planes = graph.op("Transpose", boxes, perm=[0, 2, 1])
    limits = [float(size[1]), float(size[0])] * 2
    sides = [planes.column(side, axis=1).at_least(0.0).at_most(most) for side, most in enumerate(limits)]
    there = _have_area(_moved(sides, frame)).to(np.float32)
    # A choice takes ten times as long as the product.
    scores = scores * there.expand(-1) + ((1.0 - there) * NO_SCORE).expand(-1)
    best, order = graph.best(scores.reshape(0, candidates * classes), limit)
    labels, place = order % classes, order // classes
    chosen = graph.stack(*(graph.op("GatherElements", side, place, axis=1) for side in sides))
    every = _rows(graph, chosen, best, labels, best > rule.score_threshold, limit)
    if rule.iou_threshold is None:
        return _above(graph, every, thresholds)
    # A box of another class must not suppress, so that each class is moved to a place of its own.
    side = every.boxes.largest(-1, keep=True).largest(1, keep=True) + 1.0
    apart = every.boxes + every.labels.to(np.float32).expand(-1) * side
    kept = _suppressed(graph, every, apart, rule.iou_threshold, min(rule.max_detections, limit))
    if rule.box_voting is not None:
        kept = _voted(graph, kept, every, rule.iou_threshold, rule.box_voting, rule.usual_votes)
    return _above(graph, kept, thresholds)


def _above(graph: Graph, rows: Rows, thresholds: Value) -> Rows:
    """Drop the boxes below their class's own threshold, which suppress and vote before that, as in ``predict``."""
    valid = rows.valid & (rows.scores > thresholds.take(rows.labels))
    return _rows(graph, rows.boxes, rows.scores, rows.labels, valid, rows.length)


def without_rivals(graph: Graph, rows: Rows, iou_threshold: float) -> Rows:
    """Drop the boxes that overlap a better one of any class by more than an IoU."""
    return _suppressed(graph, rows, rows.boxes, iou_threshold, rows.length)


def _suppressed(graph: Graph, rows: Rows, boxes: Value, iou_threshold: float, length: int) -> Rows:
    """Return the ``length`` best rows whose ``boxes`` do not overlap a better one's by more than an IoU."""
    kept = graph.op(
        "NonMaxSuppression",
        boxes,
        rows.scores.expand(1),
        graph.constant(np.array([rows.length], np.int64)),
        graph.constant(np.array([iou_threshold], np.float32)),
        graph.constant(np.array([0.0], np.float32)),
        kind=np.int64,
    )
    where = kept.take(graph.constant(np.array([0, 2], np.int64)), axis=1)
    there = kept.column(0, axis=1).filled(1.0, np.float32)
    mask = graph.op("ScatterND", rows.scores.filled(0.0), where, there) > 0.5
    return _best(graph, rows._replace(scores=graph.where(mask, rows.scores, NO_SCORE)), length)


def _best(graph: Graph, rows: Rows, length: int) -> Rows:
    """Return the ``length`` rows with the best scores, best first."""
    best, order = graph.best(rows.scores, length)
    four = graph.op("Tile", order.expand(-1), graph.constant(np.array([1, 1, 4], np.int64)))
    chosen = graph.op("GatherElements", rows.boxes, four, axis=1)
    labels = graph.op("GatherElements", rows.labels, order, axis=1)
    return _rows(graph, chosen, best, labels, best > 0.0, length)


def _voted(graph: Graph, kept: Rows, every: Rows, overlap: float, width: float, usual: float | None) -> Rows:
    """Move boxes as :func:`~ocrnet_pl.inference.box_voting.vote` does, and rescore them by its count."""
    own, given = ([rows.boxes.column(side).expand(axis) for side in range(4)] for rows, axis in ((kept, 2), (every, 1)))
    shared_width = (own[2].at_most(given[2]) - own[0].at_least(given[0])).at_least(0.0)
    shared = shared_width * (own[3].at_most(given[3]) - own[1].at_least(given[1])).at_least(0.0)
    areas = [(sides[2] - sides[0]) * (sides[3] - sides[1]) for sides in (own, given)]
    iou = shared / (areas[0] + areas[1] - shared).at_least(_TINY)
    away = 1.0 - iou
    agreement = graph.op("Exp", away * away * (-1.0 / width)) * every.scores.expand(1)
    votes = (iou > overlap) & kept.labels.expand(2).equals(every.labels.expand(1)) & every.valid.expand(1)
    weight = agreement * votes.to(np.float32)
    total = weight.total(2, keep=True).at_least(_TINY)
    sides = [o + (weight * (g - o)).total(2, keep=True) / total for o, g in zip(own, given, strict=True)]
    placed = kept._replace(boxes=graph.concat(*sides, axis=-1))
    if usual is None:
        return placed
    scores = kept.scores.at_least(_TINY)
    count = (total.reshape(0, kept.length) / scores).at_least(1.0)
    factor = graph.op("Sqrt", count * (1.0 / usual))
    rescored = scores * factor / (1.0 - scores + scores * factor)
    return _best(graph, placed._replace(scores=graph.where(kept.valid, rescored, NO_SCORE)), kept.length)


def _repeated(graph: Graph, index: Value, times: Value) -> Value:
    return graph.op("Tile", index.expand(-1), times)


def _rows(graph: Graph, boxes: Value, scores: Value, labels: Value, valid: Value, length: int) -> Rows:
    labels = graph.where(valid, labels, 0)
    return Rows(graph.where(valid.expand(-1), boxes, 0.0), graph.where(valid, scores, NO_SCORE), labels, valid, length)


def _have_area(sides: list[Value]) -> Value:
    """Return which boxes, of which ``sides`` has x1, y1, x2 and y2, have an area, bool."""
    return (sides[2] > sides[0]) & (sides[3] > sides[1])


def in_images(graph: Graph, boxes: Value, frame: Frame) -> Value:
    """Move boxes, float32 [B, N, 4], from the network's input to the images."""
    return graph.stack(*_moved([boxes.column(side) for side in range(4)], frame))


def _moved(sides: list[Value], frame: Frame) -> list[Value]:
    """Move x1, y1, x2 and y2 from the network's input to the images."""
    along = [(frame.scale_x, frame.width.to(np.float32)), (frame.scale_y, frame.height.to(np.float32))] * 2
    return [(side / scale).at_least(0.0).at_most(most) for side, (scale, most) in zip(sides, along, strict=True)]
