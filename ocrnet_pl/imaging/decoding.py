"""PNG and JPEG through OpenCV, which is faster than Pillow and, given only checked data, fails on damaged files."""

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
"""Bytes that a file may have in addition to its pixels: previews, profiles, a film that a telephone appends."""

_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}


class Decoded(NamedTuple):
    """An image as it is stored.

    Attributes:
        pixels: uint8 or uint16, [H, W] for grey or a palette's indices, else [H, W, C].
        mode: Pillow's name of the mode: ``1``, ``L``, ``LA``, ``P``, ``RGB`` or ``RGBA``, whatever the depth.
        palette: uint8 [256, 3], black for colors that the palette does not define; None without a palette.
        orientation: EXIF orientation, 1 to 8.
    """

    pixels: NDArray[Any]
    mode: str
    palette: NDArray[np.uint8] | None
    orientation: int


class ImageHeader(NamedTuple):
    """The properties that an image file declares.

    Attributes:
        size: (height, width) as stored.
        mode: Pillow's name for the kind of pixels.
        orientation: EXIF orientation, 1 to 8.
    """

    size: tuple[int, int]
    mode: str
    orientation: int


def read_checked_header(file: BinaryIO, *, exif: bool = True) -> ImageHeader | None:
    """Read the header of a PNG or JPEG.

    Args:
        file: An open image file of any format.
        exif: Whether to look for the orientation, which may follow the pixels of a PNG.

    Returns:
        The header; None for another format.

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
        file: An open image file of any format.
        path: Name of the file for messages.
        max_pixels: Number of pixels above which images are refused.
        rgb: Whether grey may be returned as RGB, which is faster than repeating it later.

    Returns:
        The image; None for another format, or for a JPEG of a rare kind with a sound header.

    Raises:
        DataError: The image has more than ``max_pixels`` pixels.
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
