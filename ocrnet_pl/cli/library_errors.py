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
    for frame in _of_encoders(_frames(error)):
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
    if _raised_in(error).startswith("lightning."):
        return _text(error)
    return None


def cause(error: BaseException) -> BaseException:
    """Return what went wrong in building a part, without what the parser says around it.

    Args:
        error: The parser's error, whose cause may be the error of a part.
    """
    if error.__cause__ is None or not _raised_in(error).startswith("jsonargparse"):
        return error
    # Of a union it has tried each member, and names the error of the first as its cause.
    tried: list[BaseException] = next(
        (f.f_locals["exceptions"] for f in _frames(error)[::-1] if "exceptions" in f.f_locals), []
    )
    causes = [cause(each) for each in [error.__cause__, *tried]]
    return next((each for each in causes if not _raised_in(each).startswith("jsonargparse")), causes[0])


def _frames(error: BaseException) -> list[FrameType]:
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)]


def _raised_in(error: BaseException) -> str:
    """Return the module in which an error was raised."""
    frames = _frames(error)
    return str(frames[-1].f_globals.get("__name__", "")) if frames else ""


def _of_encoders(frames: list[FrameType]) -> Iterator[FrameType]:
    for frame in frames:
        if frame.f_code.co_name == "forward" and isinstance(frame.f_locals.get("self"), Encoder):
            yield frame


def _text(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
