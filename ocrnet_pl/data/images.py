"""Reading image files of any common kind, channel count and bit depth as 8-bit pixels."""

from __future__ import annotations

import struct
from io import BytesIO
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ocrnet_pl.data.errors import DataError

MAX_PIXELS = 200_000_000
"""Images with more pixels than this are refused: a broken or malicious header must not take the machine's memory."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION = 0x0112
_open_lock = Lock()


class Encoded(PathLike[str]):
    """An encoded image that is in memory already; every reader of this module takes it in a file's place.

    Args:
        data: The file's content.
        name: Stands for the path in messages.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name

    def __fspath__(self) -> str:
        return self.name

    def __str__(self) -> str:
        return self.name


def check_image(path: str | PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Read an image's header only.

    Args:
        path: The image file.
        max_pixels: Larger images are refused.

    Returns:
        Its stored (height, width), before any EXIF rotation.

    Raises:
        DataError: There is no such file, or it is not an image, or it is too large.
    """
    try:
        with open_image(path) as image:
            size = (image.height, image.width)
    except Exception as error:  # Pillow's decoders raise almost anything on broken files
        opened = _open_tiff(path) if isinstance(error, UnidentifiedImageError) else None
        if opened is None:
            raise _unreadable(path, error) from error
        size = opened.size
    _check_size(path, size, max_pixels)
    return size


def read_image(
    path: str | PathLike[str],
    *,
    exif: bool = True,
    channels: int | None = 3,
    at_least: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """Read an image, whatever it is stored as.

    With three channels every image becomes RGB: greyscale is repeated, palettes and CMYK are converted, transparency
    is dropped. Otherwise the channels stay as they are stored (a palette counts as RGB). 16 bits are scaled to 8, and
    of several frames the first is taken, except that a TIFF without channels of its own has its pages for channels
    where a number of channels other than three is asked for.

    Args:
        path: The image file.
        exif: Whether to turn the image the way its EXIF tag says.
        channels: The number of channels; None takes as many as the file has.
        at_least: A (height, width) that is enough, as for a thumbnail: a JPEG is then decoded at a half, a quarter or
            an eighth of its size, the smallest that is not below. The result has other coordinates than the file, and
            the rounding of its sides is the decoder's, so nothing that has boxes or masks may use it.
        max_pixels: Larger images are refused before they are decoded.

    Returns:
        uint8 [C, H, W]; the channels lie last in memory, as decoders write them and as scaling is fastest.

    Raises:
        DataError: There is no such file, or it is not an image, or it is truncated, too large, or has another number
            of channels.
    """
    if channels == 3 and at_least is None:
        fast = _read_fast(path, exif, max_pixels)
        if fast is not None:
            return fast
    try:
        with open_image(path) as image:
            _check_size(path, (image.height, image.width), max_pixels)
            if at_least is not None:
                image.draft(None, (at_least[1], at_least[0]))
            upright = ImageOps.exif_transpose(image) if exif else image
            # Pillow shows only the first page of a TIFF, or three of its bands.
            whole = image.format != "TIFF" or image.mode in ("P", "PA", "1")
            pixels = np.array(_to_rgb(upright, path)) if channels == 3 else _as_stored(upright, path)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on broken files
        opened = _open_tiff(path) if isinstance(error, UnidentifiedImageError) else None
        if opened is None:
            raise _unreadable(path, error) from error
        _check_size(path, opened.size, max_pixels)
        pixels = _read_tiff(path)
    else:
        if channels not in (None, 3) and pixels.shape[2] != channels and not whole:
            pixels = _read_tiff(path)
    if channels is not None and pixels.shape[2] != channels:
        raise DataError.at(
            path, f"it has {pixels.shape[2]} channels, not {channels}", advice=f"set `channels: {pixels.shape[2]}`"
        )
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _read_fast(path: str | PathLike[str], exif: bool, max_pixels: int) -> Tensor | None:
    """Decode a plain JPEG or PNG; None leaves the file, whatever is special or wrong with it, to Pillow."""
    from torchvision.io import ImageReadMode, decode_jpeg, decode_png

    try:
        data = (
            np.frombuffer(bytearray(path.data), dtype=np.uint8)
            if isinstance(path, Encoded)
            else np.fromfile(path, dtype=np.uint8)
        )
    except OSError:
        return None
    header = _jpeg_header(data.data) or _png_header(data.data)
    if header is None:
        return None
    _check_size(path, (header.height, header.width), max_pixels)
    if not header.plain or (exif and header.turned):
        return None
    decode = decode_jpeg if header.jpeg else decode_png
    try:
        image: Tensor = decode(torch.from_numpy(data), ImageReadMode.RGB)
    except RuntimeError:
        return None
    # Older versions give planes.
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)


class _Header(NamedTuple):
    height: int
    width: int
    jpeg: bool
    plain: bool
    turned: bool


def _jpeg_header(data: memoryview) -> _Header | None:
    """Read the segments before the pixels."""
    if bytes(data[:2]) != b"\xff\xd8":
        return None
    position, turned = 2, False
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        length = data[position + 2] << 8 | data[position + 3]
        if marker == 0xE1 and bytes(data[position + 4 : position + 10]) == b"Exif\0\0":
            tags = Image.Exif()
            try:
                tags.load(bytes(data[position + 4 : position + 2 + length]))
                turned = tags.get(_ORIENTATION, 1) != 1
            except Exception:  # whatever is wrong with the tags is for Pillow to handle
                turned = True
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            depth, height, width, components = struct.unpack(">BHHB", data[position + 4 : position + 10])
            return _Header(height, width, True, depth == 8 and components in (1, 3), turned)
        position += 2 + length
    return None


def _png_header(data: memoryview) -> _Header | None:
    """Read the first chunk; palettes, other depths than 8 and transparency count as special."""
    if len(data) < 33 or bytes(data[:8]) != b"\x89PNG\r\n\x1a\n":
        return None
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    raw = bytes(data)
    plain = depth == 8 and kind in (0, 2) and b"tRNS" not in raw
    return _Header(height, width, False, plain, b"eXIf" in raw)


def open_image(path: str | PathLike[str]) -> Image.Image:
    """Open with Pillow, whose own limit of pixels is a warning at 89 million and no option of ours."""
    with _open_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(_content(path))
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _check_size(path: str | PathLike[str], size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise DataError.at(
            path,
            f"the image is {size[1]} x {size[0]}, more than the limit of {max_pixels / 1e6:g} megapixels",
            advice="cut it into tiles",
        )


def _to_rgb(image: Image.Image, path: str | PathLike[str]) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips these modes instead of scaling them.
        image = Image.fromarray(_to_8_bits(np.asarray(image), path))
    elif image.mode == "F":
        raise _no_range(path)
    return image.convert("RGB")


def _as_stored(image: Image.Image, path: str | PathLike[str]) -> NDArray[np.uint8]:
    """Return [H, W, C] with the channels of the file."""
    if image.mode in ("P", "PA"):
        image = image.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    pixels = np.array(image)
    return _to_8_bits(pixels if pixels.ndim == 3 else pixels[..., None], path)


def _to_8_bits(values: NDArray[Any], path: str | PathLike[str]) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "iu":
        raise _no_range(path)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise DataError.at(path, "pixels outside 0 to 65535", advice="convert it to 8 or 16 bits")
    # 65535 / 257 is exactly 255.
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _no_range(path: str | PathLike[str]) -> DataError:
    return DataError.at(path, "floating-point pixels have no known range", advice="convert it to 8 or 16 bits")


def _content(path: str | PathLike[str]) -> str | PathLike[str] | BytesIO:
    """Return what Pillow and tifffile open: the path, or the bytes in memory."""
    return BytesIO(path.data) if isinstance(path, Encoded) else path


def _is_tiff(path: str | PathLike[str]) -> bool:
    if isinstance(path, Encoded):
        return path.data[:4] in _TIFF
    try:
        with open(path, "rb") as file:
            return file.read(4) in _TIFF
    except OSError:
        return False


class _Tiff(NamedTuple):
    size: tuple[int, int]
    axes: str


def _open_tiff(path: str | PathLike[str]) -> _Tiff | None:
    """Return what a TIFF holds that Pillow cannot read; None if it is no TIFF."""
    if not _is_tiff(path):
        return None
    from tifffile import TiffFile

    try:
        with TiffFile(_content(path)) as file:
            series = file.series[0]
            axes = series.axes
            sizes = dict(zip(axes, series.shape, strict=True))
    except Exception as error:  # as Pillow's, its decoders raise almost anything
        raise _unreadable(path, error) from error
    if "Y" not in sizes or "X" not in sizes or len(axes) > 3:
        raise DataError.at(path, f"its axes are {axes}, expected rows, columns and channels")
    return _Tiff((sizes["Y"], sizes["X"]), axes)


def _read_tiff(path: str | PathLike[str]) -> NDArray[np.uint8]:
    opened = _open_tiff(path)
    assert opened is not None
    from tifffile import TiffFile

    try:
        with TiffFile(_content(path)) as file:
            values = file.series[0].asarray()
    except Exception as error:
        raise _unreadable(path, error) from error
    order = [opened.axes.index(axis) for axis in "YX"]
    order += [axis for axis in range(len(opened.axes)) if axis not in order]
    values = values.transpose(order)
    return np.ascontiguousarray(_to_8_bits(values if values.ndim == 3 else values[..., None], path))


def _unreadable(path: str | PathLike[str], error: BaseException) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError.at(path, "there is no such image file")
    if Path(path).is_dir():
        return DataError.at(path, "this is a folder, not an image")
    if isinstance(error, UnidentifiedImageError):
        return DataError.at(path, "this is not an image file")
    reason = " ".join(str(error).split())
    return DataError.at(path, f"the image cannot be read ({reason})", advice="replace or remove it")
