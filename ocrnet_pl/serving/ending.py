"""How the processes of a server end together: when the requests that run are answered."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType

ENDINGS = (signal.SIGTERM, signal.SIGINT)
"""The signals that end a server."""


class Ending:
    """Says whether the process that answers is done, to processes that have nothing else in common.

    A service manager terminates all processes of a server at once, and a terminal interrupts them. Those that predict,
    and that carry the results, must outlive the one that answers, or it would wait for them without end.

    Args:
        marker: Path of a file that is there when it is done.
    """

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def mark(self) -> None:
        """Let the others end."""
        self._marker.touch()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal in one of the others: end this process if all is answered, and go on otherwise."""
        if self._marker.exists():
            sys.exit(0)

    def take_over(self) -> None:
        """Handle the signals in this process, whose main thread calls it."""
        for each in ENDINGS:
            signal.signal(each, self.handle)
