"""What the operating system refuses, said as the command line says everything: the path first, then what is wrong."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ocrnet_pl.storage.unfinished import final_path

_RIGHTS = (errno.EACCES, errno.EPERM, errno.EROFS)


def error_line(error: BaseException) -> str:
    """Return what an error says, on one line; the name of its class if it says nothing.

    Args:
        error: Any error; of one of the system, :func:`system_text` gives the words.
    """
    text = system_text(error) if isinstance(error, OSError) else str(error)
    return " ".join(line.strip() for line in text.splitlines() if line.strip()) or type(error).__name__


def system_text(error: OSError) -> str:
    """Return a line for an error, which names the path that was meant, and what to do.

    Args:
        error: The error; one without a path, or that is not of the system, keeps its text.
    """
    if error.errno is None or not isinstance(error.filename, str | bytes | os.PathLike):
        return str(error)
    path = final_path(Path(os.fsdecode(error.filename)))
    reason = (error.strerror or str(error)).lower()
    advice = "check the path"
    if error.errno in (errno.EEXIST, errno.ENOTDIR) and not path.is_dir():
        reason, advice = "a file stands where a folder is needed", "name another place"
    elif error.errno == errno.EISDIR:
        reason, advice = "it is a folder", "name a file"
    elif error.errno in _RIGHTS:
        advice = "change its rights, or name another place"
    return f"{path}: {reason}; {advice}"
