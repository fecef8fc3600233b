"""PNGs whose pixels are ids, and what follows from a map of ids: tight boxes, overlaps, the image that fits."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.images import read_image
from ocrnet_pl.imaging.maps import read_map

MAX_INSTANCES = 65_535
"""Maps with more instances than this are noise, or not maps at all."""


def read_id_map(path: str | PathLike[str], *, bits: int = 8) -> NDArray[np.int32]:
    """Read a PNG of one channel as ids; palettes are read as indices, never as colors.

    Args:
        path: Path of the PNG.
        bits: Number of bits of an id: 8, or 16 where larger ids are possible; a file of 8 bits is accepted for both.

    Returns:
        int32 [H, W], 0 to 255 or 65535.

    Raises:
        DataError: The file is missing, broken or too large, has several channels, or more bits.
    """
    ids = _read(path, ("1", "L", "P") if bits == 8 else ("1", "L", "P", "I", "I;16", "I;16B"), "one channel of ids")
    ids = ids.astype(np.int32)
    if ids.size and (ids.min() < 0 or ids.max() >= 1 << bits):
        raise DataError.at(path, f"an id is outside 0 to {(1 << bits) - 1}")
    return ids


def read_rgba_map(path: str | PathLike[str]) -> NDArray[np.uint8]:
    """Read a PNG of four channels of 8 bits.

    Args:
        path: Path of the PNG.

    Returns:
        uint8 [H, W, 4].

    Raises:
        DataError: The file is missing, broken or too large, or has another number of channels.
    """
    return _read(path, ("RGBA",), "four channels").astype(np.uint8, copy=False)


def _read(path: str | PathLike[str], modes: tuple[str, ...], expected: str) -> NDArray[Any]:
    found = read_map(path)
    if found.mode not in modes:
        raise DataError.at(
            path,
            f"expected a PNG of {expected}, found mode {found.mode}",
            advice="use the masks of ids, or read masks of colors with `LabelledFolder`",
        )
    return found.pixels


def read_image_like(path: str, size: tuple[int, int], annotation: str | PathLike[str], channels: int = 3) -> Tensor:
    """Read the image that was annotated at a size, turned by its EXIF tag or not, whichever fits.

    Args:
        path: Path of the image.
        size: (height, width) of the annotation.
        annotation: Path of the annotation file, for the message.
        channels: Number of channels; three makes the image RGB.

    Returns:
        uint8 [C, H, W].

    Raises:
        DataError: The image cannot be read, or has another size.
    """
    image = read_image(path, channels=channels)
    if image.shape[1:] != size:
        # Some tools draw before the EXIF rotation.
        image = read_image(path, exif=False, channels=channels)
        if image.shape[1:] != size:
            raise DataError.at(
                annotation,
                f"it is {size[1]} x {size[0]}, but {path} is {image.shape[2]} x {image.shape[1]}",
                advice="use the images that were annotated",
            )
    return image


def tight_boxes(numbers: NDArray[np.int32], count: int) -> NDArray[np.float32]:
    """Return the box of each number's pixels.

    Args:
        numbers: int32 [H, W], 1 to ``count``; 0 is nothing.
        count: The number of boxes.

    Returns:
        float32 [count, 4], xyxy of pixel edges; zeros for a number without pixels.
    """
    rows, columns = np.nonzero(numbers)
    of = numbers[rows, columns] - 1
    boxes = np.zeros((count, 4), dtype=np.float32)
    boxes[:, :2] = np.inf
    np.minimum.at(boxes[:, 0], of, columns)
    np.minimum.at(boxes[:, 1], of, rows)
    np.maximum.at(boxes[:, 2], of, columns + 1)
    np.maximum.at(boxes[:, 3], of, rows + 1)
    boxes[~np.isfinite(boxes[:, 0])] = 0
    return boxes


def match_boxes(
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    others: NDArray[np.float32],
    other_labels: NDArray[np.int64],
    least: float,
) -> NDArray[np.int64]:
    """Pair boxes with those of the same class, the best overlap first, each at most once.

    Args:
        boxes: [N, 4], xyxy.
        labels: [N]; -1 fits any class.
        others: [M, 4].
        other_labels: [M].
        least: Smallest intersection over union of a pair.

    Returns:
        [N], the row of the other box, or -1.
    """
    matched = np.full(len(boxes), -1, dtype=np.int64)
    if not len(boxes) or not len(others):
        return matched
    corner = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - np.maximum(boxes[:, None, :2], others[None, :, :2])
    overlap = corner.clip(min=0).prod(2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)[:, None] + (others[:, 2:] - others[:, :2]).prod(1)[None]
    iou = overlap / np.maximum(areas - overlap, 1e-9)
    iou[(labels[:, None] != other_labels[None]) & (labels[:, None] >= 0)] = 0
    used = np.zeros(len(others), dtype=np.bool_)
    # Stable, so that the first of equal pairs in the file wins.
    for flat in np.argsort(-iou, axis=None, kind="stable"):
        row, other = divmod(int(flat), len(others))
        if iou[row, other] < least or iou[row, other] <= 0:
            break
        if matched[row] < 0 and not used[other]:
            matched[row] = other
            used[other] = True
    return matched
