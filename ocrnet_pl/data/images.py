"""Reading image files of any common kind as 8-bit RGB."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ocrnet_pl.data.errors import DataError


def check_image(path: str | PathLike[str]) -> tuple[int, int]:
    """Read an image's header only.

    Args:
        path: The image file.

    Returns:
        Its stored (height, width), before any EXIF rotation.

    Raises:
        DataError: There is no such file, or it is not an image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception as error:  # Pillow's decoders raise almost anything on broken files
        raise _unreadable(path, error) from error


def read_image(path: str | PathLike[str], *, exif: bool = True) -> Tensor:
    """Read an image as RGB, whatever it is stored as.

    Greyscale is repeated over the channels, palettes and CMYK are converted, 16-bit greyscale is scaled to 8 bits,
    transparency is dropped, and of several frames the first is taken.

    Args:
        path: The image file.
        exif: Whether to turn the image the way its EXIF tag says.

    Returns:
        uint8 [3, H, W].

    Raises:
        DataError: There is no such file, or it is not an image, or it is truncated.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image) if exif else image
            pixels = np.array(_to_rgb(upright, path))
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on broken files
        raise _unreadable(path, error) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _to_rgb(image: Image.Image, path: str | PathLike[str]) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips these modes instead of scaling them. 65535 / 257 is exactly 255.
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise DataError.at(path, "32-bit pixels outside 0 to 65535", advice="convert it to 8 or 16 bits")
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise DataError.at(path, "floating-point pixels have no known range", advice="convert it to 8 or 16 bits")
    return image.convert("RGB")


def _unreadable(path: str | PathLike[str], error: BaseException) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError.at(path, "there is no such image file")
    if Path(path).is_dir():
        return DataError.at(path, "this is a folder, not an image")
    if isinstance(error, UnidentifiedImageError):
        return DataError.at(path, "this is not an image file")
    return DataError.at(path, f"the image cannot be read ({error})", advice="replace or remove it")
