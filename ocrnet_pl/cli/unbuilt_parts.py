"""Parts of the config that a command builds itself, because the network is not built from the config."""

from __future__ import annotations

from typing import Any


def made(kind: Any, options: Any) -> Any:
    """Return the object that a part of the config describes; None for null.

    Args:
        kind: Its class.
        options: The part of the config.
    """
    return None if options is None else kind(**vars(options))
