"""A prediction with some of its objects, in any order."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from ocrnet_pl.structures import Prediction


def with_rows(prediction: Prediction, rows: Tensor) -> Prediction:
    """Return a prediction with these of its boxes, and their masks and segments; the others' segments become void.

    Args:
        prediction: The prediction.
        rows: int64 [M], places among its boxes, in the new order.
    """
    number = torch.zeros(len(prediction.scores) + 1, dtype=torch.int32, device=rows.device)
    number[rows + 1] = torch.arange(1, len(rows) + 1, dtype=torch.int32, device=rows.device)
    changed = replace(
        prediction,
        boxes=prediction.boxes[rows],
        scores=prediction.scores[rows],
        labels=prediction.labels[rows],
        tracks=None if prediction.tracks is None else prediction.tracks[rows],
    )
    if prediction.instances is not None:
        changed.instances = number.to(prediction.instances)[prediction.instances.long()]
    place, scores = number.tolist(), prediction.scores.tolist()
    gone = {s.id for s in prediction.segments if s.instance is not None and not place[s.instance + 1]}
    changed = without_segments(changed, gone)
    changed.segments = [
        each
        if each.instance is None
        else replace(each, instance=place[each.instance + 1] - 1, score=scores[each.instance])
        for each in changed.segments
    ]
    return changed


def without_segments(prediction: Prediction, gone: Collection[int]) -> Prediction:
    """Return a prediction in whose panoptic map some segments are void.

    Args:
        prediction: The prediction.
        gone: Their ids.
    """
    panoptic = prediction.panoptic
    if panoptic is not None and gone:
        panoptic = panoptic.masked_fill(torch.isin(panoptic, torch.tensor(list(gone), dtype=panoptic.dtype)), 0)
    return replace(prediction, panoptic=panoptic, segments=[s for s in prediction.segments if s.id not in gone])
