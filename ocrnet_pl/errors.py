"""The errors that the command line reports in one line."""

from __future__ import annotations

import errno
from os import PathLike

DEBUG_VARIABLE = "OCRNET_PL_DEBUG"
"""Set to 1, this environment variable shows the traceback behind a one-line error."""


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line, or the name of its class if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


class DataError(ValueError):
    """A data set, an annotation file or an image that cannot be used as it is.

    It takes a single message, so that it is passed unchanged from a DataLoader worker to the main process.
    """

    @classmethod
    def at(cls, path: str | PathLike[str], problem: str, *, field: str = "", advice: str = "") -> DataError:
        """Return an error that names the place.

        Args:
            path: Path of the file or folder.
            problem: What is wrong.
            field: Position inside the file, such as ``annotations[3].bbox``.
            advice: What to do about it.
        """
        where = f"{path}: {_readable(field, 200)}" if field else f"{path}"
        text = f"{where}: {_readable(problem, 1000)}" + (f"; {advice}" if advice else "")
        return cls(_readable(text, len(text)))


def advice_on(error: BaseException, otherwise: str) -> str:
    """Return what to do about a file or folder that cannot be read.

    Args:
        error: The reason why it cannot; where rights are missing, it is these that have to change.
        otherwise: The advice for all other reasons.
    """
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
        return "change its rights"
    return otherwise


def _readable(text: str, most: int) -> str:
    """Return text that fits on a line of a terminal: unprintable characters are escaped, and the end is cut off.

    Args:
        text: The text, possibly from a malicious file.
        most: Largest number of characters.
    """
    if len(text) > most:
        text = f"{text[:most]}..."
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "backslashreplace").decode() for sign in text
    )


class StoreError(DataError):
    """A fault of the place from which many images are read, such as a damaged shard or a lost network.

    No single image is at fault, so it also ends a run that leaves out images that cannot be read.
    """


class CheckpointError(ValueError):
    """A file is not a checkpoint, or is no longer whole."""


class ModelFileError(ValueError):
    """An exported file that is damaged, or that was not written by this project."""


class WeightsError(ValueError):
    """Encoder weights that cannot be loaded as requested."""


class LossError(ValueError):
    """The training loss has been NaN or infinite too often."""


class RunError(RuntimeError):
    """A run that did not finish."""


class CommandError(ValueError):
    """A file of the package's own folder of subcommands is not one."""


class UsageError(ValueError):
    """The command line or a config asks for what cannot be."""
