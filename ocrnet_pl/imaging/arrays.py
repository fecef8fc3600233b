"""Images in memory: arrays, tensors and Pillow's, turned into uint8 [C, H, W] without guessing what they mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.images import from_pillow

Color = Literal["rgb", "bgr"]
"""The order of the channels of an array or a tensor."""


@dataclass(frozen=True)
class PixelFormat:
    """What the numbers of images in memory mean, and what a network takes.

    Attributes:
        channels: Number of channels that the network takes.
        color: Order of the channels of arrays and tensors; Pillow's images know their own.
        max_value: The value of white in images of floating-point numbers, such as 1.0; None refuses these.

    Raises:
        ValueError: An option is out of range.
    """

    channels: int = 3
    color: Color = "rgb"
    max_value: float | None = None

    def __post_init__(self) -> None:
        if self.color not in ("rgb", "bgr"):
            raise ValueError(f"color: expected 'rgb' or 'bgr', got {self.color!r}")
        if self.color == "bgr" and self.channels != 3:
            raise ValueError(f"color: 'bgr' has three channels, the network takes {self.channels}")
        if self.max_value is not None and not (math.isfinite(self.max_value) and self.max_value > 0):
            raise ValueError(f"max_value: expected the value of white, above 0, got {self.max_value}")

    def check(self, image: object, name: str) -> None:
        """Raise an error for what :meth:`read` would refuse whatever its values are.

        Args:
            image: What was given as an image.
            name: Name of the image for messages.

        Raises:
            DataError: It is no image, or of another type or shape.
        """
        if isinstance(image, Image.Image):
            return
        if isinstance(image, Tensor):
            if image.is_meta or image.layout != torch.strided:
                what = "has no values" if image.is_meta else "is sparse"
                raise DataError(f"{name}: the tensor {what}; give one that holds all its values")
            self._check_type(str(image.dtype).removeprefix("torch."), image.is_floating_point(), "torch.uint8", name)
            self._check_shape(tuple(image.shape), name, channels_at=0)
        elif isinstance(image, np.ndarray):
            self._check_type(str(image.dtype), image.dtype.kind == "f", "np.uint8", name)
            self._check_shape(image.shape, name, channels_at=2)
        else:
            kind = f"{type(image).__module__}.{type(image).__qualname__}".removeprefix("builtins.")
            raise DataError(
                f"{name}: expected a path, a folder, a pattern, an address, an image of Pillow, an array [H, W, C] "
                f"or a tensor [C, H, W], found {kind}"
            )

    def read(self, image: object, name: str) -> Tensor:
        """Return an image as uint8 [C, H, W] on the CPU, its channels in the order red, green, blue.

        Args:
            image: An image of Pillow, an array [H, W] or [H, W, C], or a tensor [C, H, W].
            name: Name of the image for messages.

        Raises:
            DataError: It is anything else, or its values are out of range.
        """
        self.check(image, name)
        if isinstance(image, Image.Image):
            return from_pillow(image, name, self.channels)
        if isinstance(image, np.ndarray):
            # Some arrays, such as mirrored views, have strides that tensors lack.
            native = np.ascontiguousarray(image, image.dtype.newbyteorder("="))
            # A tensor can always be written to.
            pixels = torch.from_numpy(native if native.flags.writeable else native.copy())
            pixels = pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
            pixels = pixels.expand(self.channels, -1, -1)
        else:
            assert isinstance(image, Tensor)
            pixels = image.detach().as_subclass(Tensor).cpu()
        if pixels.is_floating_point():
            pixels = self._of_float(pixels, name)
        return pixels.flip(0) if self.color == "bgr" else pixels

    def _of_float(self, pixels: Tensor, name: str) -> Tensor:
        assert self.max_value is not None
        pixels = pixels.float()
        if pixels.isnan().any():
            raise DataError(f"{name}: some of its values are not numbers (NaN); replace them")
        low, high = pixels.aminmax()
        if not (low >= 0 and high <= self.max_value):
            raise DataError(
                f"{name}: expected values from 0 to max_value, {self.max_value:g}, found {low:g} to {high:g}; clamp "
                "them, or give another max_value"
            )
        return (pixels * (255 / self.max_value)).round().to(torch.uint8)

    def _check_type(self, kind: str, is_float: bool, wanted: str, name: str) -> None:
        if kind == "uint8" or (is_float and self.max_value is not None):
            return
        advice = f"scale its values to 0 to 255 and convert it to {wanted}"
        if is_float:
            advice = "say which value is white, with max_value=1.0 or max_value=255.0"
        raise DataError(f"{name}: expected uint8 with values from 0 to 255, found {kind}; {advice}")

    def _check_shape(self, shape: tuple[int, ...], name: str, channels_at: int) -> None:
        wanted = "a tensor [C, H, W]" if channels_at == 0 else "an array [H, W, C] or [H, W]"
        text = f"the shape {list(shape)}"
        if len(shape) != 3 and not (len(shape) == 2 and channels_at == 2):
            advice = "; add a dimension for the channels with image[None]" if len(shape) == 2 else ""
            raise DataError(f"{name}: expected {wanted}, found {text}{advice}")
        if not math.prod(shape):
            raise DataError(f"{name}: {text} has no pixels")
        # Grey is repeated, as it is for files.
        if channels_at == 2 and (len(shape) == 2 or shape[2] == 1) and self.channels in (1, 3):
            return
        if len(shape) == 2 or shape[channels_at] != self.channels:
            raise DataError(
                f"{name}: expected {self.channels} channels, found {text}; {self._advice(shape, channels_at)}"
            )

    def _advice(self, shape: tuple[int, ...], channels_at: int) -> str:
        if len(shape) == 3:
            if shape[2 - channels_at] == self.channels:
                where, how = ("first", "(2, 0, 1)") if channels_at == 0 else ("last", "(1, 2, 0)")
                method: Any = "permute" if channels_at == 0 else "transpose"
                return f"put the channels {where} with image.{method}{how}"
            if self.channels == 3 and shape[channels_at] == 4:
                return f"leave out the transparency with image[{':3' if channels_at == 0 else '..., :3'}]"
        return "the network takes only that number"
