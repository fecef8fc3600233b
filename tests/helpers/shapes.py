"""Samples of plain shapes, and images whose geometry can be read off them, for the tests of the transforms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ocrnet_pl.data.records import make_sample
from ocrnet_pl.imaging.geometry import Size
from ocrnet_pl.structures import Sample, Supervision
from tests.helpers.painted import TAXONOMY, bounds


def blobs(height: int, width: int, seed: int, count: int = 5, *, round_: bool = True) -> Sample:
    """Ellipses, or rectangles apart; boxes are the bounds of their visible pixels. Row i has label i % 3."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] + 0.5
    instances = np.zeros((height, width), dtype=np.int32)
    for number in range(1, count + 1):
        cy, cx = rng.random(2) * [height, width]
        ry, rx = rng.uniform(0.05, 0.4, 2) * [height, width]
        if round_:
            instances[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1] = number
            continue
        rectangle = (np.abs(y - cy) <= ry) & (np.abs(x - cx) <= rx)
        if not instances[rectangle].any():
            instances[rectangle] = number
    kept = [number for number in range(1, count + 1) if (instances == number).sum() > 0]
    table = np.zeros(count + 1, dtype=np.int32)
    table[kept] = np.arange(1, len(kept) + 1)
    instances = table[instances]
    labels = [row % 3 for row in range(len(kept))]
    boxes = [bounds(instances == row + 1) for row in range(len(kept))]
    semantic = np.append(0, 1 + np.array(labels, dtype=int))[instances].astype(np.uint8)
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
    return make_sample(
        image,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=labels,
        crowd=[False] * len(labels),
        semantic=semantic,
        instances=instances,
        supervision=Supervision.full(TAXONOMY),
        image_id=seed,
    )


def flat(size: Size, value: int, objects: Sequence[tuple[int, int, int, int, int]], **changes: object) -> Sample:
    """An image of one value with rectangles (x0, y0, x1, y1, label), the later in front, each of its own value."""
    instances = np.zeros(size, dtype=np.int32)
    semantic = np.zeros(size, dtype=np.uint8)
    image = torch.full((3, *size), value, dtype=torch.uint8)
    for row, (x0, y0, x1, y1, label) in enumerate(objects):
        instances[y0:y1, x0:x1] = row + 1
        semantic[y0:y1, x0:x1] = 1 + label
        image[:, y0:y1, x0:x1] = value + 10 * (row + 1)
    sample = make_sample(
        image,
        boxes=[bounds(instances == row + 1) for row in range(len(objects))],
        labels=[label for *_, label in objects],
        crowd=[False] * len(objects),
        semantic=semantic,
        instances=instances,
        supervision=Supervision.full(TAXONOMY),
        path=f"flat-{value}",
    )
    return sample.replace(**changes)


def ramps(height: int, width: int) -> Tensor:
    """An image whose first two channels grow evenly along x and y, so that its geometry can be read off it."""
    image = torch.zeros(3, height, width)
    image[0] = (torch.arange(width) + 0.5) / width * 255
    image[1] = ((torch.arange(height) + 0.5) / height * 255)[:, None]
    image[2] = 255  # away from the padding's grey
    return image.round().to(torch.uint8)


def measure(image: Tensor, axis: int, original: int) -> tuple[float, float]:
    """Return scale and offset along an axis (0 = x, 1 = y), fitted to the ramps of the pixels inside."""
    inside = image[2] == 255
    values = image[axis].double()
    flat = (values > 8) & (values < 247) & inside  # antialiasing bends the ramps at their ends
    position = torch.nonzero(flat)[:, 1 - axis].double() + 0.5
    source = values[flat] / 255 * original
    design = torch.stack([source, torch.ones_like(source)], 1)
    scale, offset = torch.linalg.lstsq(design, position[:, None]).solution.flatten().tolist()
    return scale, offset
