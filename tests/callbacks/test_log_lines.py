"""What a run says where there is no terminal."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ocrnet_pl.callbacks.log_lines import LogLines
from ocrnet_pl.callbacks.throughput import Throughput
from ocrnet_pl.drawing import progress


def test_the_look_at_a_few_batches_before_training_is_not_taken_for_a_validation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    lines = LogLines(Throughput())
    lines._speaks = True
    for checking in (True, False):
        trainer: Any = SimpleNamespace(
            sanity_checking=checking, num_sanity_val_batches=[2], num_val_batches=[10], state=SimpleNamespace(fn="fit")
        )
        module: Any = None
        lines.on_validation_start(trainer, module)
        clock[0] += 20.0
        lines.on_validation_batch_end(trainer, module, None, None, 0)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("validation before training, batch 1 of 2 (50%)")
    assert second.startswith("validation, batch 1 of 10 (10%)")


@pytest.mark.parametrize("speed", [0.0, 3.25])
def test_a_speed_that_is_not_known_yet_is_left_out(speed: float, capsys: pytest.CaptureFixture[str]) -> None:
    throughput = Throughput()
    throughput.images_per_s = speed
    lines = LogLines(throughput)
    lines._speaks = True
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.5}])
    trainer: Any = SimpleNamespace(
        global_step=1, max_steps=-1, current_epoch=0, max_epochs=1, optimizers=[optimizer], estimated_stepping_batches=1
    )
    module: Any = None
    lines.on_train_epoch_end(trainer, module)
    assert ("images/s" in capsys.readouterr().err) == (speed > 0)
