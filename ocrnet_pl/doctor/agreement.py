"""How well instance masks agree with the map of classes, and with the boxes they belong to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.records import RawBoxes
from ocrnet_pl.doctor.boxes import Boxes, paired_iou
from ocrnet_pl.structures import IGNORE_INDEX, Sample, Taxonomy

COUNTS = 0.5
"""Overlap from which a mask counts in the mask mAP."""


def map_agreement(sample: Sample, taxonomy: Taxonomy) -> NDArray[np.float64]:
    """Compare each instance mask with the pixels of its class in its box.

    Pixels of other instances, in crowds, and ignored ones do not count. A map derived from the masks agrees with them.

    Args:
        sample: The sample.
        taxonomy: Categories of the source.

    Returns:
        [detection classes, 3]: the number of masks, of those that overlap the map by :data:`COUNTS`, and the sum of
        overlaps.
    """
    sums = np.zeros((taxonomy.num_detection, 3))
    if sample.instances is None or sample.semantic is None:
        return sums
    instances, semantic = sample.instances.numpy(), sample.semantic.numpy()
    class_of = taxonomy.detection_to_semantic
    in_crowd = np.zeros(semantic.shape, dtype=np.bool_)
    for box in sample.boxes[sample.crowd].tolist():
        in_crowd[_window(box)] = True
    for row, (box, label) in enumerate(zip(sample.boxes.tolist(), sample.labels.tolist(), strict=True), 1):
        own = class_of[label]
        if own < 0 or not sample.supervision.semantic[own]:
            continue
        window = _window(box)
        numbers, classes = instances[window], semantic[window]
        mask = (numbers == row) & (classes != IGNORE_INDEX)
        if not mask.any():
            continue
        pixels = (classes == own) & ((numbers == row) | ((numbers == 0) & ~in_crowd[window]))
        overlap = np.count_nonzero(mask & pixels) / np.count_nonzero(mask | pixels)
        sums[label] += (1, overlap >= COUNTS, overlap)
    return sums


def _window(box: list[float]) -> tuple[slice, slice]:
    x0, y0, x1, y1 = box
    return slice(max(0, int(y0)), int(np.ceil(y1))), slice(max(0, int(x0)), int(np.ceil(x1)))


def bounds_by_rows(raw: RawBoxes, bounds: Boxes) -> NDArray[np.float64]:
    """Return how well the boxes fit their masks if the masks' runs went along the rows instead of down the columns.

    Args:
        raw: The stored boxes, with masks.
        bounds: Bounds of the masks, NaN for a box without one.

    Returns:
        The overlaps of the boxes with a mask.
    """
    from faster_coco_eval import mask as mask_api

    rows = [row for row in np.flatnonzero(np.isfinite(bounds).all(1)) if raw.masks and raw.masks[row] is not None]
    turned = np.zeros((len(rows), 4))
    for place, row in enumerate(rows):
        mask: dict[str, Any] = raw.masks[row] or {}
        height, width = mask["size"]
        pixels = mask_api.decode(mask).ravel(order="F").reshape(height, width)
        ys, xs = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
        if len(ys):
            turned[place] = xs[0], ys[0], xs[-1] + 1, ys[-1] + 1
    return paired_iou(raw.boxes[rows], turned)
