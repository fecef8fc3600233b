"""Opening files of any origin: only ordinary files, of a plausible size, and text in UTF-8."""

from __future__ import annotations

import codecs
import difflib
import os
import stat
from os import PathLike
from typing import BinaryIO

from ocrnet_pl.errors import DataError, advice_on

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

_MOST_COMPARED = 20_000
"""Largest number of names among which the nearest one is looked for, which takes about a second."""

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
        mode = os.stat(path).st_mode
        ordinary = stat.S_ISREG(mode)
        file = open(path, "rb", opener=_without_waiting) if ordinary else None  # noqa: SIM115 - handed on
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.path.islink(path):
            raise DataError.at(path, f"there is no such {what}, only a link to it", advice="mend the link") from error
        nearest = nearest_name(path)
        advice = "check the path" if nearest is None else f"the nearest is {nearest!r:.200}"
        raise DataError.at(path, f"there is no such {what}", advice=advice) from error
    except OSError as error:
        raise DataError.at(
            path, f"the {what} cannot be read ({error.strerror})", advice=advice_on(error, "check the path")
        ) from error
    except ValueError as error:  # no file has a NUL in its name
        raise DataError.at(path, f"the {what} cannot be read ({error})", advice="check the path") from error
    if file is not None:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISREG(mode):
            return file
        file.close()
    kind = next((words for holds, words in _KINDS if holds(mode)), "something else")
    raise DataError.at(path, f"the {what} cannot be read (it is {kind}, not a file)", advice="check the path")


def nearest_name(path: str | PathLike[str]) -> str | None:
    """Return the name in the same folder that is most like that of a path; None if none is, or there is no folder.

    Args:
        path: Path of what does not exist.
    """
    folder, name = os.path.split(os.path.normpath(path))
    try:
        names = os.listdir(folder or os.curdir)
    except (OSError, ValueError):
        return None
    close = difflib.get_close_matches(name, names, 1, 0.85) if len(names) <= _MOST_COMPARED else []
    return close[0] if close else None


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; should a pipe have taken its place meanwhile, opening it does not wait for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


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
    """Read an ordinary file of text in UTF-8, or in UTF-16 with a byte order mark; the mark is dropped.

    Args:
        path: Path of the file.
        what: What the file contains, for messages.
        most: Largest number of bytes; None for no limit.

    Raises:
        DataError: :func:`read_bytes` raises it, or the file is not text in UTF-8.
    """
    return text_of(read_bytes(path, what, most), path)


def encoding_of(data: bytes) -> str:
    """Return the encoding of a text by its first bytes: UTF-16 if it has that mark, or UTF-8 without one."""
    return "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def text_of(data: bytes, path: str | PathLike[str]) -> str:
    """Return the text of a file as :func:`read_text` does.

    Args:
        data: The file's bytes.
        path: Path for error messages.

    Raises:
        DataError: It is not text in UTF-8.
    """
    problem = "it has a NUL character"
    try:
        text = data.decode(encoding_of(data))
        if "\0" not in text:
            return text
    except UnicodeDecodeError as error:
        problem = f"{error.reason} at byte {error.start}"
    raise DataError.at(path, f"this is not a text file in UTF-8 ({problem})", advice="save or export it as UTF-8")
