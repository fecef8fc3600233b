"""Masks of many objects in flat arrays, which worker processes share, and drawing an image's into its maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.coco_arrays import NO_MASK, POLYGONS, RLE, check_runs
from ocrnet_pl.data.readers.values import MOST
from ocrnet_pl.imaging.images import MAX_PIXELS
from ocrnet_pl.structures import IGNORE_INDEX

_LONGEST_OUTLINE = 4e6
"""Largest length of the outlines of a mask, in pixels; that of the largest images is far shorter."""


class MaskWindow(NamedTuple):
    """A mask in a part of the image; the arrays are in column order in memory."""

    top: int
    left: int
    pixels: NDArray[np.bool_]

    def slices(self) -> tuple[slice, slice]:
        """Return where the part is in the image."""
        height, width = self.pixels.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


class PackedMasks:
    """Masks, one after the other; see :class:`~ocrnet_pl.data.readers.coco_arrays.Masks`, which makes the arrays.

    Args:
        kinds: uint8 [N], the kind of each mask.
        ends: int64 [N + 1], where each mask ends in ``data``.
        data: uint8, the masks.
    """

    def __init__(self, kinds: NDArray[np.uint8], ends: NDArray[np.int64], data: NDArray[np.uint8]) -> None:
        self._kinds, self._ends, self._data = kinds, ends, data

    def encoding(self, row: int, size: tuple[int, int]) -> dict[str, Any] | None:
        """Return a mask in the library's compressed form; None for none.

        Args:
            row: Number of the mask.
            size: (height, width) of its image.

        Raises:
            ValueError: It is broken.
        """
        if self._kinds[row] == NO_MASK:
            return None
        if size[0] * size[1] > MAX_PIXELS:
            raise ValueError(f"no image of {size[1]} x {size[0]} can be read")
        if self._kinds[row] == RLE:
            counts = self._data[self._ends[row] : self._ends[row + 1]].tobytes()
            check_runs(counts, size[0] * size[1])
            return {"size": list(size), "counts": counts}
        return encode_polygons(self._polygons(row), size)

    def whole_encoding(self, row: int, size: tuple[int, int]) -> dict[str, Any] | None:
        """Return a mask; None for a broken one, which only matters where it is drawn."""
        try:
            return self.encoding(row, size)
        except ValueError:
            return None

    def window(self, row: int, size: tuple[int, int]) -> MaskWindow | None:
        """Draw a mask, in the part of the image that it covers; None for none.

        Raises:
            ValueError: It is broken.
        """
        from faster_coco_eval import mask as mask_api

        if self._kinds[row] == NO_MASK:
            return None
        if self._kinds[row] == POLYGONS:
            polygons = self._polygons(row)
            corners = polygons[0] if len(polygons) == 1 else np.concatenate(polygons)
            low, high = np.floor(corners.min(0)).astype(int) - 1, np.ceil(corners.max(0)).astype(int) + 1
            if (low >= 0).all() and (high <= (size[1], size[0])).all():
                # Moved by whole pixels it looks the same, and an image of the mask's size is much smaller to draw.
                shape = (int(high[1] - low[1]), int(high[0] - low[0]))
                drawn = mask_api.decode(encode_polygons([polygon - low for polygon in polygons], shape))
                return MaskWindow(int(low[1]), int(low[0]), drawn.view(np.bool_))
        whole = self.encoding(row, size)
        left, top, width, height = (int(side) for side in np.ravel(mask_api.toBbox([whole])))
        return MaskWindow(top, left, mask_api.decode(whole)[top : top + height, left : left + width].astype(np.bool_))

    def _polygons(self, row: int) -> list[NDArray[np.float64]]:
        """Return the polygons of a mask, each [N, 2].

        Raises:
            ValueError: They are broken.
        """
        values = self._data[self._ends[row] : self._ends[row + 1]].copy().view(np.float64)
        count = int(values[0]) if len(values) and 0 < values[0] < len(values) else len(values)
        lengths, points = values[1 : count + 1], values[count + 1 :]
        if not (lengths >= 6).all() or (lengths % 2).any() or lengths.sum() != len(points) or not len(points):
            raise ValueError("the outlines are damaged")
        polygons = [points.reshape(-1, 2)]
        if count > 1:
            polygons = np.split(polygons[0], np.cumsum(lengths[:-1].astype(int) // 2))
        # The mask library allocates memory for every pixel of an outline, also far outside of the image.
        low, high = float(points.min()), float(points.max())
        if not -MOST <= low <= high <= MOST:
            raise ValueError("an outline is far outside of the image")
        if (high - low) * len(points) > _LONGEST_OUTLINE:
            outline = sum(float(np.abs(part - np.roll(part, 1, axis=0)).max(1).sum()) for part in polygons)
            if outline > _LONGEST_OUTLINE:
                raise ValueError(f"the outline is {outline:.3g} pixels long")
        return polygons


def encode_polygons(polygons: Sequence[NDArray[np.float64]], size: tuple[int, int]) -> dict[str, Any]:
    """Return the union of polygons, each [N, 2] of x and y, as a run-length encoding of an image of (height, width)."""
    from faster_coco_eval import mask as mask_api

    encodings = mask_api.frPyObjects([polygon.ravel().tolist() for polygon in polygons], *size)
    return dict(encodings[0] if len(encodings) == 1 else mask_api.merge(encodings))


def paint(
    masks: Sequence[MaskWindow | None],
    boxes: NDArray[np.float32],
    crowd: NDArray[np.bool_],
    classes: Sequence[int] | None,
    size: tuple[int, int],
    nothing: int,
) -> tuple[NDArray[np.int32] | None, NDArray[np.uint8] | None]:
    """Return the instance and the semantic map that an image's masks make; None for what is unknown.

    A pixel in several masks belongs to the smallest, because the small object is nearly always in front. Crowds are
    below everything. Where a box has no mask, its pixels that are in no mask are ignored, since the object is there.

    Args:
        masks: The mask of each box; None for none.
        boxes: float32 [N, 4], xyxy.
        crowd: bool [N], boxes that get a class for their pixels, but no instance.
        classes: Segmentation class of each box, below 0 for none; None to draw no semantic map.
        size: (height, width) of the image.
        nothing: Segmentation class of the pixels without a mask, or 255.
    """
    if len(masks) and not any(mask is not None for mask in masks):
        return None, None
    areas = [0 if mask is None else np.count_nonzero(mask.pixels) for mask in masks]
    instances = np.zeros(size, dtype=np.int32)
    semantic = np.full(size, nothing, dtype=np.uint8)
    for i in sorted(range(len(masks)), key=lambda i: (not crowd[i], -areas[i])):
        mask = masks[i]
        if mask is None:
            continue
        np.copyto(instances[mask.slices()], 0 if crowd[i] else i + 1, where=mask.pixels)
        if classes is not None:
            value = classes[i] if classes[i] >= 0 else IGNORE_INDEX
            np.copyto(semantic[mask.slices()], value, where=mask.pixels)
    if classes is None:
        return instances, None
    _ignore_boxes(semantic, boxes, masks)
    return instances, semantic


def _ignore_boxes(semantic: NDArray[np.uint8], boxes: NDArray[np.float32], masks: Sequence[MaskWindow | None]) -> None:
    """Ignore the pixels of boxes without a mask, where no mask says what they are."""
    if not any(mask is None for mask in masks):
        return
    known = np.zeros(semantic.shape, dtype=np.bool_)
    for mask in masks:
        if mask is not None:
            known[mask.slices()] |= mask.pixels
    for box, mask in zip(boxes, masks, strict=True):
        if mask is None:
            x0, y0, x1, y1 = box
            window = (slice(max(0, int(y0)), int(np.ceil(y1))), slice(max(0, int(x0)), int(np.ceil(x1))))
            semantic[window][~known[window]] = IGNORE_INDEX
