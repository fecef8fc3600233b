"""Files that are complete or do not exist."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ocrnet_pl.distributed.first_process import tell
from ocrnet_pl.storage.unfinished import remove_abandoned, unfinished_path

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk that has no room left."""
_REFUSALS = (*FULL, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
_seen: set[Path] = set()
"""Folders that this process has written to."""


@contextmanager
def complete_file(path: str | os.PathLike[str], durable: bool = False) -> Iterator[Path]:
    """Yield a path to write to, which is renamed to its final name at the end, unless an error was raised.

    Unfinished files that a killed process left in the folder are removed first.

    Args:
        path: The final path; its folder is created if necessary.
        durable: Whether to wait until both content and name are on the disk, not only in its cache.

    Yields:
        The path to write to, in the same folder.

    Raises:
        OSError: The disk refuses it; the error names the final path.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.parent not in _seen:
        # Once is enough, and a folder of many files takes long to read.
        _seen.add(final.parent)
        remove_abandoned(final.parent)
    unfinished = unfinished_path(final)
    try:
        yield unfinished
        if durable:
            _flush(unfinished)
        unfinished.replace(final)
        if durable:
            _flush(final.parent)
    except OSError as error:
        # Of a write that fails, the system names no file, and nobody knows the other name.
        if error.filename == str(unfinished) or (error.filename is None and error.errno in _REFUSALS):
            error.filename = str(final)
        raise
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def complete_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a folder to write to, which is renamed to its final name at the end, unless an error was raised.

    Args:
        path: The final path, of no folder or an empty one; the folder above it is created if necessary.

    Yields:
        The path of an empty folder, in the same folder.

    Raises:
        OSError: The disk refuses it; for one that is full, the error names the final path.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(final.parent)
    unfinished = unfinished_path(final)
    try:
        unfinished.mkdir()
        yield unfinished
        if final.exists():
            final.rmdir()
        unfinished.rename(final)
    except OSError as error:
        # Of a copy, the system names the original.
        if error.errno in FULL:
            error.filename = str(final)
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Return whether two paths lead to one file, which is there."""
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def require_writable(folder: Path) -> None:
    """Check, before long work, that files can be written into a folder, which is made when they are.

    Raises:
        OSError: It or the nearest folder above it that exists is none, or there is no right to write to it.
    """
    place = folder
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(place))
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))


def _flush(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write JSON that every parser reads: numbers that are not finite become null."""
    with complete_file(path) as temporary:
        temporary.write_text(json.dumps(_finite(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value


@contextmanager
def records(what: str) -> Iterator[None]:
    """Let a run continue if the disk refuses what is written here, with one line each time.

    Args:
        what: What is written, for the message.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        where = f": {error.filename}" if error.filename else ""
        tell(f"{what} could not be written ({error.strerror}{where}); the run continues")
