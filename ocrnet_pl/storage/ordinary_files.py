"""Opening annotation files: only ordinary files, of a plausible size, and text in UTF-8."""

from __future__ import annotations

import os
import stat
from os import PathLike
from typing import BinaryIO

from ocrnet_pl.errors import DataError

PER_IMAGE = 16 << 20
"""Largest number of bytes of a file with the labels of one image: no image has more objects than fit."""


def open_file(path: str | PathLike[str], what: str = "file") -> BinaryIO:
    """Open an ordinary file to read its bytes.

    Anything else that has a name (a pipe, a socket, a device) may block its reader or never end, so it is refused.

    Args:
        path: Path of the file.
        what: What the file contains, for messages, such as ``list``.

    Raises:
        DataError: There is no such file, it cannot be read, or it is not an ordinary one.
    """
    try:
        # First without opening it, since opening some devices has effects.
        ordinary = stat.S_ISREG(os.stat(path).st_mode)
        # If a pipe takes its place in between, opening it does not block.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)) if ordinary else -1
    except OSError as error:
        raise DataError.at(path, f"the {what} cannot be read ({error.strerror})", advice="check the path") from error
    except ValueError as error:  # no file has a NUL in its name
        raise DataError.at(path, f"the {what} cannot be read ({error})", advice="check the path") from error
    if ordinary:
        file = os.fdopen(descriptor, "rb")
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return file
        file.close()
    kind = "a folder" if os.path.isdir(path) else "a pipe, a socket or a device"
    raise DataError.at(path, f"the {what} cannot be read (it is {kind}, not a file)", advice="check the path")


def read_bytes(path: str | PathLike[str], what: str = "file", most: int | None = None) -> bytes:
    """Read an ordinary file.

    Args:
        path: Path of the file.
        what: What the file contains, for messages.
        most: Largest number of bytes; None for no limit.

    Raises:
        DataError: :func:`open_file` raises it, or the file is larger.
    """
    with open_file(path, what) as file:
        try:
            data = file.read() if most is None else file.read(most + 1)
        except OSError as error:
            raise DataError.at(path, f"the {what} cannot be read ({error.strerror})") from error
    if most is not None and len(data) > most:
        raise DataError.at(path, f"the {what} has more than {most >> 20} MiB", advice="check that it is the right file")
    return data


def read_text(path: str | PathLike[str], what: str = "file", most: int | None = None) -> str:
    """Read an ordinary file of text in UTF-8; a byte order mark at its beginning is dropped.

    Args:
        path: Path of the file.
        what: What the file contains, for messages.
        most: Largest number of bytes; None for no limit.

    Raises:
        DataError: :func:`read_bytes` raises it, or the file is not text in UTF-8.
    """
    data = read_bytes(path, what, most)
    problem = "it has a NUL character"
    try:
        text = data.decode("utf-8-sig")
        if "\0" not in text:
            return text
    except UnicodeDecodeError as error:
        problem = f"{error.reason} at byte {error.start}"
    raise DataError.at(path, f"this is not a text file in UTF-8 ({problem})", advice="save or export it as UTF-8")
