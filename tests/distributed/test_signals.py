"""Signals are handled by a function for a while, and as before afterwards."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

import pytest

from ocrnet_pl.distributed.signals import signals_handled


def test_signals_are_handled_meanwhile_and_as_before_afterwards() -> None:
    told: list[tuple[str, int]] = []

    def inner(number: int, frame: FrameType | None) -> None:
        told.append(("inner", number))

    def outer(number: int, frame: FrameType | None) -> None:
        told.append(("outer", number))

    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    former = [signal.getsignal(number) for number in numbers]
    with signals_handled(outer, *numbers):
        with pytest.raises(KeyError), signals_handled(inner, *numbers) as handled:
            assert handled
            for number in numbers:
                os.kill(os.getpid(), number)
            raise KeyError
        for number in numbers:
            os.kill(os.getpid(), number)
    assert told == [(name, number) for name in ("inner", "outer") for number in numbers]
    assert [signal.getsignal(number) for number in numbers] == former


def test_another_thread_than_the_main_one_leaves_the_handlers_as_they_are() -> None:
    found: list[object] = []

    def run() -> None:
        with signals_handled(signal.SIG_IGN, signal.SIGUSR1) as handled:
            found.extend([handled, signal.getsignal(signal.SIGUSR1)])

    former = signal.getsignal(signal.SIGUSR1)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False, former]
