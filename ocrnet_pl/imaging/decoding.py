"""PNG and JPEG through OpenCV, which is faster than Pillow and, handed nothing but checked data, gives up on damage."""

from __future__ import annotations

import os
from os import PathLike
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.imaging import jpeg, png
from ocrnet_pl.imaging.image_files import check_size
from ocrnet_pl.imaging.orientation import orientation_of

_LARGE = 1 << 26
"""Bytes that a file may have beside its pixels: previews, profiles, a film that a telephone appends."""

_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}


class Decoded(NamedTuple):
    """An image as it is stored.

    Attributes:
        pixels: uint8 or uint16, [H, W] of grey or of a palette's indices, else [H, W, C].
        mode: Pillow's name: ``1``, ``L``, ``LA``, ``P``, ``RGB`` or ``RGBA``, whatever the depth.
        palette: uint8 [256, 3], black where it has fewer colors; None without a palette.
        orientation: How to turn it, 1 to 8.
    """

    pixels: NDArray[Any]
    mode: str
    palette: NDArray[np.uint8] | None
    orientation: int


class ImageHeader(NamedTuple):
    """What an image file says about itself.

    Attributes:
        size: (height, width) as stored.
        mode: Pillow's name for the kind of pixels.
        orientation: How to turn it, 1 to 8.
    """

    size: tuple[int, int]
    mode: str
    orientation: int


def read_checked_header(file: BinaryIO, *, exif: bool = True) -> ImageHeader | None:
    """Read the header of a PNG or JPEG.

    Args:
        file: Any image.
        exif: Whether to look for the orientation, which may stand behind the pixels of a PNG.

    Returns:
        None for another format.

    Raises:
        ValueError: The header is cut short or damaged.
    """
    start = file.read(len(png.SIGNATURE))
    if start == png.SIGNATURE:
        header = png.read_header(start + file.read(64))
        mode = _MODES[header.kind]
        if mode == "L":
            mode = {1: "1", 16: "I;16"}.get(header.depth, mode)
        return ImageHeader((header.height, header.width), mode, orientation_of(png.read_exif(file)) if exif else 1)
    if start.startswith(jpeg.SIGNATURE):
        found = jpeg.read_header(file)
        mode = {1: "L", 3: "RGB"}.get(found.components, "CMYK")
        return ImageHeader((found.height, found.width), mode, orientation_of(found.exif))
    file.seek(0)
    return None


def decode(file: BinaryIO, path: str | PathLike[str], *, max_pixels: int, rgb: bool = False) -> Decoded | None:
    """Decode a PNG, or a JPEG of the usual kinds.

    Args:
        file: Any image.
        path: Its name, for messages.
        max_pixels: Larger images are refused.
        rgb: Whether grey may come as RGB, which is faster than to repeat it later.

    Returns:
        None for another format, or a JPEG of a rare kind, whose header is sound.

    Raises:
        DataError: The image is larger than that.
        ValueError: The file is cut short or damaged.
    """
    start = file.read(len(png.SIGNATURE))
    if start == png.SIGNATURE:
        header = png.read_header(start + file.read(64))
        check_size(path, (header.height, header.width), max_pixels)
        data = _content(file, header.raw_bytes * 9 // 8)
        chunks = png.read_chunks(data, header)
        pixels = png.decode(data, header, chunks, rgb=rgb)
        palette = None
        if header.kind == 3:
            palette = np.zeros((256, 3), np.uint8)
            palette[: len(chunks.palette) // 3] = np.frombuffer(chunks.palette, np.uint8).reshape(-1, 3)
        mode = "RGB" if pixels.ndim == 3 and header.kind == 0 else _MODES[header.kind]
        if mode == "L" and header.depth == 1:
            mode = "1"
        return Decoded(pixels, mode, palette, orientation_of(chunks.exif))
    if start.startswith(jpeg.SIGNATURE):
        found = jpeg.read_header(file)
        check_size(path, (found.height, found.width), max_pixels)
        if found.usual:
            data = _content(file, found.height * found.width * found.components * 2)
            pixels = jpeg.decode(data, found, rgb=rgb)
            return Decoded(pixels, "RGB" if pixels.ndim == 3 else "L", None, orientation_of(found.exif))
        jpeg.check_amount(file.seek(0, os.SEEK_END), found)
    file.seek(0)
    return None


def _content(file: BinaryIO, most: int) -> bytes:
    size = file.seek(0, os.SEEK_END)
    if size > most + _LARGE:
        raise ValueError(f"the file has {size} bytes, far more than its pixels take")
    file.seek(0)
    return file.read()
