"""Moving a whole sample at once: image, boxes, instance map and semantic map by the same numbers.

Coordinates are continuous pixel edges: pixel j covers [j, j + 1).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from ocrnet_pl.imaging.opencv import opencv
from ocrnet_pl.structures import IGNORE_INDEX, Placement, Sample

Size = tuple[int, int]
"""(height, width)."""

FILL = 114
"""The grey value of pixels outside the image."""

TIGHT = 2.0
"""If the edges of a box are farther than this from its object's pixels, the box includes hidden parts.

After whole pixels are scaled up once or twice, they may be this many pixels away from their box.
"""

_NEAR = int(TIGHT)


def wrap_boxes(boxes: Tensor, size: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    """Mark xyxy boxes as boxes of an image of this (height, width)."""
    return tv_tensors.BoundingBoxes(boxes, format=tv_tensors.BoundingBoxFormat.XYXY, canvas_size=size)


def letterbox_placement(original: Size, size: Size) -> Placement:
    """Return the placement of an image that is scaled to fit, with its aspect ratio kept, at the top left.

    Args:
        original: The image's (height, width).
        size: The (height, width) to fit into.
    """
    factor = min(size[0] / original[0], size[1] / original[1])
    height = min(size[0], max(1, round(original[0] * factor)))
    width = min(size[1], max(1, round(original[1] * factor)))
    # The sides are whole pixels, so the scales of the axes differ a little; the placement contains the exact ones.
    return Placement(original, size, (height / original[0], width / original[1]))


def letterbox_image(image: Tensor, size: Size) -> tuple[Tensor, Placement]:
    """Scale an image to fit, with its aspect ratio kept, and pad it at the bottom and right with grey.

    Args:
        image: uint8 [C, H, W].
        size: (height, width) of the result.

    Returns:
        The image and the placement of the original in it.
    """
    original = (int(image.shape[-2]), int(image.shape[-1]))
    placement = letterbox_placement(original, size)
    resized = _resized_size(placement)
    return _place_image(image.as_subclass(Tensor), (0, 0, *original), resized, size, (0, 0)), placement


def letterbox_sample(sample: Sample, size: Size) -> Sample:
    """Letterbox a sample like :func:`letterbox_image`; no object is lost."""
    if sample.size == size and sample.placement is not None:
        return sample
    placement = letterbox_placement(sample.size, size)
    moved = place(sample, (0, 0, *sample.size), _resized_size(placement), size, (0, 0), min_visible=0.0)
    if sample.placement is not None:
        before = sample.placement
        placement = Placement(
            before.original_size,
            size,
            (before.scale[0] * placement.scale[0], before.scale[1] * placement.scale[1]),
            (before.offset[0] * placement.scale[0], before.offset[1] * placement.scale[1]),
        )
    return moved.replace(placement=placement)


def _resized_size(placement: Placement) -> Size:
    return (
        round(placement.original_size[0] * placement.scale[0]),
        round(placement.original_size[1] * placement.scale[1]),
    )


def place(
    sample: Sample,
    window: tuple[int, int, int, int],
    resized: Size,
    size: Size,
    offset: Size,
    *,
    min_visible: float,
) -> Sample:
    """Cut a window out of a sample, scale it, and put it on a canvas.

    Cutting comes first, so that nothing is scaled only to be thrown away. Objects outside the window are dropped.
    Objects that it cuts get the box of the remaining part. Objects of which too little remains become crowd rows, since
    their pixels are neither background nor a fair target.

    Args:
        sample: The sample, in its own frame.
        window: Top, left, height and width in whole pixels, inside the image.
        resized: The (height, width) that the window is scaled to.
        size: (height, width) of the canvas.
        offset: (top, left) of the scaled window on the canvas, into which it must fit.
        min_visible: Share of an object's area, 0 to 1, that has to remain for it to stay a target.

    Returns:
        The new sample, without a placement.
    """
    instances = None if sample.instances is None else sample.instances.as_subclass(Tensor)
    boxes, keep, demote = cut_boxes(sample, instances, window, min_visible)
    top, left, height, width = window
    scale = np.array([resized[1] / width, resized[0] / height] * 2)
    shift = np.array([offset[1], offset[0]] * 2)
    moved = (boxes - np.array([left, top] * 2)) * scale + shift
    # Rounding to 32 bits may move a box beyond the canvas by an ulp.
    moved = np.clip(moved, 0, np.array([size[1], size[0]] * 2)).astype(np.float32)

    if instances is not None:
        instances = _place_mask(instances, window, resized, size, offset, 0)
    semantic = sample.semantic
    if semantic is not None:
        semantic = tv_tensors.Mask(
            _place_mask(semantic.as_subclass(Tensor), window, resized, size, offset, IGNORE_INDEX)
        )
    image = tv_tensors.Image(_place_image(sample.image.as_subclass(Tensor), window, resized, size, offset))
    return with_rows(sample.replace(image=image, semantic=semantic), moved, keep, demote, instances)


def with_rows(
    sample: Sample,
    boxes: NDArray[np.floating],
    keep: NDArray[np.bool_],
    demote: NDArray[np.bool_],
    instances: Tensor | None,
) -> Sample:
    """Give a sample new boxes, leave out some of its rows, and turn others into crowds.

    Args:
        sample: The sample with its new image and semantic map, and its old rows.
        boxes: [N, 4], one per old row, in the frame of the new image.
        keep: [N], the rows to keep.
        demote: [N], the rows that become crowds.
        instances: int32 [H, W], numbered by the old rows.

    Returns:
        The new sample, without a placement, its instance map numbered by the new rows.
    """
    if instances is not None and not (keep.all() and not demote.any()):
        numbers = np.zeros(len(keep) + 1, dtype=np.int32)
        numbers[1:][keep] = np.arange(1, keep.sum() + 1)
        numbers[1:][demote] = 0
        instances = torch.from_numpy(np.take(numbers, instances.numpy()))
    crowd = sample.crowd | torch.from_numpy(demote)
    kept = torch.from_numpy(keep)
    return sample.replace(
        boxes=wrap_boxes(torch.from_numpy(boxes[keep].astype(np.float32)), sample.size),
        labels=sample.labels if keep.all() else sample.labels[kept],
        crowd=crowd if keep.all() else crowd[kept],
        instances=None if instances is None else tv_tensors.Mask(instances),
        placement=None,
    )


def cut_boxes(
    sample: Sample, instances: Tensor | None, window: tuple[int, int, int, int], min_visible: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Find what remains of a sample's objects in a window.

    Args:
        sample: The sample, in its own frame.
        instances: Its instance map as a plain tensor.
        window: Top, left, height and width in whole pixels, inside the image.
        min_visible: Share of an object's area, 0 to 1, that has to remain for it to stay a target.

    Returns:
        The boxes inside the window, still in the image's frame, a mask of those to keep, and a mask of those that
        become crowds.
    """
    boxes = sample.boxes.as_subclass(Tensor).numpy().astype(np.float64)
    top, left, height, width = window
    clipped = np.clip(boxes, [left, top] * 2, [left + width, top + height] * 2)
    keep = ((clipped[:, 2:] - clipped[:, :2]) > 0).all(1)
    demote = np.zeros(len(boxes), dtype=np.bool_)
    crowd = sample.crowd.numpy()
    # A box may extend a little beyond the image's own edge; that is not a cut.
    inside = np.clip(boxes, 0, [sample.size[1], sample.size[0]] * 2)
    pixels = None if instances is None else instances.numpy()
    for i in np.flatnonzero(keep & ~crowd & (inside != clipped).any(1)):
        visible: float | None = None
        if pixels is not None:
            clipped[i], visible = _cut_instance(pixels, int(i) + 1, inside[i], clipped[i], window)
        if visible is None:
            whole = inside[i, 2:] - inside[i, :2]
            visible = float(np.prod(clipped[i, 2:] - clipped[i, :2]) / max(np.prod(whole), 1e-9))
        keep[i] = visible > 0
        demote[i] = visible < min_visible
    return clipped, keep, demote & keep


def _cut_instance(
    pixels: NDArray[np.int32],
    number: int,
    box: NDArray[np.float64],
    clipped: NDArray[np.float64],
    window: tuple[int, int, int, int],
) -> tuple[NDArray[np.float64], float | None]:
    """Return the box of an object's pixels in the window, and the share of them; None if it has no pixels.

    The part of a slanted or hollow object inside the window is smaller than the part of its box. Where the box was not
    tight before (an object behind others, whose box was drawn around all of it), the clipped box is kept.
    """
    y0, x0 = max(0, int(box[1]) - _NEAR), max(0, int(box[0]) - _NEAR)
    own = pixels[y0 : int(np.ceil(box[3])) + _NEAR, x0 : int(np.ceil(box[2])) + _NEAR] == number
    whole = bounds(own)
    if whole is None:
        return clipped, None
    top, left, height, width = window
    ys, xs = max(0, top - y0), max(0, left - x0)
    part = own[ys : max(0, top + height - y0), xs : max(0, left + width - x0)]
    share = np.count_nonzero(part) / np.count_nonzero(own)
    rest = bounds(part)
    whole += [x0, y0] * 2
    if rest is None or np.abs(whole - box).max() > TIGHT:
        return clipped, share
    rest += [x0 + xs, y0 + ys] * 2
    # An edge that the cut did not move keeps its fraction of a pixel.
    return np.where(rest == whole, clipped, rest), share


def bounds(mask: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """Return the xyxy box of the pixels that are True; None if there are none."""
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return None
    columns = np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64)


def object_bounds(pixels: NDArray[np.int32], number: int, box: NDArray[np.floating]) -> NDArray[np.float64] | None:
    """Return the xyxy box of an object's pixels.

    Args:
        pixels: [H, W], an instance map.
        number: Number of the object in the map.
        box: The box to search: pixels farther than ``TIGHT`` outside of it are not found.

    Returns:
        The box; None if no pixel is found.
    """
    left, top = (max(0, int(np.floor(edge)) - _NEAR) for edge in box[:2])
    right, bottom = (max(0, int(np.ceil(edge)) + _NEAR) for edge in box[2:])
    found = bounds(pixels[top:bottom, left:right] == number)
    return None if found is None else found + [left, top] * 2


def _place_image(image: Tensor, window: tuple[int, int, int, int], resized: Size, size: Size, offset: Size) -> Tensor:
    top, left, height, width = window
    part = image[:, top : top + height, left : left + width]
    if resized == (1, 1):
        # torch's 8-bit kernel fails on a single pixel.
        part = part.float().mean((1, 2), keepdim=True).round().to(torch.uint8)
    elif resized != (height, width) and resized[0] >= height and resized[1] >= width and len(part) <= 4:
        # Faster than torchvision where nothing is averaged, and the same on every processor, as INTER_LINEAR is not.
        cv = opencv()
        scaled = cv.resize(part.permute(1, 2, 0).numpy(), resized[::-1], interpolation=cv.INTER_LINEAR_EXACT)
        part = torch.from_numpy(scaled.reshape(*resized, -1)).permute(2, 0, 1)
    elif resized != (height, width):
        part = F.resize_image(part, list(resized), interpolation=InterpolationMode.BILINEAR, antialias=True)
    return _on_canvas(part, size, offset, FILL)


def _place_mask(
    mask: Tensor, window: tuple[int, int, int, int], resized: Size, size: Size, offset: Size, fill: int
) -> Tensor:
    top, left, height, width = window
    pixels = mask.numpy()[top : top + height, left : left + width]
    if resized != (height, width):
        cv = opencv()
        # OpenCV has no kernel for 32-bit integers, but the pixels are only copied here.
        kind = pixels.dtype
        bits = pixels.view(np.float32) if kind == np.int32 else pixels
        pixels = cv.resize(bits, resized[::-1], interpolation=cv.INTER_NEAREST_EXACT).view(kind)
    return _on_canvas(torch.from_numpy(pixels)[None], size, offset, fill)[0]


def _on_canvas(part: Tensor, size: Size, offset: Size, fill: int) -> Tensor:
    height, width = int(part.shape[-2]), int(part.shape[-1])
    if (height, width) == size:
        return part
    # Channels last in memory, as images come from the decoder; changing that on the way would cost a copy each time.
    canvas = part.new_full((*size, part.shape[0]), fill).permute(2, 0, 1)
    canvas[:, offset[0] : offset[0] + height, offset[1] : offset[1] + width] = part
    return canvas
