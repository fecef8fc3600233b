"""Images passed by Python code: paths and tensors, and a one-line error for anything else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike

import torch
from torch import Tensor

from ocrnet_pl.errors import DataError


def require_image(image: object, channels: int, name: str = "the image") -> Tensor:
    """Check that a tensor is a valid image.

    Args:
        image: The tensor, which must be uint8 [C, H, W].
        channels: Required number of channels C.
        name: Name of the image for messages.

    Returns:
        The image itself.

    Raises:
        DataError: It is anything else. Floating-point values are refused because 0 to 1 cannot be told apart from 0 to
            255 with certainty.
    """
    if not isinstance(image, Tensor):
        kind = f"{type(image).__module__}.{type(image).__qualname__}".removeprefix("builtins.")
        advice = "convert an array [H, W, C] with torch.from_numpy(np.asarray(image)).permute(2, 0, 1)"
        raise DataError(f"{name}: expected a path or a uint8 tensor [C, H, W], found {kind}; {advice}")
    shape = list(image.shape)
    if image.dtype != torch.uint8:
        advice = "convert it with image.to(torch.uint8)"
        if image.is_floating_point():
            advice = "convert values from 0 to 1 with (image * 255).round().to(torch.uint8), those from 0 to 255 with "
            advice += "image.round().to(torch.uint8)"
        kind = str(image.dtype).removeprefix("torch.")
        raise DataError(f"{name}: expected a uint8 tensor with values from 0 to 255, found {kind}; {advice}")
    if image.ndim != 3:
        ways = {4: "give a batch as a list(images)", 2: "add a dimension for the channels with image[None]"}
        more = f"; {ways[image.ndim]}" if image.ndim in ways else ""
        raise DataError(f"{name}: expected a tensor [C, H, W], found the shape {shape}{more}")
    if not image.numel():
        raise DataError(f"{name}: the shape {shape} has no pixels")
    if len(image) != channels:
        last = shape[2] == channels
        advice = "put the channels first with image.permute(2, 0, 1)" if last else "the network takes only that number"
        raise DataError(f"{name}: expected {channels} channels, found the shape {shape}; {advice}")
    return image


def ids_of(paths: Sequence[str | PathLike[str]]) -> list[str]:
    """Return an id for each of several image files: its path below the folder that holds them all.

    Args:
        paths: Paths of image files.

    Returns:
        The ids, as the predict command gives them: for a single file its name; the parts of a path are joined by
        slashes.
    """
    whole = [os.path.abspath(path) for path in paths]
    try:
        root = os.path.commonpath([os.path.dirname(path) for path in whole]) if whole else ""
        return [os.path.relpath(path, root).replace(os.sep, "/") for path in whole]
    except ValueError:  # on several drives
        return [path.replace(os.sep, "/") for path in whole]
