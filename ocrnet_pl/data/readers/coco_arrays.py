"""The arrays of a COCO instances file, and how masks are packed into them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.json_fields import Fields
from ocrnet_pl.data.readers.values import is_whole, shown

NO_MASK, POLYGONS, RLE = 0, 1, 2
"""The kinds of a mask: none; polygons, as their number, their lengths and their coordinates in float64; or the counts
of a compressed run-length encoding.
"""


@dataclass
class CocoIndex:
    """The content of a COCO instances file.

    Attributes:
        category_ids: Ids of the categories, in the order of the file; of several with one name, that of the first.
        category_names: Names of the categories, each once.
        ids: Ids of the images.
        names: File names of the images, normalised.
        sizes: int32 [images, 2], height and width.
        labels: int64 [N], each annotation's category; annotations in the order of the file.
        boxes: float32 [N, 4], xyxy in pixels.
        crowd: bool [N], what ``iscrowd`` says.
        ignored: bool [N], what ``ignore`` says.
        kinds: uint8 [N], the kind of mask.
        ends: int64 [N + 1], where each mask ends in ``masks``.
        masks: uint8, the masks one after the other.
        order: int64, the annotations whose box has an area, ordered by image.
        starts: int64 [images + 1], the start of each image's annotations in ``order``.
        empty: int64, the annotations whose box has no area, ordered by image.
        empty_starts: int64 [images + 1], the start of each image's annotations in ``empty``.
        file: File that the arrays are mapped from; None if they are in memory.
    """

    category_ids: list[int]
    category_names: list[str]
    ids: Sequence[int | str]
    names: Sequence[str]
    sizes: NDArray[np.int32]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float32]
    crowd: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    kinds: NDArray[np.uint8]
    ends: NDArray[np.int64]
    masks: NDArray[np.uint8]
    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    empty: NDArray[np.int64]
    empty_starts: NDArray[np.int64]
    file: str | None = None


class Masks:
    """Masks, one after the other."""

    def __init__(self) -> None:
        self._kinds: list[NDArray[np.uint8]] = []
        self._lengths: list[NDArray[np.int64]] = []
        self._pending: tuple[bytearray, array[int]] = (bytearray(), array("q"))
        self._data = bytearray()

    def add(self, kind: int, packed: bytes) -> None:
        """Add a mask."""
        self._pending[0].append(kind)
        self._pending[1].append(len(packed))
        self._data += packed

    def add_none(self, count: int) -> None:
        """Add ``count`` annotations without a mask."""
        self._flush()
        self._kinds.append(np.full(count, NO_MASK, dtype=np.uint8))
        self._lengths.append(np.zeros(count, dtype=np.int64))

    def _flush(self) -> None:
        kinds, lengths = self._pending
        if kinds:
            self._kinds.append(np.frombuffer(bytes(kinds), dtype=np.uint8))
            self._lengths.append(np.array(lengths, dtype=np.int64))
            self._pending = (bytearray(), array("q"))

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8]]:
        """Return kinds, ends and masks."""
        self._flush()
        lengths = join(self._lengths, np.int64)
        ends = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=ends[1:])
        return join(self._kinds, np.uint8), ends, np.frombuffer(self._data, dtype=np.uint8)


def pack_polygons(polygons: list[list[float]]) -> tuple[int, bytes]:
    """Turn polygons of at least three points into their kind and bytes."""
    if not polygons:
        return NO_MASK, b""
    values = array("d", [len(polygons), *map(len, polygons)])
    for polygon in polygons:
        values.fromlist(polygon)
    return POLYGONS, values.tobytes()


def pack_mask(segmentation: Any, size: tuple[int, int], where: str, fields: Fields) -> tuple[int, bytes]:
    """Turn a segmentation of any kind into its kind and bytes."""
    if not segmentation:
        return NO_MASK, b""
    if isinstance(segmentation, list):
        # A single polygon without the list around it, and points as pairs, are common and can mean nothing else.
        parts = [segmentation] if not isinstance(segmentation[0], list) else segmentation
        try:
            polygons = [np.array(polygon, dtype=np.float64) for polygon in parts]
        except (TypeError, ValueError, OverflowError) as error:
            raise fields.error(where, f"a polygon is not a list of numbers ({error})") from error
        polygons = [polygon.ravel() if polygon.shape[1:] == (2,) else polygon for polygon in polygons]
        for polygon in polygons:
            if polygon.ndim != 1 or len(polygon) % 2 or not np.isfinite(polygon).all():
                raise fields.error(where, "a polygon is not a flat list of finite x, y pairs")
        # Two points enclose nothing, and the mask library would read four numbers as a box.
        return pack_polygons([polygon.tolist() for polygon in polygons if len(polygon) >= 6])
    height, width = size
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise fields.error(where, "neither polygons nor a run-length encoding with `counts`")
    size_given = segmentation.get("size")
    if size_given != [height, width]:
        swapped = size_given == [width, height]
        raise fields.error(
            f"{where}.size",
            f"it is {shown(size_given)}, but the image is [{height}, {width}]",
            "write [height, width]; the runs go down the columns" if swapped else "",
        )
    counts = segmentation["counts"]
    if isinstance(counts, str) and counts.isascii():
        return RLE, compressed(counts)
    if not isinstance(counts, list) or not all(is_whole(count) and count >= 0 for count in counts):
        raise fields.error(f"{where}.counts", f"expected the lengths of runs, or text of them, found {shown(counts)}")
    if sum(counts) != height * width:
        raise fields.error(
            f"{where}.counts", f"the runs add up to {sum(counts)} pixels, but the image has {height * width}"
        )
    from faster_coco_eval import mask as mask_api

    runs = {"size": [height, width], "counts": [int(count) for count in counts]}
    return RLE, mask_api.segmToRle(runs, width, height)["counts"]


def compressed(counts: str) -> bytes:
    """Return the text of a run-length encoding as bytes; ``b'...'``, which Python shows of bytes, stands for them."""
    if counts[:2] in ("b'", 'b"') and counts[-1] == counts[1]:
        counts = counts[2:-1].replace("\\\\", "\\")
    return counts.encode()


def check_runs(counts: bytes, pixels: int) -> None:
    """Check a compressed run-length encoding before the mask library sees it.

    Args:
        counts: The length of each run, in characters of six bits from "0" on: five bits of the number, lowest first,
            and one bit that says whether another character follows. The first three runs are given as they are, each
            further one as its difference to the run two before it.
        pixels: Number of pixels of the image.

    Raises:
        ValueError: The counts are not such runs, or do not add up to the image.
    """
    signs = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    last = signs & 0x20 == 0
    ends = np.flatnonzero(last)
    if not len(signs) or not last[-1] or signs.min() < 0 or signs.max() > 0x3F:
        raise ValueError("the text of the run-length encoding is damaged")
    lengths = np.diff(ends, prepend=-1)
    # Seven characters are enough for any run of an image that can be read.
    if lengths.max() > 7:
        raise ValueError("a run of the run-length encoding is longer than any image")
    place = np.arange(len(signs)) - np.repeat(ends - lengths + 1, lengths)
    values = np.add.reduceat((signs & 0x1F) << 5 * place, ends - lengths + 1)
    values -= np.where(signs[ends] & 0x10 > 0, np.int64(1) << 5 * lengths, 0)
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    if runs.min() < 0 or int(runs.sum()) != pixels:
        raise ValueError(f"the run-length encoding adds up to {int(runs.sum())} pixels, but the image has {pixels}")


def by_image(
    rows: NDArray[np.int64], boxes: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return :attr:`CocoIndex.order`, ``starts``, ``empty`` and ``empty_starts``.

    Args:
        rows: [N], the image of each annotation.
        boxes: [N, 4], xyxy.
        count: Number of images.
    """
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
    found: list[NDArray[np.int64]] = []
    for chosen in (np.flatnonzero(has_area), np.flatnonzero(~has_area)):
        starts = np.zeros(count + 1, dtype=np.int64)
        np.cumsum(np.bincount(rows[chosen], minlength=count), out=starts[1:])
        found += [chosen[np.argsort(rows[chosen], kind="stable")], starts]
    return found[0], found[1], found[2], found[3]


def join(parts: list[Any], dtype: Any) -> NDArray[Any]:
    """Join arrays; return an empty one if there are none."""
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)
