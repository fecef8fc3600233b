"""The encoder's own weights, which are neither looked for nor fetched where those of a checkpoint take their place."""

from __future__ import annotations

from typing import Any

from jsonargparse import Namespace

_OPTION = "weights"


class ReplacedWeights:
    """The options ``weights`` of an encoder and of those inside it, which are null until they are put back.

    Args:
        encoder: Config of the encoder; changed.
    """

    def __init__(self, encoder: Namespace) -> None:
        self._found: list[tuple[Any, Any]] = []
        self._take(encoder)

    def __bool__(self) -> bool:
        """Return whether any option was replaced by null."""
        return bool(self._found)

    def put_back(self) -> None:
        """Let the config say again what was given, for the records of the run."""
        for arguments, weights in self._found:
            arguments[_OPTION] = weights

    def _take(self, part: Any) -> None:
        if isinstance(part, list):
            for item in part:
                self._take(item)
        elif isinstance(part, Namespace | dict):
            arguments = part.get("init_args")
            if isinstance(arguments, Namespace | dict) and arguments.get(_OPTION) is not None:
                self._found.append((arguments, arguments[_OPTION]))
                arguments[_OPTION] = None
            for item in (part if isinstance(part, dict) else vars(part)).values():
                self._take(item)
