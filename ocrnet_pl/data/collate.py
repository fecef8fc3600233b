"""Stacking samples of one size into a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ocrnet_pl.structures import IGNORE_INDEX, Batch, Placement, Sample

_ROWS = 8
"""The number of box rows is a multiple of this, so that compiled graphs and allocations are few."""


def collate(samples: Sequence[Sample], truths: Sequence[Sample] = ()) -> Batch:
    """Stack samples into a batch.

    A box to find has sides of at least one pixel; smaller ones cannot be told from noise, so they become crowd rows,
    which are neither a target nor a false alarm.

    Args:
        samples: Of one size; at least one.
        truths: What to evaluate the batch against, in the same order; none in training.

    Raises:
        ValueError: There are no samples, or their sizes differ.
    """
    if not samples:
        raise ValueError("collate: no samples")
    shapes = {tuple(sample.image.shape) for sample in samples}
    if len(shapes) > 1:
        raise ValueError(f"collate: the images of one batch differ in shape: {sorted(shapes)}; letterbox them first")
    size = samples[0].size
    rows = -(-max(1, *(len(sample.labels) for sample in samples)) // _ROWS) * _ROWS
    count = len(samples)
    boxes = torch.zeros(count, rows, 4)
    labels = torch.zeros(count, rows, dtype=torch.int64)
    valid = torch.zeros(count, rows, dtype=torch.bool)
    crowd = torch.zeros(count, rows, dtype=torch.bool)
    semantic = torch.full((count, *size), IGNORE_INDEX, dtype=torch.int64)
    for i, sample in enumerate(samples):
        n = len(sample.labels)
        if n:
            own = sample.boxes.as_subclass(torch.Tensor)
            small = (own[:, 2:] - own[:, :2] < 1).any(1)
            boxes[i, :n] = own
            labels[i, :n] = sample.labels
            crowd[i, :n] = sample.crowd | small
            valid[i, :n] = ~crowd[i, :n]
        if sample.semantic is not None:
            semantic[i] = sample.semantic.as_subclass(torch.Tensor)
    return Batch(
        images=torch.stack([sample.image.as_subclass(torch.Tensor) for sample in samples]),
        boxes=boxes,
        labels=labels,
        valid=valid,
        crowd=crowd,
        semantic=semantic,
        detection_classes=torch.stack([sample.supervision.detection for sample in samples]),
        semantic_classes=torch.stack([sample.supervision.semantic for sample in samples]),
        placements=[sample.placement or Placement.identity(size) for sample in samples],
        truths=list(truths),
        image_ids=[sample.image_id for sample in samples],
        paths=[sample.path for sample in samples],
    )
