"""Names of files that are being written, by which the next process recognises what a dead one has left behind.

Several machines may share a folder, and several containers of one machine may have processes of equal number. So the
name contains the machine, its boot, the name space of its processes, and the process.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

_PATTERN = re.compile(r"\.(?P<final>.+)\.([0-9a-f]{6})-([0-9a-f]{6})-([0-9a-f]{6})-(\d+)\.part")
_LONGEST = 255
"""Largest number of bytes of a file's name."""


def unfinished_path(final: Path) -> Path:
    """Return the path to which this process writes a file until it is complete.

    Args:
        final: Final path of the file; the other one is in the same folder.
    """
    end = f".{'-'.join(_place())}-{os.getpid()}.part"
    name = os.fsencode(final.name)[: _LONGEST - len(end) - 1]
    return final.with_name(f".{os.fsdecode(name)}{end}")


def final_path(path: Path) -> Path:
    """Return the path that a file is going to have, whose unfinished path may be given."""
    match = _PATTERN.fullmatch(path.name)
    return path if match is None else path.with_name(match["final"])


def remove_abandoned(folder: Path) -> None:
    """Remove what processes of this machine were writing into a folder when they died.

    Files of another machine, of another container of this machine, or of a process that is alive are kept.

    Args:
        folder: Folder to search, without the folders inside it; it need not exist.
    """
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError), os.scandir(folder) as entries:
        for entry in entries:
            match = _PATTERN.fullmatch(entry.name)
            if match is None or not _is_dead(match[2], match[3], match[4], int(match[5])):
                continue
            # Another process may remove it at the same time, and other users' files cannot be removed.
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)


def _is_dead(machine: str, boot: str, space: str, process: int) -> bool:
    own_machine, own_boot, own_space = _place()
    if machine != own_machine:
        return False
    if boot != own_boot:
        return True
    if space != own_space:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


@cache
def _place() -> tuple[str, str, str]:
    """Return this machine, its boot and this process's name space, six digits each."""
    machine = _read("/etc/machine-id") + socket.gethostname()
    boot = _read("/proc/sys/kernel/random/boot_id")
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return _digits(machine), _digits(boot), _digits(space)


def _read(path: str) -> str:
    """Return a file's content, or an empty text where the system has no such file."""
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _digits(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=3).hexdigest()
