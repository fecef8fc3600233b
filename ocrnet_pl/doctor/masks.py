"""Faults between boxes and pixels: boxes without pixels, pixels without a box, masks shifted from their boxes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.records import RawBoxes
from ocrnet_pl.doctor.box_formats import LOOSE
from ocrnet_pl.doctor.boxes import Boxes, Fault, degenerate, paired_iou
from ocrnet_pl.doctor.findings import Kind
from ocrnet_pl.structures import IGNORE_INDEX, Sample, Taxonomy

_LEAST_SHIFT = 2.0
"""Tolerance in pixels; rounding and the outline of a mask make up to one and a half."""


def mask_bounds(raw: RawBoxes, sample: Sample) -> Boxes:
    """Return the bounds of each box's mask, float64 [N, 4], xyxy; NaN for a box without one."""
    bounds = np.full((len(raw.boxes), 4), np.nan)
    if raw.masks:
        from faster_coco_eval import mask as mask_api

        rows = [i for i, mask in enumerate(raw.masks) if mask is not None]
        if rows:
            x, y, width, height = np.asarray(mask_api.toBbox([raw.masks[i] for i in rows])).reshape(-1, 4).T
            bounds[rows] = np.stack([x, y, x + width, y + height], axis=1)
    elif sample.instances is not None:
        own = _instance_bounds(sample.instances.numpy(), len(sample.boxes))
        kept = raw.rows >= 0
        bounds[kept] = own[raw.rows[kept]]
    bounds[(bounds[:, 2:] <= bounds[:, :2]).any(1)] = np.nan
    return bounds


def _instance_bounds(instances: NDArray[np.int32], count: int) -> Boxes:
    """Return the bounds of the instances 1 to ``count``; NaN for one without pixels."""
    bounds = np.full((count, 4), np.nan)
    ys, xs = np.nonzero(instances)
    numbers = instances[ys, xs]
    order = np.argsort(numbers, kind="stable")
    numbers, ys, xs = numbers[order], ys[order], xs[order]
    present, starts = np.unique(numbers, return_index=True)
    if len(present):
        low = [np.minimum.reduceat(values, starts) for values in (xs, ys)]
        high = [np.maximum.reduceat(values, starts) + 1 for values in (xs, ys)]
        inside = present <= count
        bounds[present[inside] - 1] = np.stack([*low, *high], axis=1)[inside]
    return bounds


def shift(raw: RawBoxes, bounds: Boxes, sample: Sample, taxonomy: Taxonomy) -> tuple[float, float] | None:
    """Return by how far (x, y) all masks of an image are shifted from their boxes; None if they are not.

    A single object that is off has a loose box; a shift is the same for all objects, or nearly all.

    Args:
        raw: The stored boxes.
        bounds: Bounds of the masks, from :func:`mask_bounds`.
        sample: The sample, whose map of classes is used if there are no masks of single objects.
        taxonomy: Categories of the source.
    """
    if not np.isfinite(bounds).any() and sample.semantic is not None:
        bounds = _class_bounds(raw, sample.semantic.numpy(), taxonomy)
    height, width = sample.size
    # Objects cut by the image's edge have no extent to compare.
    whole = (bounds[:, :2] > 0.5).all(1) & (bounds[:, 2] < width - 0.5) & (bounds[:, 3] < height - 0.5)
    offsets = (bounds - raw.boxes)[whole & ~raw.crowd & ~degenerate(raw.boxes)]
    rigid = (np.abs(offsets[:, :2] - offsets[:, 2:]) < 2).all(1)
    moved = (offsets[:, :2] + offsets[:, 2:]) / 2
    if len(moved) < 2 or rigid.mean() < 0.6:
        return None
    middle = np.median(moved[rigid], axis=0)
    agree = rigid & (np.abs(moved - middle) < 1.5).all(1)
    if agree.sum() < 2 or agree.mean() < 0.6 or np.abs(middle).max() < _LEAST_SHIFT:
        return None
    return float(middle[0]), float(middle[1])


def _class_bounds(raw: RawBoxes, semantic: NDArray[np.uint8], taxonomy: Taxonomy) -> Boxes:
    """Return the bounds of the pixels of each box's class in and around it, where no other box of the class is near."""
    bounds = np.full((len(raw.boxes), 4), np.nan)
    class_of = taxonomy.detection_to_semantic
    boxes = raw.boxes
    margin = np.maximum(8, 0.25 * (boxes[:, 2:] - boxes[:, :2]))
    grown = np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1)
    usable = ~degenerate(boxes) & ~raw.crowd
    for row in np.flatnonzero(usable):
        own = class_of[raw.labels[row]]
        others = (raw.labels == raw.labels[row]) & (np.arange(len(boxes)) != row)
        near = (boxes[others][:, :2] < grown[row, 2:]).all(1) & (boxes[others][:, 2:] > grown[row, :2]).all(1)
        if own < 0 or near.any():
            continue
        left, top = np.maximum(grown[row, :2], 0).astype(int)
        right, bottom = np.ceil(grown[row, 2:]).astype(int)
        pixels = semantic[top:bottom, left:right] == own
        if not pixels.any() or pixels[[0, -1]].any() or pixels[:, [0, -1]].any():
            continue
        rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
        bounds[row] = [left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1]
    return bounds


def pixel_faults(raw: RawBoxes, bounds: Boxes, sample: Sample, taxonomy: Taxonomy) -> Iterator[Fault]:
    """Compare each box with its mask and with the map of the classes.

    Args:
        raw: The stored boxes.
        bounds: Bounds of the masks, from :func:`mask_bounds`.
        sample: The image with its maps.
        taxonomy: Categories of the source.

    Yields:
        Each fault; a loose box only once, not also as a box without pixels.
    """
    usable = ~degenerate(raw.boxes) & ~raw.crowd
    large = (raw.boxes[:, 2:] - raw.boxes[:, :2] >= 2).all(1)
    some = any(mask is not None for mask in raw.masks)
    fit = paired_iou(raw.boxes, np.nan_to_num(bounds))
    for row in np.flatnonzero(usable & large):
        if some and raw.masks[row] is None:
            yield Kind.BOX_EMPTY, int(row), "it has no mask, while other boxes of the image have one", None
        elif some and np.isnan(bounds[row]).any():
            yield Kind.BOX_EMPTY, int(row), "its mask is empty", None
        elif not raw.masks and sample.instances is not None and np.isnan(bounds[row]).any():
            yield Kind.BOX_EMPTY, int(row), "the instance map has no pixels of it", None
        elif (share := _share_in_box(raw, int(row), sample, taxonomy)) is not None and share <= 0.005:
            name = taxonomy.detection_categories[raw.labels[row]].name
            yield Kind.BOX_EMPTY, int(row), f"there are no pixels of {name!r} in it", None
        elif np.isfinite(bounds[row]).all() and fit[row] < LOOSE:
            text = " ".join(f"{value:g}" for value in bounds[row])
            yield Kind.BOX_LOOSE, int(row), f"it overlaps the bounds of its mask ({text}) by {fit[row]:.0%}", None


def _share_in_box(raw: RawBoxes, row: int, sample: Sample, taxonomy: Taxonomy) -> float | None:
    """Return the share of a box's labelled pixels that have its class; None if that says nothing."""
    if sample.semantic is None:
        return None
    own = taxonomy.detection_to_semantic[raw.labels[row]]
    if own < 0 or not sample.supervision.semantic[own]:
        return None
    x0, y0 = np.maximum(raw.boxes[row, :2], 0)
    window = sample.semantic.numpy()[
        int(y0) : int(np.ceil(raw.boxes[row, 3])), int(x0) : int(np.ceil(raw.boxes[row, 2]))
    ]
    known = np.count_nonzero(window != IGNORE_INDEX)
    if not window.size or known < 0.5 * window.size:
        return None
    return float(np.count_nonzero(window == own) / known)


def unboxed(raw: RawBoxes, sample: Sample, taxonomy: Taxonomy) -> list[tuple[int, int, tuple[int, int, int, int]]]:
    """Return the segmentation classes with pixels outside all their boxes, how many, and the bounds of those pixels.

    A few pixels along the outline of a box are not a fault.

    Args:
        raw: The stored boxes; those that the reader drops are ignored.
        sample: The image with its maps.
        taxonomy: Categories of the source.
    """
    if sample.semantic is None:
        return []
    semantic = sample.semantic.numpy()
    class_of = np.array(taxonomy.detection_to_semantic, dtype=np.int64)
    # A class is compared if the image was labelled for its boxes and for its pixels.
    both = [
        int(own)
        for label, own in enumerate(class_of)
        if own >= 0 and sample.supervision.detection[label] and sample.supervision.semantic[own]
    ]
    relevant = np.zeros(256, dtype=np.bool_)
    relevant[both] = True
    present = np.flatnonzero((np.bincount(semantic.reshape(-1), minlength=256) > 0) & relevant)
    if not len(present):
        return []
    left_over = np.where(relevant[semantic], semantic, IGNORE_INDEX)
    for row in np.flatnonzero(~degenerate(raw.boxes) & (raw.rows >= 0)):
        margin = max(2.0, 0.05 * float((raw.boxes[row, 2:] - raw.boxes[row, :2]).max()))
        x0, y0 = np.maximum(raw.boxes[row, :2] - margin, 0).astype(int)
        x1, y1 = np.maximum(np.ceil(raw.boxes[row, 2:] + margin), 0).astype(int)
        window = left_over[y0:y1, x0:x1]
        window[window == class_of[raw.labels[row]]] = IGNORE_INDEX
    counts = np.bincount(left_over.reshape(-1), minlength=256)
    found = []
    for own in present:
        if counts[own] < max(12, 2e-4 * semantic.size):
            continue
        pixels = left_over == own
        rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
        bounds = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        found.append((int(own), int(counts[own]), bounds))
    return found
