"""What the callbacks have in common."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

_log = logging.getLogger(__name__)
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def run_folder(trainer: Trainer) -> Path | None:
    """Return the run's folder, or None in a trial run, which writes nothing.

    To be called on all processes, which agree on the main process's folder.
    """
    if getattr(trainer, "fast_dev_run", False):
        return None
    folder = trainer.log_dir
    return None if folder is None else Path(folder)


@contextmanager
def records(what: str) -> Iterator[None]:
    """Let a run continue whose disk refuses what is written here, with one line each time that it does.

    Args:
        what: Is written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        where = f": {error.filename}" if error.filename else ""
        tell(f"{what} could not be written ({error.strerror}{where}); the run continues")


@rank_zero_only
def tell(line: str) -> None:
    """Say something every time that it happens, in one line, on the first process.

    Python's warnings say it once.

    Args:
        line: What there is to say.
    """
    _log.warning("%s", line)
