"""Fusion as operators of a graph; :mod:`ocrnet_pl.inference.fusion` has the original."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ocrnet_pl.export.decoding import NO_SCORE, Rows
from ocrnet_pl.export.graph import Graph, Value
from ocrnet_pl.export.letterbox import Frame
from ocrnet_pl.export.nesting import find_nesting, places
from ocrnet_pl.export.pixels import BoxPixels, BoxReach, ClassMap, box_pixels
from ocrnet_pl.inference.fusion import TRUSTED
from ocrnet_pl.inference.nesting import SURE
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.structures import Taxonomy


class Fused(NamedTuple):
    """A batch after fusion.

    Attributes:
        rows: The boxes, best first.
        labels: int64 [B * H * W], the segmentation class of each pixel.
        instances: int64 [B * H * W], the row of a box plus one, 0 = none.
        areas: int64 [B, N], the number of pixels of each box.
        shown: bool [B, N], the boxes that enter the panoptic map.
    """

    rows: Rows
    labels: Value
    instances: Value
    areas: Value
    shown: Value


class _Claims(NamedTuple):
    """Boxes' claims to pixels.

    Attributes:
        pixel: int64 [K], the place of the pixel in the class map.
        row: int64 [K], the row of the box.
        probability: float32 [K], probability of the box's class at the pixel.
        evidence: float32 [K]; the pixel goes to the claim with the most evidence.
    """

    pixel: Value
    row: Value
    probability: Value
    evidence: Value

    def of(self, index: Value) -> _Claims:
        """Return some of the claims."""
        return _Claims(*(part.at(index) for part in self))


def fuse(
    graph: Graph, rows: Rows, pixels: ClassMap, frame: Frame, taxonomy: Taxonomy, settings: FusionSettings
) -> Fused:
    """Merge boxes and pixels, each side correcting the other.

    Args:
        graph: The graph.
        rows: The boxes, in pixels of the images.
        pixels: The pixels' classes.
        frame: The size of the images.
        taxonomy: Relates detection to segmentation classes.
        settings: How to merge.
    """
    count = rows.length
    per_image = (frame.batch, count)
    labels = rows.labels.reshape(-1)
    semantic_of = graph.constant(np.array(taxonomy.detection_to_semantic, np.int64))
    of_class = semantic_of.at(labels)
    joined = rows.valid & (of_class >= 0).reshape(*per_image)
    scores = rows.scores.at_least(0.0)
    confident = joined & (scores >= SURE)
    image = (rows.labels.filled(0) + graph.numbers(frame.batch).expand(1)).reshape(-1)
    corner = math.exp(-1 / settings.spread**2)
    nesting = find_nesting(graph, rows, confident, of_class, image, pixels, frame, corner)

    boxes = rows.boxes.reshape(-1, 4)
    listed = box_pixels(graph, graph.where(joined.reshape(-1, 1), boxes, 0.0), image, frame)
    layer = (image * (pixels.classes - 1) + of_class) * frame.pixels
    claims = _claims(graph, listed, scores.reshape(-1), layer, pixels, settings)
    if settings.raw_pixels:
        kept = np.array([c.name in settings.raw_pixels for c in taxonomy.semantic_categories])
        claims = claims.of(_may_change(graph, claims, listed, of_class, pixels, graph.constant(kept)))
    claimed = _per_box(listed, listed.row_box.at(claims.row), claims.row.filled(1))
    factor = nesting.factor.at(listed.row_box).at(claims.row)
    won = claims.of(_strongest(graph, claims._replace(evidence=claims.evidence * factor), pixels))
    owner = listed.row_box.at(won.row)

    # How many of the pixels that an ellipse in the box would cover it owns, and how certainly.
    reach = BoxReach.of(listed, won.pixel, won.row)
    whole = reach.number()
    num_pixels = whole.to(np.float32)
    sides = [(boxes.column(low + 2) - boxes.column(low)).at_least(1.0) for low in (0, 1)]
    area = sides[0] * sides[1]
    owned = listed.none.filled(0.0, np.float32).scatter(owner, won.probability, "add")
    # The pixels of a right box nested in another one do not belong to the other's object.
    inner = (nesting.both * num_pixels.reshape(*per_image).expand(2)).total(1).reshape(-1)
    wanted = (claimed.to(np.float32) - inner).at_least(num_pixels).at_least(1.0)
    share = reach.share()
    reached = share * share * share * (num_pixels / wanted)
    sureness = owned / num_pixels.at_least(1.0)
    agreement = (owned / (area * (math.pi / 4))).at_least(reached * sureness).at_least(1e-3).at_most(1.0)
    corrects = joined.reshape(-1)
    if settings.raw_boxes:
        own = np.array([c.name not in settings.raw_boxes for c in taxonomy.detection_categories])
        corrects = corrects & graph.constant(own).at(labels)
    rescaled = graph.op("Pow", agreement, graph.constant(np.array(settings.rescore, np.float32)))
    fused_scores = scores.reshape(-1) * graph.where(corrects, rescaled, 1.0)
    # Only boxes that own what they enclose may move: the box of a half-hidden object extends beyond its pixels.
    trust = (corrects & (agreement > TRUSTED)).to(np.float32).expand(-1) * settings.refine
    refined = boxes + trust * (reach.bounds(boxes) - boxes)

    by_image = graph.where(rows.valid, fused_scores.reshape(*per_image), NO_SCORE)
    best, order = graph.best(by_image, count)
    number = (places(graph, by_image, count) + 1).reshape(-1)
    instances = pixels.labels.filled(0).scatter(won.pixel, number.at(owner))
    # A pixel in an instance takes the instance's class.
    corrected = pixels.labels.scatter(won.pixel, of_class.at(owner))

    def ordered(values: Value) -> Value:
        return graph.op("GatherElements", values.reshape(*per_image), order, axis=1)

    valid = best > NO_SCORE / 2
    every_side = graph.op("Tile", order.expand(-1), graph.constant(np.array([1, 1, 4], np.int64)))
    moved = graph.op("GatherElements", refined.reshape(*per_image, 4), every_side, axis=1)
    fill = (num_pixels / area).at_least(reached)
    # Whether an object is there was the detector's decision; the pixels only changed its rank.
    shown = (ordered(scores) >= settings.mask_threshold) & (ordered(fill) >= settings.min_fill) & valid
    result = Rows(moved, best, ordered(labels), valid, count)
    return Fused(result, corrected, instances, ordered(whole), shown)


def _claims(
    graph: Graph, listed: BoxPixels, scores: Value, layer: Value, pixels: ClassMap, settings: FusionSettings
) -> _Claims:
    """Return the boxes' claims to those of their pixels that have their class, or lost it narrowly to another."""
    narrow = -1 / (2 * settings.spread**2)
    in_row = graph.op("Exp", listed.row_offset * listed.row_offset * narrow) * scores.at(listed.row_box)
    in_column = graph.op("Exp", listed.column_offset * listed.column_offset * narrow)
    column = listed.pixel - listed.column_shift.at(listed.row)
    weight = in_row.at(listed.row) * in_column.at(column)
    relative = pixels.relative.at(listed.pixel + layer.at(listed.row_box).at(listed.row))
    raised = relative * (weight * settings.claim + 1.0)
    chosen = graph.op("NonZero", raised >= 1.0, kind=np.int64).column(0, axis=0)
    pixel, weight = listed.pixel.at(chosen), weight.at(chosen)
    own = relative.at(chosen) * pixels.top.at(pixel)
    return _Claims(pixel, listed.row.at(chosen), own, own * weight)


def _may_change(
    graph: Graph, claims: _Claims, listed: BoxPixels, of_class: Value, pixels: ClassMap, kept: Value
) -> Value:
    """Return the claims that do not move a pixel into or out of an unchanged class."""
    wanted = of_class.at(listed.row_box.at(claims.row))
    there = pixels.labels.at(claims.pixel)
    allowed = there.equals(wanted) | ~(kept.at(there) | kept.at(wanted))
    return graph.op("NonZero", allowed, kind=np.int64).column(0, axis=0)


def _strongest(graph: Graph, claims: _Claims, pixels: ClassMap) -> Value:
    """Return which claims win: each pixel goes to the claim with the most evidence, and to the first on a tie."""
    most = pixels.top.filled(NO_SCORE).scatter(claims.pixel, claims.evidence, "max")
    ahead = graph.op("NonZero", claims.evidence >= most.at(claims.pixel), kind=np.int64).column(0, axis=0)
    far = np.iinfo(np.int64).max
    first = pixels.labels.filled(far).scatter(claims.pixel.at(ahead), ahead, "min")
    won = graph.op("NonZero", first < far, kind=np.int64).column(0, axis=0)
    return first.at(won)


def _per_box(listed: BoxPixels, box: Value, values: Value) -> Value:
    return listed.none.scatter(box, values, "add")
