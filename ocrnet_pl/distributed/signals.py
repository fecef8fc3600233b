"""Signals that this process handles in its own way for a while."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | int | None
"""What :func:`signal.getsignal` returns: a function of the signal's number and the current frame, or a default."""


@contextmanager
def signals_handled(handler: Handler, *numbers: int) -> Iterator[bool]:
    """Handle signals by a function meanwhile, and as before afterwards.

    Only the main thread may set handlers: in others, nothing is changed.

    Args:
        handler: The function, or another handler that :func:`signal.signal` takes.
        numbers: The signals.

    Yields:
        Whether the handler is set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    before: dict[int, Handler] = {}
    try:
        for number in numbers:
            before[number] = signal.signal(number, handler)
        yield True
    finally:
        for number, former in before.items():
            signal.signal(number, former)
