"""Removing pixels from the objects of a sample, as when something is put in front of them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.imaging.geometry import TIGHT, bounds, with_rows
from ocrnet_pl.structures import Sample


def hide(sample: Sample, hidden: Tensor, min_visible: float) -> Sample:
    """Remove hidden pixels from a sample's objects; the image and the semantic map do not change.

    Objects that are hidden completely are dropped. Objects hidden in part get the box of the remaining part, if their
    box was tight before. Objects of which too little remains become crowd rows, since their pixels are neither
    background nor a fair target. An object without pixels in the instance map keeps its box, and the remaining share of
    the box counts.

    Args:
        sample: A sample of any size.
        hidden: bool [H, W], the hidden pixels.
        min_visible: Share of an object's area, 0 to 1, that has to remain for it to stay a target.

    Returns:
        The new sample, without a placement.
    """
    cover = hidden.numpy()
    around = bounds(cover)
    if around is None:
        return sample
    instances = None if sample.instances is None else sample.instances.as_subclass(Tensor)
    pixels = None if instances is None else instances.numpy()
    boxes = sample.boxes.as_subclass(Tensor).numpy().astype(np.float64)
    crowd = sample.crowd.numpy()
    keep = np.ones(len(boxes), dtype=np.bool_)
    demote = np.zeros(len(boxes), dtype=np.bool_)
    met = (boxes[:, :2] < around[2:]).all(1) & (boxes[:, 2:] > around[:2]).all(1)
    for i in np.flatnonzero(met):
        number = 0 if crowd[i] else int(i) + 1
        boxes[i], visible = _rest(boxes[i], number, cover, pixels)
        keep[i] = visible > 0
        demote[i] = not crowd[i] and 0 < visible < min_visible
    if instances is not None:
        instances = torch.where(hidden, 0, instances)
    return with_rows(sample, boxes, keep, demote, instances)


def _rest(
    box: NDArray[np.float64], number: int, cover: NDArray[np.bool_], pixels: NDArray[np.int32] | None
) -> tuple[NDArray[np.float64], float]:
    """Return an object's box without its covered pixels, and the remaining share of it; number 0 is a crowd."""
    height, width = cover.shape
    x0, y0 = np.maximum(np.floor(box[:2]), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(box[2:]), [width, height]).astype(int)
    if pixels is not None and number:
        # A box may end a little inside its object.
        margin = int(TIGHT)
        top, left = max(0, y0 - margin), max(0, x0 - margin)
        around = (slice(top, y1 + margin), slice(left, x1 + margin))
        own = pixels[around] == number
        whole = bounds(own)
        if whole is not None:
            left_over = own & ~cover[around]
            share = np.count_nonzero(left_over) / np.count_nonzero(own)
            rest = bounds(left_over)
            if rest is None or np.abs(whole + [left, top] * 2 - box).max() > TIGHT:
                return box, share
            # An edge that did not move keeps its fraction of a pixel.
            return np.where(rest == whole, box, rest + [left, top] * 2), share
    part = cover[y0:y1, x0:x1]
    return box, 1.0 - float(part.mean()) if part.size else 1.0
