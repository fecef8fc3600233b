"""Images as files, Pillow images and arrays, for a runtime without torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ocrnet_pl.errors import DataError, advice_on

MAX_PIXELS = 200_000_000
"""Number of pixels above which images are refused: a broken header must not exhaust the machine's memory."""
MAX_SIDE = 65_535
"""Length of a side above which images are refused, that of JPEG: what scales them is as long as they are."""
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def as_pixels(
    image: str | PathLike[str] | Image.Image | NDArray[Any], channels: int, name: str = "the image"
) -> NDArray[np.uint8]:
    """Return an image as uint8 [H, W, C].

    Args:
        image: Path of a file, a Pillow image, or an array uint8 [H, W, C] with the channels of the training images,
            which are in the order red, green, blue for color; an array of grey values may be [H, W].
        channels: C.
        name: Name for messages of an image in memory.

    Raises:
        DataError: The file cannot be read as an image, or it is anything else.
    """
    if isinstance(image, str | PathLike):
        return _read(image, channels)
    if isinstance(image, Image.Image):
        with _in_one_line(name):
            return _converted(image, channels, name)
    if not isinstance(image, np.ndarray):
        raise DataError(f"{name}: expected a path, a Pillow image or an array, found {type(image).__name__}")
    if image.dtype != np.uint8:
        advice = "scale its values to 0 to 255 and convert it to np.uint8"
        if image.dtype.kind == "f":
            advice = "convert values from 0 to 1 with (image * 255).round().astype('uint8')"
        raise DataError(f"{name}: expected uint8 with values from 0 to 255, found {image.dtype}; {advice}")
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim == 3 and image.shape[2] == 1 and channels == 3:
        # Grey is repeated, as it is for files.
        image = image.repeat(3, 2)
    if image.ndim != 3 or image.shape[2] != channels or not image.size:
        first = image.ndim == 3 and image.shape[0] == channels
        advice = "; put the channels last with image.transpose(1, 2, 0)" if first else ""
        raise DataError(f"{name}: expected the shape [H, W, {channels}], found {list(image.shape)}{advice}")
    _check_sides(image.shape[0], image.shape[1], name)
    return image


def _check_sides(height: int, width: int, name: str) -> None:
    """Raise an error for an image that would take more memory than a machine has."""
    if width * height > MAX_PIXELS:
        raise DataError.at(name, f"{width} x {height} pixels are too many")
    if max(width, height) > MAX_SIDE:
        raise DataError.at(name, f"it is {width} x {height}, and no side may be longer than {MAX_SIDE} pixels")


def _read(path: str | PathLike[str], channels: int) -> NDArray[np.uint8]:
    name = os.fspath(path)
    if not name:
        raise DataError("the image: its path is empty; give the path of an image")
    if "://" in name:
        raise DataError.at(name, "addresses are not fetched", advice="fetch it yourself, and give the file")
    if os.path.exists(name) and not os.path.isfile(name):
        # A named pipe would be waited for without end.
        raise DataError.at(name, "it is not a file of an image", advice="give one")
    with _in_one_line(name), Image.open(name, formats=_FORMATS) as image:
        return _converted(image, channels, name)


@contextmanager
def _in_one_line(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises about an image into a DataError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise DataError.at(name, "there is no such image") from None
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError.at(name, f"not an image that can be read: {error}") from None
    except DataError:
        raise
    except Exception as error:  # decoders raise almost anything on broken files
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise DataError.at(
            name, f"the image cannot be read ({reason:.300})", advice=advice_on(error, "replace it")
        ) from None


def _converted(image: Image.Image, channels: int, name: str) -> NDArray[np.uint8]:
    if not image.width * image.height:
        raise DataError.at(name, f"it is {image.width} x {image.height}, and has no pixels")
    _check_sides(image.height, image.width, name)
    turned = ImageOps.exif_transpose(image)
    if turned.mode == "F":
        raise DataError.at(name, "floating-point pixels have no known range", advice="convert it to 8 or 16 bits")
    if turned.mode.startswith("I"):
        wide = np.asarray(turned).astype(np.int64)
        if wide.size and (wide.min() < 0 or wide.max() > 65535):
            raise DataError.at(name, "pixels outside 0 to 65535", advice="convert it to 8 or 16 bits")
        turned = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if channels == 3 or turned.mode in ("P", "PA"):
        turned = turned.convert("RGB")
    elif turned.mode == "1":
        turned = turned.convert("L")
    pixels = np.array(turned)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.shape[2] != channels:
        raise DataError.at(name, f"it has {pixels.shape[2]} channels, the network takes {channels}")
    return pixels
