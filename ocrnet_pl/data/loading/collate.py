"""Stacking samples of one size into a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ocrnet_pl.structures import IGNORE_INDEX, Batch, Placement, Sample

_ROWS = 8
"""The number of box rows is a multiple of this, so that compiled graphs and allocations are few."""


def collate(samples: Sequence[Sample], truths: Sequence[Sample] = ()) -> Batch:
    """Stack samples into a batch.

    A target box has sides of at least one pixel. Smaller ones cannot be told from noise, so they become crowd rows,
    which are neither a target nor a false alarm. Boxes of classes that an image was not labelled for are left out. Of
    several crowds in one place, one for each class that they stand for, only the first is used, because losses do not
    distinguish the classes of crowds.

    Args:
        samples: At least one sample, all of one size.
        truths: The samples to evaluate the batch against, in the same order; none in training.

    Raises:
        ValueError: There are no samples, or their sizes differ.
    """
    if not samples:
        raise ValueError("collate: no samples")
    shapes = {tuple(sample.image.shape) for sample in samples}
    if len(shapes) > 1:
        raise ValueError(f"collate: the images of one batch differ in shape: {sorted(shapes)}; letterbox them first")
    size = samples[0].size
    chosen = [_rows(sample) for sample in samples]
    rows = -(-max(1, *map(len, chosen)) // _ROWS) * _ROWS
    count = len(samples)
    boxes = torch.zeros(count, rows, 4)
    labels = torch.zeros(count, rows, dtype=torch.int64)
    valid = torch.zeros(count, rows, dtype=torch.bool)
    crowd = torch.zeros(count, rows, dtype=torch.bool)
    semantic = torch.empty((count, *size), dtype=torch.uint8)
    # Channels last in memory, as decoders write them and as the network needs them.
    images = torch.empty((count, *samples[0].image.shape), dtype=torch.uint8, memory_format=torch.channels_last)
    for i, sample in enumerate(samples):
        n = len(chosen[i])
        if n:
            own = sample.boxes.as_subclass(torch.Tensor)[chosen[i]]
            small = (own[:, 2:] - own[:, :2] < 1).any(1)
            boxes[i, :n] = own
            labels[i, :n] = sample.labels[chosen[i]]
            crowd[i, :n] = sample.crowd[chosen[i]] | small
            valid[i, :n] = ~crowd[i, :n]
        images[i] = sample.image.as_subclass(torch.Tensor)
        if sample.semantic is None:
            semantic[i] = IGNORE_INDEX
        else:
            semantic[i] = sample.semantic.as_subclass(torch.Tensor)
    return Batch(
        images=images,
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
        has_crowds=bool(crowd.any()),
    )


def _rows(sample: Sample) -> torch.Tensor:
    """Return the rows of a sample's boxes that the network sees."""
    kept = sample.supervision.detection[sample.labels]
    crowd = sample.crowd & kept
    if int(crowd.sum()) > 1:
        seen: set[tuple[float, ...]] = set()
        for row in crowd.nonzero()[:, 0].tolist():
            box = tuple(sample.boxes[row].tolist())
            kept[row] = box not in seen
            seen.add(box)
    return kept.nonzero()[:, 0]
