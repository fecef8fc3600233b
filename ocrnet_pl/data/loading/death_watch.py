"""Waiting for what loading processes send, without waiting for a process that has died."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from types import FrameType
from typing import Any, TypeVar

from torch.utils.data._utils.signal_handling import _error_if_any_worker_fails

from ocrnet_pl.distributed.signals import signals_handled

Sent = TypeVar("Sent")

_REMIND = 1.0
"""Seconds between two signals to a main thread that waits for a batch."""

_NEWS = 5.0
"""Seconds within which the death of a process is known once its connection has broken."""


def next_delivery(deliveries: Iterator[Sent]) -> Sent | None:
    """Wait for what loading processes send next.

    Args:
        deliveries: Iterator of a DataLoader.

    Returns:
        What was sent; None at the end.

    Raises:
        RuntimeError: A process has died, or all of them are silent; the words are torch's.
    """
    if not getattr(deliveries, "_workers", ()):
        return next(deliveries, None)
    try:
        with _deaths_watched():
            return next(deliveries, None)
    except (OSError, EOFError) as error:
        # What is left of a message whose sender was killed.
        dead = _dead(deliveries)
        if not dead:
            raise
        text = ", ".join(str(process) for process in dead)
        raise RuntimeError(f"DataLoader worker (pid(s) {text}) exited unexpectedly") from error


@contextmanager
def torch_handler_undone() -> Iterator[None]:
    """Undo torch's handler for the death of child processes, which DataLoader sets when its iterator is made."""
    with signals_handled(signal.getsignal(signal.SIGCHLD), signal.SIGCHLD):
        yield


def _dead(deliveries: Iterator[Any]) -> list[int]:
    """Return the loading processes that are dead, or die within a few seconds.

    torch cannot be asked: it forgets all processes as soon as it has reported one.
    """
    workers = {worker.sentinel: worker for worker in getattr(deliveries, "_workers", ())}
    dead = [workers[sentinel] for sentinel in wait(list(workers), timeout=_NEWS)]
    for worker in dead:
        worker.join(_NEWS)
    return [worker.pid for worker in dead]


@contextmanager
def _deaths_watched() -> Iterator[None]:
    """Let the death of a loading process interrupt the code that waits for a batch.

    torch's own handler raises its error wherever the main process is at that moment, for example in the middle of a
    step.
    """
    before = signal.getsignal(signal.SIGCHLD)

    def handle(number: int, frame: FrameType | None) -> None:
        _error_if_any_worker_fails()
        if callable(before):
            before(number, frame)

    with signals_handled(handle, signal.SIGCHLD) as handled:
        if not handled:
            yield
            return
        # A process may have died while nothing was waiting.
        _error_if_any_worker_fails()
        with _reminded():
            yield


@contextmanager
def _reminded() -> Iterator[None]:
    """Send the main thread the signal of a process's death again and again.

    A signal that arrives just before ``read`` begins to wait does not end the wait. A process that was killed in the
    middle of a message leaves nothing else that would.
    """
    over = threading.Event()
    main = threading.main_thread().ident

    def remind() -> None:
        while main is not None and not over.wait(_REMIND):
            signal.pthread_kill(main, signal.SIGCHLD)

    try:
        threading.Thread(target=remind, name="reminder", daemon=True).start()
        yield
    finally:
        over.set()
