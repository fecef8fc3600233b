"""Samples whose pixels tell which object they belong to, for the tests of the transforms."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ocrnet_pl.data.records import make_sample
from ocrnet_pl.structures import Sample, Supervision, Taxonomy

TAXONOMY = Taxonomy.build(things=["a", "b", "c"], stuff=["ground"])

Kind = Literal["full", "apart", "crowds", "empty", "no maps", "no instances", "no semantic"]
KINDS: tuple[Kind, ...] = ("full", "apart", "crowds", "empty", "no maps", "no instances", "no semantic")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def array(tensor: Tensor | None) -> np.ndarray:
    assert tensor is not None
    return tensor.as_subclass(Tensor).numpy()


def bounds(mask: np.ndarray) -> list[int]:
    ys, xs = np.nonzero(mask)
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


def color_of(label: int) -> int:
    """The red of all objects of a class; the ground has none of these."""
    return 30 + 70 * label


def painted(
    height: int, width: int, seed: int, kind: Kind = "full", *, count: int = 5, number: int = 0, channels: int = 3
) -> Sample:
    """Ellipses and rectangles of plain color: red tells the class, green the object, blue the image.

    Boxes are the bounds of the visible pixels. ``apart`` has rectangles that do not overlap; ``crowds`` makes crowd
    rows of some.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] + 0.5
    instances = np.zeros((height, width), dtype=np.int32)
    for row in range(1, (0 if kind == "empty" else count) + 1):
        cy, cx = rng.random(2) * [height, width]
        ry, rx = np.maximum(1, rng.uniform(0.06, 0.4, 2) * [height, width])
        if kind == "apart" or rng.random() < 0.5:
            shape = (np.abs(y - cy) <= ry) & (np.abs(x - cx) <= rx)
        else:
            shape = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1
        if kind != "apart" or not instances[shape].any():
            instances[shape] = row
    _, inverse = np.unique(np.append(instances, 0), return_inverse=True)
    instances = inverse[:-1].reshape(height, width).astype(np.int32)
    rows = int(instances.max())
    labels = rng.integers(0, 3, rows)
    boxes = [bounds(instances == row + 1) for row in range(rows)]
    crowd = rng.random(rows) < (0.5 if kind == "crowds" else 0.0)
    semantic = np.append(0, 1 + labels)[instances].astype(np.uint8)
    image = np.empty((3, height, width), dtype=np.uint8)
    image[0] = np.append(245, [color_of(label) for label in labels])[instances]
    image[1] = np.append(0, 40 + 20 * np.arange(rows))[instances]
    image[2] = 60 * number % 256
    instances[np.isin(instances, np.flatnonzero(crowd) + 1)] = 0
    no_semantic, no_instances = kind in ("no maps", "no semantic"), kind in ("no maps", "no instances")
    return make_sample(
        torch.from_numpy(image[:channels]),
        boxes=boxes,
        labels=labels,
        crowd=crowd,
        semantic=None if no_semantic else semantic,
        instances=None if no_instances else instances,
        supervision=Supervision.full(TAXONOMY, semantic=not no_semantic),
        image_id=number,
        path=f"painted-{number}",
    )


def located(height: int, width: int, seed: int, number: int = 0) -> Sample:
    """A sample whose pixels hold their own place: red x, green y, blue the number of the image."""
    sample = painted(height, width, seed, number=number)
    image = torch.empty(3, height, width, dtype=torch.uint8)
    image[0], image[1], image[2] = torch.arange(width), torch.arange(height)[:, None], number
    return sample.replace(image=type(sample.image)(image))


def inner(mask: np.ndarray, least: int = 2, most: int = 8) -> np.ndarray:
    """Take pixels off the border of a mask, where colors run into each other: as many as it has, up to ``most``.

    Returns:
        The last that is not empty, or an empty mask if fewer than ``least`` can be taken off.
    """
    height, width = mask.shape
    for taken in range(most):
        padded = np.pad(mask, 1)
        smaller = np.logical_and.reduce([padded[i : i + height, j : j + width] for i in range(3) for j in range(3)])
        if not smaller.any():
            return mask if taken >= least else smaller
        mask = smaller
    return mask
