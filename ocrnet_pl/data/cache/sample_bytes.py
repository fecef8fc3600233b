"""Decoded samples as bytes, and back without a copy of their arrays."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors

from ocrnet_pl.imaging.geometry import wrap_boxes
from ocrnet_pl.structures import Placement, Sample, Supervision

_ALIGN = 64
"""Arrays begin at multiples of this, counted from the start of the content."""


def encode_sample(sample: Sample, files: list[str], stamps: list[list[int]]) -> bytes:
    """Turn a sample into bytes: the length of the description, the description, the arrays.

    Args:
        sample: The sample, with all its tensors in memory.
        files: Files that it was made from.
        stamps: Time and size of each of these files.
    """
    supervision = sample.supervision
    instances = None if sample.instances is None else sample.instances.as_subclass(Tensor).numpy()
    if instances is not None and len(sample.labels) < 256:
        instances = instances.astype(np.uint8)  # a quarter of the space, and quickly widened
    arrays: dict[str, NDArray[Any] | None] = {
        "image": sample.image.as_subclass(Tensor).permute(1, 2, 0).numpy(),
        "boxes": sample.boxes.as_subclass(Tensor).numpy(),
        "labels": sample.labels.numpy(),
        "crowd": sample.crowd.numpy(),
        "semantic": None if sample.semantic is None else sample.semantic.as_subclass(Tensor).numpy(),
        "instances": instances,
        "detection": supervision.detection.numpy(),
        "segmentation": supervision.semantic.numpy(),
    }
    described: dict[str, Any] = {"id": sample.image_id, "path": sample.path, "files": files, "stamps": stamps}
    if sample.placement is not None:
        described["placement"] = [getattr(sample.placement, field.name) for field in fields(Placement)]
    parts: list[bytes] = []
    position = 0
    for name, array in arrays.items():
        if array is None:
            continue
        raw = array.tobytes()
        described[name] = [position, array.dtype.str, array.shape]
        padding = -len(raw) % _ALIGN
        parts += [raw, bytes(padding)]
        position += len(raw) + padding
    head = json.dumps(described).encode()
    start = -(-(8 + len(head)) // _ALIGN) * _ALIGN
    return b"".join([len(head).to_bytes(8, "little"), head, bytes(start - 8 - len(head)), *parts])


def decode_sample(content: NDArray[np.uint8]) -> tuple[Sample, list[str], list[list[int]]]:
    """Return what :func:`encode_sample` was given; the tensors share the memory of ``content``."""
    length = int.from_bytes(content[:8].tobytes(), "little")
    described = json.loads(content[8 : 8 + length].tobytes())
    start = -(-(8 + length) // _ALIGN) * _ALIGN

    def tensor(name: str) -> Tensor:
        position, dtype, shape = described[name]
        kind = np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        own = content[start + position : start + position + size]
        return torch.from_numpy(own.view(kind).reshape(shape))

    image = tensor("image").permute(2, 0, 1)
    placement = described.get("placement")
    sample = Sample(
        image=tv_tensors.Image(image),
        boxes=wrap_boxes(tensor("boxes"), (int(image.shape[1]), int(image.shape[2]))),
        labels=tensor("labels"),
        crowd=tensor("crowd"),
        supervision=Supervision(tensor("detection"), tensor("segmentation")),
        semantic=tv_tensors.Mask(tensor("semantic")) if "semantic" in described else None,
        instances=tv_tensors.Mask(tensor("instances").to(torch.int32)) if "instances" in described else None,
        image_id=described["id"],
        path=described["path"],
        placement=None if placement is None else Placement(*(tuple(value) for value in placement)),
    )
    return sample, described["files"], described["stamps"]
