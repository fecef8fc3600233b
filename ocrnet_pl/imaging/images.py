"""Reading image files of any common kind, channel count and bit depth as 8-bit pixels."""

from __future__ import annotations

from os import PathLike
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.decoding import Decoded, ImageHeader, decode, read_checked_header
from ocrnet_pl.imaging.depth import no_range, to_8_bits
from ocrnet_pl.imaging.image_files import check_size, open_with_pillow, opened, unreadable
from ocrnet_pl.imaging.orientation import upright
from ocrnet_pl.imaging.tiff import read_tiff, tiff_size

MAX_PIXELS = 200_000_000
"""Number of pixels above which images are refused: a broken or malicious header must not exhaust the machine's memory.
"""


def check_image(path: str | PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Read only the header of an image.

    Args:
        path: Path of the image file.
        max_pixels: Number of pixels above which images are refused.

    Returns:
        Its stored (height, width), before any EXIF rotation.

    Raises:
        DataError: There is no such file, or it is not an image, or it is too large.
    """
    return read_header(path, exif=False, max_pixels=max_pixels).size


def read_header(path: str | PathLike[str], *, exif: bool = True, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Read the properties that an image file declares.

    Args:
        path: Path of the image file.
        exif: Whether to look for the orientation, which may follow the pixels.
        max_pixels: Number of pixels above which images are refused.

    Returns:
        The stored size, the mode and the orientation.

    Raises:
        DataError: There is no such file, or it is not an image, or it is too large.
    """
    with opened(path) as file:
        header = read_checked_header(file, exif=exif)
        if header is None:
            try:
                with open_with_pillow(file) as image:
                    tag = image.getexif().get(ExifTags.Base.Orientation, 1) if exif else 1
                    header = ImageHeader((image.height, image.width), image.mode, tag if tag in range(1, 9) else 1)
            except UnidentifiedImageError:
                size = tiff_size(file, path)
                if size is None:
                    raise
                header = ImageHeader(size, "", 1)
    check_size(path, header.size, max_pixels)
    return header


def read_image(
    path: str | PathLike[str],
    *,
    exif: bool = True,
    channels: int | None = 3,
    at_least: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """Read an image of any storage format.

    With three channels every image becomes RGB: greyscale is repeated, palettes and CMYK are converted, transparency is
    dropped. Otherwise the channels are returned as stored (a palette counts as RGB). 16 bits are scaled to 8. Of
    several frames the first is used, except that the pages of a TIFF without channels of its own become its channels if
    a number of channels other than three is requested.

    Args:
        path: Path of the image file.
        exif: Whether to turn the image as its EXIF tag says.
        channels: Number of channels; None for as many as the file has.
        at_least: A (height, width) that is enough, as for a thumbnail: a JPEG is then decoded at a half, a quarter or
            an eighth of its size, whichever is the smallest that is not below. The result has other coordinates than
            the file, and the rounding of its sides is the decoder's, so it must not be used with boxes or masks.
        max_pixels: Number of pixels above which images are refused before they are decoded.

    Returns:
        uint8 [C, H, W]; the channels are last in memory, as decoders write them and as scaling is fastest.

    Raises:
        DataError: There is no such file, or it is not an image, or it is damaged, truncated, too large, or has another
            number of channels.
    """
    whole = True
    with opened(path) as file:
        found = decode(file, path, max_pixels=max_pixels, rgb=channels == 3) if at_least is None else None
        if found is not None:
            pixels = upright(_as_asked(found, path, channels), found.orientation if exif else 1)
        else:
            try:
                pixels, whole = _with_pillow(file, path, exif, channels, at_least, max_pixels)
            except UnidentifiedImageError:
                if tiff_size(file, path) is None:
                    raise
                pixels = read_tiff(path, max_pixels)
    if channels not in (None, 3) and pixels.shape[2] != channels and not whole:
        pixels = read_tiff(path, max_pixels)
    if channels is not None and pixels.shape[2] != channels:
        raise DataError.at(
            path,
            f"it has {pixels.shape[2]} channels, not {channels}",
            advice=f"set `channels: {pixels.shape[2]}` of the source, or give images of {channels}",
        )
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def from_pillow(image: Image.Image, name: str, channels: int) -> Tensor:
    """Return the pixels of an image that Pillow has opened or made, as :func:`read_image` returns those of a file.

    Args:
        image: The image; of several frames, the current one is taken.
        name: Name of the image for messages.
        channels: Number of channels.

    Returns:
        uint8 [C, H, W], turned as the EXIF tag says.

    Raises:
        DataError: The image is damaged, or has another number of channels, or floating-point pixels.
    """
    try:
        turned = ImageOps.exif_transpose(image)
        pixels = np.array(_to_rgb(turned, name)) if channels == 3 else _as_stored(turned, name)
    except DataError:
        raise
    except Exception as error:  # Pillow decodes late, and raises almost anything on broken files
        raise unreadable(name, error) from error
    if pixels.shape[2] != channels:
        raise DataError.at(name, f"it has {pixels.shape[2]} channels, not {channels}", advice="convert it")
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _as_asked(found: Decoded, path: str | PathLike[str], channels: int | None) -> NDArray[np.uint8]:
    """Return [H, W, C]."""
    pixels = to_8_bits(found.pixels, path)
    if found.palette is not None:
        return found.palette[pixels]
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if channels == 3 and pixels.shape[2] != 3:
        return pixels[..., :3] if pixels.shape[2] > 3 else pixels[..., [0, 0, 0]]
    return pixels


def _with_pillow(
    file: BinaryIO,
    path: str | PathLike[str],
    exif: bool,
    channels: int | None,
    at_least: tuple[int, int] | None,
    max_pixels: int,
) -> tuple[NDArray[np.uint8], bool]:
    """Return [H, W, C], and whether these are all channels of the image."""
    with open_with_pillow(file) as image:
        check_size(path, (image.height, image.width), max_pixels)
        if at_least is not None:
            image.draft(None, (at_least[1], at_least[0]))
        turned = ImageOps.exif_transpose(image) if exif else image
        # Pillow returns only the first page of a TIFF, or three of its bands.
        whole = image.format != "TIFF" or image.mode in ("P", "PA", "1")
        return (np.array(_to_rgb(turned, path)) if channels == 3 else _as_stored(turned, path)), whole


def _to_rgb(image: Image.Image, path: str | PathLike[str]) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips these modes instead of scaling them.
        image = Image.fromarray(to_8_bits(np.asarray(image), path))
    elif image.mode == "F":
        raise no_range(path)
    return image.convert("RGB")


def _as_stored(image: Image.Image, path: str | PathLike[str]) -> NDArray[np.uint8]:
    """Return [H, W, C] with the channels of the file."""
    if image.mode in ("P", "PA"):
        image = image.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    pixels: NDArray[Any] = np.array(image)
    return to_8_bits(pixels if pixels.ndim == 3 else pixels[..., None], path)


def upright_size(path: str | PathLike[str]) -> tuple[int, int]:
    """Return an image's (height, width) after the turn that its EXIF tag asks for, from the header only.

    Args:
        path: Path of the image file.

    Raises:
        DataError: There is no such file, or it is not an image.
    """
    header = read_header(path)
    height, width = header.size
    return (width, height) if header.orientation >= 5 else (height, width)
