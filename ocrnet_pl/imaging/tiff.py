"""TIFF beyond what Pillow reads: many channels, pages as channels, rare depths."""

from __future__ import annotations

import logging
import lzma
import math
import os
import struct
import zlib
from collections.abc import Callable
from os import PathLike
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.depth import to_8_bits
from ocrnet_pl.imaging.image_files import check_size, opened

# Errors of a file are reported in one line with its name; the library would log each tag.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_MAX_PAGES = 10_000
_MAX_VALUES = 1_000_000_000
_UNPACKERS: dict[int, Callable[[], Any]] = {
    8: zlib.decompressobj,
    32946: zlib.decompressobj,
    34925: lzma.LZMADecompressor,
}
_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class _Layout(NamedTuple):
    size: tuple[int, int]
    axes: str


def tiff_size(file: BinaryIO, path: str | PathLike[str]) -> tuple[int, int] | None:
    """Return the (height, width) of a TIFF that Pillow cannot read.

    Args:
        file: An open file of any format.
        path: Name of the file for messages.

    Returns:
        The size; None if it is not a TIFF.

    Raises:
        DataError: It has other axes than rows, columns and channels.
    """
    from tifffile import TiffFile

    file.seek(0)
    if file.read(4) not in _SIGNATURES:
        return None
    _check_pages(file)
    with TiffFile(file) as tiff:
        return _layout(tiff.series[0], path).size


def read_tiff(path: str | PathLike[str], max_pixels: int) -> NDArray[np.uint8]:
    """Read all channels of a TIFF.

    Args:
        path: Path of the file.
        max_pixels: Number of pixels above which images are refused before they are decoded.

    Returns:
        [H, W, C].

    Raises:
        DataError: It is broken or too large, or has other axes, or a depth without a known range.
    """
    from tifffile import TiffFile

    with opened(path) as file:
        _check_pages(file)
        with TiffFile(file) as tiff:
            series = tiff.series[0]
            layout = _layout(series, path)
            check_size(path, layout.size, max_pixels)
            _check_data(series, file, file.seek(0, os.SEEK_END))
            values = series.asarray(maxworkers=1)
    order = [layout.axes.index(axis) for axis in "YX"]
    order += [axis for axis in range(len(layout.axes)) if axis not in order]
    values = values.transpose(order)
    return np.ascontiguousarray(to_8_bits(values if values.ndim == 3 else values[..., None], path))


def _layout(series: Any, path: str | PathLike[str]) -> _Layout:
    axes: str = series.axes
    sizes = dict(zip(axes, series.shape, strict=True))
    if "Y" not in sizes or "X" not in sizes or len(axes) > 3:
        raise DataError.at(path, f"its axes are {axes}, expected rows, columns and channels")
    return _Layout((sizes["Y"], sizes["X"]), axes)


def _check_pages(file: BinaryIO) -> None:
    """Raise an error for a chain of pages that returns to itself, or is longer than any image's."""
    file.seek(0)
    start = file.read(16)
    order = "<" if start[:2] == b"II" else ">"
    big = start[2:4] in (b"+\0", b"\0+")
    count, offset, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
    place = struct.unpack_from(order + offset, start, 8 if big else 4)[0]
    seen: set[int] = set()
    while place:
        if place in seen or len(seen) >= _MAX_PAGES:
            raise ValueError("its pages form a circle" if place in seen else f"it has more than {_MAX_PAGES} pages")
        seen.add(place)
        file.seek(place)
        number = struct.unpack(order + count, file.read(struct.calcsize(count)))[0]
        file.seek(place + struct.calcsize(count) + number * entry)
        place = struct.unpack(order + offset, file.read(struct.calcsize(offset)))[0]
    file.seek(0)


def _check_data(series: Any, file: BinaryIO, file_bytes: int) -> None:
    """Raise an error for pages that take more memory than their image, or claim data that the file does not have."""
    if math.prod(series.shape) > _MAX_VALUES:
        raise ValueError(f"its pixels are {math.prod(series.shape):,} values, more than {_MAX_VALUES:,}")
    for page in series.pages:
        if page is None:
            continue
        ends = [begin + length for begin, length in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if min(page.databytecounts, default=0) < 0 or max(ends, default=0) > file_bytes:
            raise ValueError("the file is cut short")
        if len(ends) != math.prod(page.keyframe.chunked):
            raise ValueError("parts of it are missing")
        held = sum(page.databytecounts)
        # A tile may extend over the image's edge, but not far.
        tile, shape, most = math.prod(page.keyframe.chunks), math.prod(page.keyframe.shape), page.keyframe.nbytes
        if held > min(file_bytes, 2 * most + (1 << 16)) or tile > 16 * max(shape, 1 << 16):
            raise ValueError("its parts are far larger than its pixels")
        unpacker = _UNPACKERS.get(int(page.keyframe.compression))
        most = tile * page.keyframe.dtype.itemsize
        for begin, length in zip(page.dataoffsets, page.databytecounts, strict=True):
            if unpacker is not None and length * 8000 > 4 * most + (1 << 26):
                file.seek(begin)
                if len(unpacker().decompress(file.read(length), most + 1)) > most:
                    raise ValueError("its parts unpack to more than its pixels")
