"""Pictures as files, which appear when they are complete."""

from __future__ import annotations

import io
import os
import threading
from os import PathLike
from pathlib import Path

from PIL import Image


def picture_format(path: str | PathLike[str]) -> str:
    """Return Pillow's name of the format that a file's ending stands for.

    Raises:
        ValueError: No pictures are written with such an ending.
    """
    suffix = Path(path).suffix.lower()
    Image.init()
    kind = Image.registered_extensions().get(suffix, "")
    try:
        # Some formats have a name to write them by, but nothing that does, or no colors.
        Image.new("RGB", (1, 1)).save(io.BytesIO(), format=kind)
    except (KeyError, OSError, ValueError) as error:
        advice = "use .png or .jpg"
        raise ValueError(f"{path}: no pictures are written with the ending {suffix!r}; {advice}") from error
    return kind


def write_picture(picture: Image.Image, path: str | PathLike[str], kind: str) -> None:
    """Write a picture; a file that is there already is replaced when the new one is complete.

    Args:
        picture: The picture, in RGB.
        path: Path of the file; folders above it are made.
        kind: Its format, from :func:`picture_format`.

    Raises:
        OSError: The disk refuses it.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    unfinished = final.with_name(f".{os.getpid()}-{threading.get_ident()}.part")
    try:
        picture.save(unfinished, format=kind)
        unfinished.replace(final)
    finally:
        unfinished.unlink(missing_ok=True)
