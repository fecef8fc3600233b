"""Run folders that belong to one run each, even if several runs start at the same moment."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ocrnet_pl.errors import UsageError

_LONGEST = 255


def check_folder_name(option: str, name: str | None) -> None:
    """Raise an error for a name that would lead out of the folder of all runs, or that no folder can have.

    Args:
        option: The option that it comes from.
        name: One name, or several below each other, separated by slashes.

    Raises:
        UsageError: It is such a name.
    """
    text, parts = name or "", (name or "").split("/")
    if not text or os.path.isabs(text) or ".." in parts or not text.isprintable():
        raise UsageError(f"{option}: expected the name of a folder below trainer.default_root_dir, got {name!r}")
    if max(len(os.fsencode(part)) for part in parts) > _LONGEST:
        raise UsageError(f"{option}: a folder's name has at most {_LONGEST} bytes, {name!r:.40}... has more")


def refuse_taken(folder: Path, advice: str = "give another --version") -> None:
    """Raise an error for a run folder that exists.

    Args:
        folder: The folder.
        advice: What to do about it.

    Raises:
        FileExistsError: It exists.
    """
    if os.path.lexists(folder):
        what = "already contains a run" if (folder / "config.yaml").exists() else "already exists"
        raise FileExistsError(f"run folder {str(folder)!r}: it {what}; {advice}")


def claim_folder(parent: Path, version: str | None = None) -> Path:
    """Make a new folder; if several processes ask for it at the same time, only one gets it.

    Args:
        parent: Folder of all runs with one name; created if necessary.
        version: Name of the folder; None for the next free one of ``version_0``, ``version_1``, ...

    Returns:
        Path of the folder, which is empty.

    Raises:
        FileExistsError: The version is taken.
        OSError: The folder cannot be made.
    """
    number = _next_number(parent) if version is None else 0
    while True:
        folder = parent / (f"version_{number}" if version is None else version)
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            # The file system lets exactly one process make it.
            folder.mkdir()
        except FileExistsError:
            if version is not None:
                # If it is gone again, its start has failed, and the name is free.
                refuse_taken(folder)
            number += 1
        else:
            return folder


_held: set[int] = set()
"""Descriptors of the folders that this process holds, or waits for."""


def _leave_to_parent() -> None:
    """Close what a loading process inherits: it may outlive a process that was killed, and would go on holding it."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_leave_to_parent)


@contextmanager
def held_folder(folder: Path, seconds: float = 10.0) -> Iterator[None]:
    """Keep other processes from holding a folder meanwhile, where the file system can tell.

    Args:
        folder: The folder, which exists.
        seconds: How long to wait for another process that holds it, such as what is left of one that was killed.

    Raises:
        FileExistsError: Another process holds it.
    """
    opened = os.open(folder, os.O_RDONLY)
    _held.add(opened)
    deadline = time.monotonic() + seconds
    try:
        while not _taken(opened):
            if time.monotonic() > deadline:
                raise FileExistsError(f"run folder {str(folder)!r}: another process writes into it; wait for it")
            time.sleep(0.2)
        yield
    finally:
        if opened in _held:
            _held.remove(opened)
            os.close(opened)


def _taken(opened: int) -> bool:
    """Return whether no other process holds an open folder, which this one holds from now on."""
    # Some network file systems cannot tell.
    with suppress(OSError):
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def release_folder(folder: Path) -> None:
    """Remove a claimed folder, unless something was written into it."""
    with suppress(OSError):
        folder.rmdir()


def _next_number(parent: Path) -> int:
    numbers = [path.name.removeprefix("version_") for path in parent.glob("version_*")]
    return max((int(number) for number in numbers if number.isdecimal()), default=-1) + 1
