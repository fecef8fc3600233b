"""What the first process says for all of them."""

from __future__ import annotations

import logging

from lightning.pytorch.utilities.rank_zero import rank_zero_only

_log = logging.getLogger(__name__)


@rank_zero_only
def tell(line: str) -> None:
    """Say something every time that it happens, in one line, on the first process.

    Python's warnings say it once.

    Args:
        line: What there is to say.
    """
    _log.warning("%s", line)
