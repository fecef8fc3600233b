"""Messages that only the first process prints."""

from __future__ import annotations

import logging
import sys

from lightning.pytorch.utilities.rank_zero import rank_zero_only

_log = logging.getLogger(__name__)


@rank_zero_only
def tell(line: str) -> None:
    """Print one line on the first process, every time.

    Python's warnings show a repeated line only once.

    Args:
        line: The message.
    """
    _log.warning("%s", line)


@rank_zero_only
def say(line: str) -> None:
    """Write one line to the standard error of the first process, whatever the level of logging.

    Args:
        line: The message.
    """
    sys.stderr.write(f"{line}\n")
