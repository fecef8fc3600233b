"""Opening image files, which are never trusted: a regular file of a known format, or an error in one clear line."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from os import PathLike
from threading import Lock
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from ocrnet_pl.errors import DataError, advice_on, one_line
from ocrnet_pl.storage.ordinary_files import open_file

# Errors of a file are reported in one line with its name; these loggers would add more.
logging.getLogger("PIL").addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are read. Pillow knows more, among them EPS, for which it starts Ghostscript on the file's program.
"""

_PLAIN = re.compile(rb"P[1-6]")
_NUMBER = rb"\s*(?:#[^\r\n]*[\r\n]\s*)*\d+\s"
_PLAIN_HEADER = re.compile(rb"P(?:[14](?:" + _NUMBER + rb"){2}|[2356](?:" + _NUMBER + rb"){3})")
_PLAIN_MOST = 4096
_GIF_MOST = 16_384
_pillow_lock = Lock()


class Encoded(PathLike[str]):
    """An encoded image that is already in memory; every reader of images accepts it in place of a file.

    Args:
        data: Content of the file.
        name: Name used in messages in place of the path.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name

    def __fspath__(self) -> str:
        return self.name

    def __str__(self) -> str:
        return self.name


@contextmanager
def opened(path: str | PathLike[str], what: str = "image") -> Iterator[BinaryIO]:
    """Open an image file; any error until it is closed becomes one line that names the file.

    Args:
        path: Path of the file, or an image in memory.
        what: What the file is, "image" or "mask", for messages.

    Yields:
        The open file.

    Raises:
        DataError: There is no such file, it is not a regular file, or the code that used it raised an error.
    """
    try:
        if isinstance(path, Encoded):
            yield BytesIO(path.data)
        else:
            with open_file(path, what) as file:
                yield file
    except (DataError, ImportError):
        raise
    except Exception as error:  # decoders raise almost anything on broken files
        raise unreadable(path, error, what) from error


def open_with_pillow(file: BinaryIO) -> Image.Image:
    """Open with Pillow, for the known formats only, and without Pillow's own limit of pixels.

    That limit is a warning at 89 million, and cannot be set per call.

    Args:
        file: Open file, see :func:`opened`.

    Returns:
        Pillow's image, of which only the header has been read.

    Raises:
        ValueError: The header does not end, as is possible in GIF and in the plain formats.
    """
    start = file.read(_PLAIN_MOST)
    file.seek(0)
    if start.startswith(b"GIF8"):
        _check_gif(file)
    if _PLAIN.match(start) and not _PLAIN_HEADER.match(start):
        raise ValueError(f"its header does not end within {_PLAIN_MOST} bytes")
    with _pillow_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _check_gif(file: BinaryIO) -> None:
    """Raise an error for endless comments and the like before the first image, which Pillow joins piece by piece."""
    start = file.read(13)
    if len(start) == 13 and start[10] & 0x80:
        file.seek(3 << ((start[10] & 7) + 1), os.SEEK_CUR)
    pieces = 0
    while pieces < _GIF_MOST and file.read(1) == b"!":
        file.read(1)
        while pieces < _GIF_MOST and (length := file.read(1)) not in (b"", b"\0"):
            file.seek(length[0], os.SEEK_CUR)
            pieces += 1
        pieces += 1
    file.seek(0)
    if pieces >= _GIF_MOST:
        raise ValueError(f"there are more than {_GIF_MOST} blocks before its pixels")


def check_size(path: str | PathLike[str], size: tuple[int, int], max_pixels: int) -> None:
    """Raise an error for an image that is too large, or that has no pixels.

    Args:
        path: Path of the image.
        size: (height, width) that its header gives.
        max_pixels: Largest number of pixels.

    Raises:
        DataError: The image has more pixels, or none.
    """
    height, width = size
    if height * width > max_pixels:
        raise DataError.at(
            path,
            f"the image is {width} x {height}, more than the limit of {max_pixels / 1e6:g} megapixels",
            advice="cut it into tiles",
        )
    if height < 1 or width < 1:
        raise DataError.at(path, f"the image is {width} x {height}, so it has no pixels", advice="replace or remove it")


def unreadable(path: str | PathLike[str], error: BaseException, what: str = "image") -> DataError:
    """Return the one-line error for any exception that a decoder raised.

    Args:
        path: Path of the image.
        error: The exception.
        what: What the file is, "image" or "mask".
    """
    if isinstance(error, UnidentifiedImageError):
        kinds = f"those are {', '.join(FORMATS)}"
        return DataError.at(path, "this is not an image file of a format that is read", advice=kinds)
    reason = one_line(error)
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    return DataError.at(
        path, f"the {what} cannot be read ({reason:.300})", advice=advice_on(error, "replace or remove it")
    )
