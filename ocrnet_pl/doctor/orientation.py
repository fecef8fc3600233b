"""Images whose EXIF tag turns them, while their labels may not be turned."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.doctor.findings import Level
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.decoding import ImageHeader
from ocrnet_pl.imaging.images import read_header, read_image
from ocrnet_pl.structures import Sample

_CLEAR, _CLEAR_BOXES = 1.2, 1.6
"""Required ratio of the contrast along the labels' outlines between the two orientations, for masks and for boxes."""


def header_of(path: str) -> ImageHeader | None:
    """Return an image file's header; None if it is not an image file."""
    try:
        return read_header(path)
    except DataError:
        return None


def rotation_fault(sample: Sample, boxes: NDArray[np.float64], header: ImageHeader) -> tuple[str, Level, bool] | None:
    """Judge the labels of an image that has an EXIF rotation.

    The labels' outlines should be where the image has contrast. If that is clearly more the case on the image as it is
    stored, the labels were drawn before it was turned.

    Args:
        sample: The sample, as the reader returns it.
        boxes: The stored boxes, xyxy, [N, 4].
        header: Header of its file.

    Returns:
        The finding, its severity, and whether the labels belong to the stored pixels; None without a rotation.
    """
    if header.orientation == 1:
        return None
    swapped = header.orientation >= 5
    tag = f"EXIF orientation {header.orientation}"
    if swapped and sample.size == header.size != header.size[::-1]:
        text = f"{tag}: the labels have the size of the unturned image, so it is read unturned; others will turn it"
        return text, Level.WARNING, True
    if not len(boxes) and sample.semantic is None:
        return f"{tag}: it has no labels to compare with", Level.NOTE, False
    if header.size != sample.size and _fit(boxes, header.size) and not _fit(boxes, sample.size):
        return f"{tag}: the boxes fit the unturned image, but not the turned one", Level.ERROR, True
    upright = _contrast_along(sample.image, sample, boxes, sample.size)
    try:
        stored_image = read_image(sample.path, exif=False)
    except DataError:
        return None
    ways = [sample.size]
    if header.size != sample.size:
        # The labels may be in pixels of the stored image, although the annotation file gives the size of the turned
        # one.
        ways.append(header.size)
    stored = max(_contrast_along(stored_image, sample, boxes, size) for size in ways)
    masked = sample.instances is not None or sample.semantic is not None
    clear = _CLEAR if masked else _CLEAR_BOXES
    if stored > clear * upright:
        figures = f"contrast along them {stored:.2f} unturned, {upright:.2f} turned"
        text = f"{tag}: the labels are not turned with it ({figures})"
        return text, Level.ERROR, True
    if upright > clear * stored:
        return f"{tag}: the labels are turned with it", Level.NOTE, False
    return f"{tag}: it is unclear whether the labels are turned with it; look at the picture", Level.WARNING, False


def _fit(boxes: NDArray[np.float64], size: tuple[int, int]) -> bool:
    return bool((boxes[:, 2] < size[1] + 1.5).all() and (boxes[:, 3] < size[0] + 1.5).all())


def _contrast_along(image: Tensor, sample: Sample, boxes: NDArray[np.float64], size: tuple[int, int]) -> float:
    """Return the image's mean contrast along the outlines of the labels, relative to its contrast everywhere.

    Args:
        image: uint8 [C, H, W].
        sample: The sample with the maps.
        boxes: Boxes, which are used if there is no map.
        size: (height, width) of the frame that the labels are in; it is stretched over the image.
    """
    grey = image.as_subclass(Tensor).float().mean(0)
    contrast = torch.zeros_like(grey)
    contrast[:, 1:] += (grey[:, 1:] - grey[:, :-1]).abs()
    contrast[1:] += (grey[1:] - grey[:-1]).abs()
    ys, xs = _outline(sample, boxes)
    inside = (ys < size[0]) & (xs < size[1])
    if inside.sum() < 0.9 * len(ys) or not len(ys):
        return 0.0
    rows = np.minimum(ys[inside] * image.shape[-2] / size[0], image.shape[-2] - 1).astype(np.int64)
    columns = np.minimum(xs[inside] * image.shape[-1] / size[1], image.shape[-1] - 1).astype(np.int64)
    values = contrast.numpy()
    return float(values[rows, columns].mean() / max(float(values.mean()), 1e-6))


def _outline(sample: Sample, boxes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the (y, x) of pixels along the labels' outlines."""
    plane = sample.instances if sample.instances is not None and bool(sample.instances.any()) else sample.semantic
    if plane is not None:
        values = plane.numpy()
        edge = np.zeros(values.shape, dtype=np.bool_)
        edge[:, 1:] |= values[:, 1:] != values[:, :-1]
        edge[1:] |= values[1:] != values[:-1]
        ys, xs = np.nonzero(edge)
        return ys.astype(np.float64), xs.astype(np.float64)
    parts_y, parts_x = [np.zeros(0)], [np.zeros(0)]
    for x0, y0, x1, y1 in boxes[np.isfinite(boxes).all(1)]:
        left, top, right, bottom = max(x0, 0), max(y0, 0), max(x1 - 1, 0), max(y1 - 1, 0)
        along_x, along_y = np.arange(left, right), np.arange(top, bottom)
        parts_x += [along_x, along_x, np.full(len(along_y), left), np.full(len(along_y), right)]
        parts_y += [np.full(len(along_x), top), np.full(len(along_x), bottom), along_y, along_y]
    return np.floor(np.concatenate(parts_y)), np.floor(np.concatenate(parts_x))
