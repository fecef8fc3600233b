"""The images per second of a training."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from ocrnet_pl.callbacks import throughput
from ocrnet_pl.callbacks.throughput import Throughput


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_curve_shows_where_a_run_becomes_slow(accumulated: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: clock[0])
    curve: dict[int, float] = {}
    trainer: Any = SimpleNamespace(global_step=0, log_every_n_steps=5, world_size=2)
    module: Any = SimpleNamespace(log=lambda name, value, batch_size: curve.update({trainer.global_step: value}))
    speed, batch = Throughput(), ["image"] * 4
    # Ten steps take a second for each batch, ten take two, and a validation between them does not count.
    for step in range(20):
        for part in range(accumulated):
            clock[0] += 1.0 if step < 10 else 2.0
            trainer.global_step = step + (part == accumulated - 1)
            speed.on_train_batch_end(trainer, module, None, batch, step * accumulated + part)  # type: ignore[arg-type]
        if step == 11:
            speed.on_validation_start(trainer, module)
            clock[0] += 100.0
    assert curve == {5: 8.0, 10: 8.0, 15: 4.0, 20: 4.0}
    fast, slow = 10 * accumulated - 1, 10 * accumulated - 1
    assert speed.images_per_s == pytest.approx(8 * (fast + slow) / (fast + 2 * slow))


def test_a_run_that_logs_no_steps_has_no_curve_but_a_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: float(next(clock)))
    trainer: Any = SimpleNamespace(global_step=0, log_every_n_steps=0, world_size=1)
    module: Any = SimpleNamespace(log=lambda *_, **__: pytest.fail("nothing is to be logged"))
    speed, batch = Throughput(), ["image"] * 4
    for trainer.global_step in range(1, 4):
        speed.on_train_batch_end(trainer, module, None, batch, trainer.global_step)  # type: ignore[arg-type]
    assert speed.images_per_s == 4.0
