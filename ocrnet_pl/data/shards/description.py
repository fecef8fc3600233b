"""Everything but the image of a packed sample: boxes, labels, what was labelled; checked when it is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.data.readers.json_text import parse_json
from ocrnet_pl.data.readers.values import is_text, is_whole, shown
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import Placement, Supervision, Taxonomy

_MOST = 1 << 31

Fail = Callable[[str], DataError]


class Description(NamedTuple):
    """The description of a sample.

    Attributes:
        image: Format of the stored image, as the ending of a file.
        exif: Whether decoding turns the image as its EXIF tag says.
        size: (height, width) of the image.
        channels: Number of channels of the image.
        boxes: float32 [N, 4], xyxy in pixels.
        labels: int64 [N], detection classes.
        crowd: bool [N].
        supervision: What the image was labelled for.
        image_id: Id of the image in the data set.
        path: Path of the image file where it was packed.
        placement: Position and scale of the original image in this one; None if it is the original.
    """

    image: str
    exif: bool
    size: tuple[int, int]
    channels: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    supervision: Supervision
    image_id: int | str
    path: str
    placement: Placement | None


def read_description(text: bytes, taxonomy: Taxonomy, name: str) -> Description:
    """Read a description.

    Args:
        text: JSON.
        taxonomy: Categories of the data set.
        name: Name of the sample, for messages.

    Raises:
        DataError: It is damaged.
    """

    def fail(problem: str) -> DataError:
        return DataError.at(name, f"its description is damaged: {problem}", advice="copy it again, or pack again")

    content = parse_json(text, fail)
    if not isinstance(content, dict):
        raise fail(f"expected an object, found {shown(content)}")
    labels = _wholes(content.get("labels"), taxonomy.num_detection, "labels", fail)
    crowd = np.zeros(len(labels), dtype=np.bool_)
    crowd[_wholes(content.get("crowd"), len(labels), "crowd", fail)] = True
    ending, path = content.get("image"), content.get("path")
    if not is_text(ending) or not (path == "" or is_text(path)) or not isinstance(content.get("exif"), bool):
        raise fail("`image`, `path` or `exif` is wrong")
    size = _wholes(content.get("size"), _MOST, "size", fail)
    channels = content.get("channels")
    if len(size) != 2 or min(size) < 1 or not is_whole(channels) or not 0 < channels < _MOST:
        raise fail("`size` or `channels` is wrong")
    labelled = content.get("labelled")
    if not isinstance(labelled, dict):
        raise fail(f"labelled: expected an object, found {shown(labelled)}")
    return Description(
        ending,
        content["exif"],
        (size[0], size[1]),
        channels,
        _boxes(content.get("boxes"), len(labels), fail),
        np.array(labels, dtype=np.int64),
        crowd,
        Supervision(
            _flags(labelled.get("detection"), taxonomy.num_detection, "labelled.detection", fail),
            _flags(labelled.get("semantic"), taxonomy.num_semantic, "labelled.semantic", fail),
        ),
        _id(content.get("id"), fail),
        path,
        _placement(content["placement"], fail) if "placement" in content else None,
    )


def read_id(text: str, where: str) -> int | str:
    """Read an image's id.

    Args:
        text: JSON.
        where: Name of the file, for messages.

    Raises:
        DataError: It is damaged.
    """

    def fail(problem: str) -> DataError:
        return DataError.at(where, f"an id is damaged: {problem}", advice="copy it again, or pack again")

    return _id(parse_json(text, fail), fail)


def _id(value: Any, fail: Fail) -> int | str:
    if not isinstance(value, int | str):
        raise fail(f"id: expected an integer or text, found {shown(value)}")
    return value


def _wholes(values: Any, stop: int, key: str, fail: Fail) -> list[int]:
    """Return a list of integers from 0 up to one less than ``stop``."""
    if not isinstance(values, list) or not all(is_whole(value) and 0 <= value < stop for value in values):
        raise fail(f"{key}: expected integers from 0 and below {stop}, found {shown(values)}")
    return values


def _boxes(values: Any, count: int, fail: Fail) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):
            boxes = np.array(values, dtype=np.float64).astype(np.float32).reshape(-1, 4)
    except (TypeError, ValueError, OverflowError):
        boxes = np.zeros((0, 4), dtype=np.float32)
        count = -1
    if len(boxes) != count or not np.isfinite(boxes).all():
        raise fail(f"boxes: expected four finite numbers for each label, found {shown(values)}")
    return boxes


def _flags(chosen: Any, count: int, key: str, fail: Fail) -> Tensor:
    if isinstance(chosen, bool):
        return torch.full((count,), chosen, dtype=torch.bool)
    flags = torch.zeros(count, dtype=torch.bool)
    flags[_wholes(chosen, count, key, fail)] = True
    return flags


def _placement(values: Any, fail: Fail) -> Placement:
    sound = isinstance(values, list) and len(values) == 4
    if not sound or not all(isinstance(pair, list) and len(pair) == 2 for pair in values):
        raise fail(f"placement: expected four pairs, found {shown(values)}")
    sizes, numbers = [*values[0], *values[1]], [*values[2], *values[3]]
    if not all(is_whole(side) and 0 < side < _MOST for side in sizes) or not all(
        isinstance(number, int | float) and -_MOST < number < _MOST for number in numbers
    ):
        raise fail(f"placement: a number is out of range in {shown(values)}")
    if min(values[2]) <= 0 or not all(map(math.isfinite, numbers)):
        raise fail(f"placement: a scale is out of range in {shown(values)}")
    return Placement(*(tuple(pair) for pair in values))
