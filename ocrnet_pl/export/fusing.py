"""Fusion as operators of a graph; :mod:`ocrnet_pl.inference.fusion` has the original."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ocrnet_pl.export.decoding import Rows
from ocrnet_pl.export.graph import Graph, Value
from ocrnet_pl.export.letterbox import Frame
from ocrnet_pl.export.nesting import find_nesting, places
from ocrnet_pl.export.pixels import BoxPixels, BoxReach, ClassMap, box_pixels, sums_before, sums_within
from ocrnet_pl.inference.decode import NO_SCORE
from ocrnet_pl.inference.fusion import TRUSTED
from ocrnet_pl.inference.nesting import SURE
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.structures import Taxonomy


class Fused(NamedTuple):
    """A batch after fusion.

    Attributes:
        rows: The boxes, best first.
        labels: int32 [B * H * W], the segmentation class of each pixel.
        owner: int32 [B * H * W], the number of the box that each pixel belongs to, 0 = none.
        place: int64 [1 + B * N], by the number of a box, its row in its image plus one; 0 for 0.
        image: int64 [1 + B * N], by the number of a box, its image; any for 0.
        areas: int32 [B, N], the number of pixels of each box.
        shown: bool [B, N], the boxes that enter the panoptic map.
    """

    rows: Rows
    labels: Value
    owner: Value
    place: Value
    image: Value
    areas: Value
    shown: Value

    def of_owner(self, values: Value) -> Value:
        """Return the values of boxes, int64 [B, N], for each pixel's box, int32 [B * H * W]; 0 where it has none."""
        nothing = values.filled(0).part(0, 1, 1)
        table = values.graph.concat(nothing, values, axis=1).reshape(-1)
        return table.at(self.place + self.image * (self.rows.length + 1)).to(np.int32).at(self.owner)

    def instances(self, row: Value | None) -> Value:
        """Return the row of each pixel's box plus one, int32 [B * H * W], 0 = none.

        Args:
            row: int64 [B, N], the final row of each box; None if that is the one it has.
        """
        return self.place.to(np.int32).at(self.owner) if row is None else self.of_owner(row + 1)


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
    # All that follows is done for every pair of a box and a pixel, with ones and zeros for what counts: to pick some of
    # the pairs takes longer.
    own_share, weight, claim = _claims(graph, listed, scores.reshape(-1), of_class, image, pixels, frame, settings)
    if settings.raw_pixels:
        kept = np.array([c.name in settings.raw_pixels for c in taxonomy.semantic_categories])
        claim = claim & _may_change(listed, of_class, pixels, graph.constant(kept))
    claims = claim.to(np.float32)
    evidence = own_share * weight * listed.of_row(nesting.factor) * claims + (claims - 1.0)
    # Each pixel goes to the claim with the most evidence, and to the first box on a tie: to that with the largest code.
    ahead = evidence >= pixels.most.filled(NO_SCORE / 2).scatter(listed.pixel, evidence, "max").at(listed.pixel)
    code = (labels.length(0) - graph.numbers(labels.length(0))).to(np.float32)
    own_code = listed.of_row(code)
    owner = pixels.most.filled(0.0).scatter(listed.pixel, ahead.to(np.float32) * own_code, "max")
    won = owner.at(listed.pixel).equals(own_code).to(np.float32)

    # How many of the pixels that an ellipse in the box would cover it owns, and how certainly.
    reach = BoxReach.of(listed, listed.column, won)
    whole = reach.number()
    claimed = sums_within(sums_before(claims), listed.box_end, listed.box_length)
    num_pixels = whole.to(np.float32)
    sides = [(boxes.column(low + 2) - boxes.column(low)).at_least(1.0) for low in (0, 1)]
    area = sides[0] * sides[1]
    certain = won * own_share / pixels.every.at(listed.pixel)
    in_rows = listed.y.filled(0.0, np.float32).scatter(listed.row, certain, "add")
    owned = rows.scores.reshape(-1).filled(0.0).scatter(listed.row_box, in_rows, "add")
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
    # From here on the numbers of boxes begin with 1, in the order of the codes: the last box has the first.
    number = owner.to(np.int32)
    place = _by_number(places(graph, by_image, count).reshape(-1) + 1)
    # A pixel in an instance takes the instance's class.
    gain = _by_number(of_class).to(np.int32).at(number)
    corrected = pixels.labels * number.equals(0).to(np.int32) + gain

    def ordered(values: Value) -> Value:
        return graph.op("GatherElements", values.reshape(*per_image), order, axis=1)

    valid = best > NO_SCORE / 2
    every_side = graph.op("Tile", order.expand(-1), graph.constant(np.array([1, 1, 4], np.int64)))
    moved = graph.op("GatherElements", refined.reshape(*per_image, 4), every_side, axis=1)
    fill = (num_pixels / area).at_least(reached)
    # Whether an object is there was the detector's decision; the pixels only changed its rank.
    shown = (ordered(scores) >= settings.mask_threshold) & (ordered(fill) >= settings.min_fill) & valid
    result = Rows(moved, best, ordered(labels), valid, count)
    return Fused(result, corrected, number, place, _by_number(image), ordered(whole), shown)


def _claims(
    graph: Graph,
    listed: BoxPixels,
    scores: Value,
    of_class: Value,
    image: Value,
    pixels: ClassMap,
    frame: Frame,
    settings: FusionSettings,
) -> tuple[Value, Value, Value]:
    """Return for each pair the share of the box's class, the prior, both float32 [R], and whether the box claims it.

    It claims the pixels that have its class, or lost it narrowly to another.
    """
    narrow = -1 / (2 * settings.spread**2)
    in_row = graph.op("Exp", listed.row_offset * listed.row_offset * narrow) * scores.at(listed.row_box)
    in_column = graph.op("Exp", listed.column_offset * listed.column_offset * narrow)
    weight = in_row.at(listed.row) * in_column.at(listed.column)
    own = pixels.own_share(listed, of_class, image, frame)
    return own, weight, own * (weight * settings.claim + 1.0) >= pixels.most.at(listed.pixel)


def _may_change(listed: BoxPixels, of_class: Value, pixels: ClassMap, kept: Value) -> Value:
    """Return the pairs, bool [R], that do not move a pixel into or out of an unchanged class."""
    wanted, there = listed.of_row(of_class.to(np.int32)), pixels.labels.at(listed.pixel)
    return there.equals(wanted) | ~(kept.at(there) | kept.at(wanted))


def _by_number(values: Value) -> Value:
    """Return the values of boxes, int64 [M], by their numbers; 0 for 0."""
    graph = values.graph
    backwards = values.length(0) - 1 - graph.numbers(values.length(0))
    return graph.concat(graph.constant(np.zeros(1, np.int64)), values.at(backwards))
