"""The supervision of a mixture of several samples, and how their rows and maps are joined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from ocrnet_pl.imaging.geometry import Size, with_rows, wrap_boxes
from ocrnet_pl.structures import IGNORE_INDEX, Sample, Supervision


def agree(samples: Sequence[Sample]) -> list[Sample]:
    """Give samples the supervision that holds for all of them together.

    A mixture is labelled for a class only if each of its parts is: an object of that class may be unmarked in any other
    part. The labels of the other classes are removed: their boxes become crowd rows, and their pixels are ignored.

    Args:
        samples: The parts.

    Returns:
        The parts, all with the same supervision.
    """
    detection = torch.stack([sample.supervision.detection for sample in samples]).all(0)
    semantic = torch.stack([sample.supervision.semantic for sample in samples]).all(0)
    shared = Supervision(detection, semantic)
    return [_restrict(sample, shared) for sample in samples]


def _restrict(sample: Sample, shared: Supervision) -> Sample:
    lost = ~shared.detection[sample.labels] & ~sample.crowd
    if lost.any():
        instances = None if sample.instances is None else sample.instances.as_subclass(Tensor)
        boxes = sample.boxes.as_subclass(Tensor).numpy()
        sample = with_rows(sample, boxes, np.ones(len(boxes), dtype=np.bool_), lost.numpy(), instances)
    plane = sample.semantic
    if plane is not None and not shared.semantic.all():
        table = np.arange(IGNORE_INDEX + 1, dtype=np.uint8)
        table[: len(shared.semantic)][~shared.semantic.numpy()] = IGNORE_INDEX
        plane = tv_tensors.Mask(torch.from_numpy(np.take(table, plane.as_subclass(Tensor).numpy())))
    return sample.replace(semantic=plane, supervision=shared)


def join_rows(samples: Sequence[Sample], offsets: Sequence[Size], size: Size) -> Sample:
    """Put the rows of several samples below each other.

    Args:
        samples: The samples in order, with the same supervision.
        offsets: (top, left) of each sample on the result.
        size: (height, width) of the result.

    Returns:
        The first sample with the boxes, labels and crowds of all; its image and maps do not change.
    """
    shifts = [torch.tensor([left, top] * 2, dtype=torch.float32) for top, left in offsets]
    boxes = [s.boxes.as_subclass(Tensor) + shift for s, shift in zip(samples, shifts, strict=True)]
    return samples[0].replace(
        boxes=wrap_boxes(torch.cat(boxes), size),
        labels=torch.cat([sample.labels for sample in samples]),
        crowd=torch.cat([sample.crowd for sample in samples]),
        placement=None,
    )


def semantic_maps(samples: Sequence[Sample]) -> list[Tensor] | None:
    """Return the semantic maps, with one of ignored pixels for a sample without; None if no sample has one."""
    if all(sample.semantic is None for sample in samples):
        return None
    return [
        torch.full(s.size, IGNORE_INDEX, dtype=torch.uint8) if s.semantic is None else s.semantic.as_subclass(Tensor)
        for s in samples
    ]


def instance_maps(samples: Sequence[Sample]) -> list[Tensor] | None:
    """Return the instance maps, numbered from sample to sample in the way :func:`join_rows` joins the rows.

    A sample without a map gets an empty one: its rows are then objects with unknown pixels. None if no sample has a
    map.
    """
    if all(sample.instances is None for sample in samples):
        return None
    maps: list[Tensor] = []
    start = 0
    for sample in samples:
        if sample.instances is None:
            own = torch.zeros(sample.size, dtype=torch.int32)
        else:
            own = sample.instances.as_subclass(Tensor)
            if start:
                numbers = np.arange(start, start + len(sample.labels) + 1, dtype=np.int32)
                numbers[0] = 0
                own = torch.from_numpy(np.take(numbers, own.numpy()))
        maps.append(own)
        start += len(sample.labels)
    return maps
