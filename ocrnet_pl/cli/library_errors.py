"""Errors that libraries raise although the config is wrong, in one line."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from types import FrameType

from torch import Tensor

from ocrnet_pl.models.base import Encoder


def mistake(error: BaseException) -> str | None:
    """Return one line for an error behind which stands a mistake in the config, or None for any other.

    Such are those that Lightning raises itself, about what it was told to do, and those of an encoder about the size of
    its images. Errors of torch and of the code of this project and of users are not: they need their traceback.

    Args:
        error: The error that ended a run.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in _of_encoders(frames):
        images = frame.f_locals.get("images")
        about_sizes = isinstance(error, AssertionError | ValueError) or re.search(r"size|shape|dimension", str(error))
        if about_sizes and isinstance(images, Tensor):
            encoder = frame.f_locals["self"]
            name = getattr(encoder, "name", type(encoder).__name__)
            height, width = images.shape[-2:]
            return (
                f"model.encoder: {name} does not take images of {height} x {width} ({_text(error)}); set data.size and "
                "data.scales to what it takes, or choose another encoder"
            )
    if frames and str(frames[-1].f_globals.get("__name__", "")).startswith("lightning."):
        return _text(error)
    return None


def _of_encoders(frames: list[FrameType]) -> Iterator[FrameType]:
    for frame in frames:
        if frame.f_code.co_name == "forward" and isinstance(frame.f_locals.get("self"), Encoder):
            yield frame


def _text(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
