"""What ``auto`` chooses by the time of a few steps."""

from __future__ import annotations

from typing import Any

import pytest

from ocrnet_pl.cli.measured_choices import Speed, batch_of_budget, length


def planned(speed: Speed, evaluated: int, budget: float, *words: Any) -> tuple[dict[str, Any], str | None]:
    """Return what is chosen for 80 images."""
    choices, warning = length(speed, 80, evaluated, budget, *words)
    return {choice.key.removeprefix("trainer."): choice.value for choice in choices}, warning


def test_the_budget_determines_the_steps() -> None:
    # Ten batches of a second and, in the time of one, the next batch.
    speed = Speed(step=1.0, load=0.1, batch=8, workers=1, processes=1)
    assert planned(speed, 0, 1101.0) == ({"max_steps": 1000, "val_check_interval": 100}, None)
    # The loader takes two seconds per batch, and where no process loads, it comes on top.
    assert planned(speed._replace(load=0.25), 0, 1101.0)[0]["max_steps"] == 500
    assert planned(speed._replace(load=0.25, workers=0), 0, 1101.0)[0]["max_steps"] == 330
    assert planned(speed, 0, 1e9)[0]["max_steps"] == 3000
    # Validations take 8.8 s: six of them fit a twentieth of the budget, and 952 batches beside them.
    found, _ = planned(speed, 80, 1101.0)
    assert (found["max_steps"], found["val_check_interval"]) == (6 * 158, 158)
    # A run is not longer than its budget, but makes a step.
    found, warning = planned(speed, 0, 10.0)
    assert (found["max_steps"], found["val_check_interval"]) == (9, 1)
    assert warning is not None and "10 s is too short" in warning and "9 batches, and 50" in warning
    assert planned(speed, 80, 0.5)[0]["max_steps"] == 1


def test_the_last_step_within_a_budget_is_validated_also_where_batches_or_epochs_are_counted() -> None:
    speed = Speed(step=1.0, load=0.1, batch=8, workers=1, processes=1)
    # Four steps of three batches and, of the last one, one: whole epochs.
    found, _ = planned(speed, 0, 1101.0, 3)
    assert (found["val_check_interval"], found["max_steps"]) == (100, 400)
    # Every seven epochs: in 1000 batches, 14 times.
    found, _ = planned(speed, 0, 1101.0, 1, 7)
    assert found == {"max_steps": 980}
    assert planned(speed, 0, 1101.0, 3, 7)[0] == {"max_steps": 392}


@pytest.mark.parametrize(
    ("budget", "fixed", "batch", "steps"),
    # Of 160 images, in tenths of a second per image: 1100 s are 1000 s of steps.
    [
        (3000.0, 0.0, 8, "3409 steps in the budget instead of 1704"),
        (200.0, 0.0, 4, "454 steps in the budget instead of 113"),
        # The smallest.
        (40.0, 0.0, 4, "90 steps in the budget instead of 22"),
        (6000.0, 0.0, 16, None),
        # A step takes as long with fewer images.
        (1100.0, 10.0, 16, None),
    ],
)
def test_a_short_budget_has_smaller_batches_where_they_make_more_steps(
    budget: float, fixed: float, batch: int, steps: str | None
) -> None:
    def measured(count: int) -> Speed:
        return Speed(fixed + 0.1 * count, 0.0, count, 1, 1)

    speed, why = batch_of_budget(measured, 16, 0, budget)
    assert (speed.batch, why) == (batch, steps)


def test_a_size_that_was_slowed_down_does_not_hide_those_below_it() -> None:
    def measured(count: int) -> Speed:
        return Speed(0.1 * count * (3 if count == 8 else 1), 0.0, count, 1, 1)

    assert batch_of_budget(measured, 16, 0, 200.0)[0].batch == 4
