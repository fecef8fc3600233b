from __future__ import annotations

import threading
from functools import partial

import pytest
import torch

from ocrnet_pl.metrics.background import Background


def test_work_is_done_in_order_while_the_caller_goes_on() -> None:
    before = {*threading.enumerate()}
    background, gate, done = Background(waiting=2), threading.Event(), list[int]()

    def work(number: int) -> None:
        assert gate.wait(10)
        done.append(number)

    for number in range(2):
        background.do(partial(work, number))
    assert done == []
    # The third waits for the first.
    threading.Timer(0.05, gate.set).start()
    background.do(lambda: work(2))
    assert done[:1] == [0]
    background.finish()
    assert done == [0, 1, 2]
    assert not any(thread.name.startswith("metrics") for thread in {*threading.enumerate()} - before)


@pytest.mark.parametrize("inference", [False, True])
def test_work_is_done_in_the_mode_of_the_caller(inference: bool) -> None:
    background, modes = Background(), []
    with torch.inference_mode(inference):
        background.do(lambda: modes.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled())))
    background.finish()
    assert modes == [(inference, False)]


def test_a_fault_is_raised_once_and_later() -> None:
    background = Background(waiting=1)

    def fail() -> None:
        raise ValueError("no")

    background.do(fail)
    with pytest.raises(ValueError, match="no"):
        background.do(lambda: None)
    background.finish()
    background.do(fail)
    with pytest.raises(ValueError, match="no"):
        background.finish()
    background.finish()
