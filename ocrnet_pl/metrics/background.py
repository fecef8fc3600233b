"""Work that a thread does while the caller goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch


class Background:
    """Runs functions one after the other, in the order in which they were given, in a thread of its own.

    What a function raises is raised by a later call here. Between :meth:`finish` and the next function there is no
    thread.

    Args:
        waiting: Number of functions that may wait, at least 1; a caller that is further ahead waits for the oldest.
    """

    def __init__(self, waiting: int = 2) -> None:
        self._waiting = waiting
        self._thread: ThreadPoolExecutor | None = None
        self._queue: deque[Future[None]] = deque()

    def do(self, function: Callable[[], None]) -> None:
        """Run a function later, in the caller's mode of inference."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "metrics")
        while len(self._queue) >= self._waiting:
            self._queue.popleft().result()
        inference = torch.is_inference_mode_enabled()

        def in_mode() -> None:
            # Each thread has a mode of its own.
            with torch.inference_mode() if inference else torch.no_grad():
                function()

        self._queue.append(self._thread.submit(in_mode))

    def finish(self) -> None:
        """Wait until everything is done."""
        queue, thread = self._queue, self._thread
        self._queue, self._thread = deque(), None
        if thread is not None:
            thread.shutdown()
        for each in queue:
            each.result()
