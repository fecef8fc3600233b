"""How a network's parts were made, for the files from which it is built again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ocrnet_pl.storage.recording import NotRecordedError, record_of


class Parts(NamedTuple):
    """The records of parts, in the form of a config.

    Attributes:
        made: The class path and arguments of each part that could be recorded, by name; None for one that is absent.
        unrecorded: Why the others could not, by name.
    """

    made: dict[str, Any]
    unrecorded: dict[str, str]

    @classmethod
    def of(cls, **parts: tuple[Any, Sequence[Any]]) -> Parts:
        """Return how parts were made.

        Args:
            parts: Each part, or None, and the arguments that its factory was called with, by name.
        """
        found = cls({}, {})
        for name, (part, passed) in parts.items():
            try:
                found.made[name] = None if part is None else record_of(part, passed)
            except NotRecordedError as error:
                found.unrecorded[name] = str(error)
        return found
