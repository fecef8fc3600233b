"""The panoptic map as operators of a graph; :mod:`ocrnet_pl.inference.panoptic` has the original."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ocrnet_pl.export.fusing import Fused
from ocrnet_pl.export.graph import Graph, Value
from ocrnet_pl.export.letterbox import Frame
from ocrnet_pl.structures import Taxonomy

SEGMENT_FIELDS = ("id", "category", "area", "instance")
"""What the file tells of each segment; the instance is -1 for stuff, and the id is 0 in rows that are not used."""

_FEW = 3
"""Number of classes of stuff up to which it is faster to go through all pixels for each of them than to count once."""


class Panoptic(NamedTuple):
    """The panoptic maps of a batch.

    Attributes:
        segment: int32 [B * H * W], the segment of each pixel, 0 = void.
        segments: int64 [B, N + stuff, 4], the ``SEGMENT_FIELDS`` of each segment.
        length: N + stuff.
    """

    segment: Value
    segments: Value
    length: int


def panoptic(
    graph: Graph, fused: Fused, row: Value | None, frame: Frame, min_stuff: int, taxonomy: Taxonomy
) -> Panoptic:
    """Put the instances that are shown into a map, then stuff; the remaining pixels are void.

    Args:
        graph: The graph.
        fused: Boxes and pixels after fusion.
        row: int64 [B, N], the final row of each box; None if that is the one it has.
        frame: The size of the images.
        min_stuff: Number of pixels below which a stuff region becomes void.
        taxonomy: The categories, which say what is stuff.
    """
    count, classes = fused.rows.length, taxonomy.num_semantic
    shown = (fused.shown & (fused.areas > 0)).to(np.int64)
    instance_ids = shown.running_total(1) * shown
    nothing = shown.filled(0).part(0, 1, 1)
    segment = fused.of_owner(instance_ids)
    labels = fused.labels.reshape(frame.batch, frame.pixels)
    kind = (labels + (graph.numbers(frame.batch) * classes).to(np.int32).reshape(-1, 1)).reshape(-1)
    is_open = segment.equals(0)
    stuff = [index for index, category in enumerate(taxonomy.semantic_categories) if not category.is_thing]
    of_stuff = _areas(labels, kind, is_open, classes, stuff, frame).to(np.int64)
    there = (of_stuff >= max(min_stuff, 1)).to(np.int64)
    stuff_ids = (there.running_total(1) + shown.total(1, keep=True)) * there
    # Classes of things get no number, so that their pixels without an object are void.
    place = np.full(classes, len(stuff), np.int64)
    place[stuff] = np.arange(len(stuff))
    class_ids = graph.concat(stuff_ids, nothing, axis=1).take(graph.constant(place), axis=1).reshape(-1)
    # The segment is 0 where the pixel is open.
    merged = segment + class_ids.to(np.int32).at(kind) * is_open.to(np.int32)
    category = graph.constant(np.array(taxonomy.positions_of_detection, np.int64)).take(fused.rows.labels)
    row = shown.filled(0) + graph.constant(np.arange(count)) if row is None else row
    things = graph.stack(instance_ids, category, fused.areas.to(np.int64), row)
    stuff_category = np.array([taxonomy.positions_of_semantic[index] for index in stuff], np.int64)
    regions = graph.stack(stuff_ids, of_stuff.filled(0) + graph.constant(stuff_category), of_stuff, of_stuff.filled(-1))
    return Panoptic(merged, graph.concat(things, regions, axis=1), count + len(stuff))


def _areas(labels: Value, kind: Value, is_open: Value, classes: int, stuff: list[int], frame: Frame) -> Value:
    """Return how many open pixels each class of stuff has in each image, int32 [B, stuff].

    Args:
        labels: int32 [B, H * W], the class of each pixel.
        kind: int32 [B * H * W], the class of each pixel plus the number of classes for each image before its own.
        is_open: bool [B * H * W], the pixels that belong to no instance.
        classes: Number of classes.
        stuff: The classes of stuff.
        frame: The size of the images.
    """
    graph, chosen = labels.graph, np.array(stuff, np.int64)
    if not 0 < len(stuff) <= _FEW:
        every = graph.full(frame.batch * classes, 0, np.int32).scatter(kind, is_open.to(np.int32), "add")
        return every.reshape(frame.batch, classes).take(graph.constant(chosen), axis=1)
    # Additions of single elements take ten times as long as the sum of a map.
    there = is_open.reshape(frame.batch, frame.pixels)
    return graph.concat(*((labels.equals(each) & there).to(np.int32).total(1, keep=True) for each in stuff), axis=1)
