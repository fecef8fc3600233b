"""Runs that continue from a checkpoint: the optimiser and its schedule follow the run's own config."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ocrnet_pl.errors import CheckpointError

OPTIMIZER_KEY = "optimizer_class"
"""Where a checkpoint holds the class of its optimiser."""
PACE_KEY = "pace"
"""Where a checkpoint holds how its steps are counted in epochs."""

_WITHOUT_EFFECT = {
    "model.encoder.init_args.weights": "the weights are the checkpoint's",
    "model.encoder.init_args.weights_by_order": "the weights are the checkpoint's",
    "trainer.num_sanity_val_steps": "a run that continues tries nothing out before",
}
"""Settings that a run that continues has no use for, and why."""
_WITH_NOTE = {"model.optimizer.class_path": "its moments start anew"}
_IMPLEMENTATION = ("foreach", "fused", "capturable", "differentiable")
"""Options of an optimiser on which it depends where and how its state is kept."""

Settings = list[dict[str, Any]]
"""Of each parameter group of an optimiser, everything but the parameters."""


@dataclass(frozen=True)
class Pace:
    """How optimiser steps are counted in epochs.

    An epoch's number of steps changes where a run continues with another batch size, on another number of processes or
    with other data. The steps that were made before still count for the epochs that they were part of.

    Attributes:
        steps_per_epoch: From ``step`` on.
        step: The optimiser step from which on it holds.
        epochs: Those that were done before it.
    """

    steps_per_epoch: int
    step: int = 0
    epochs: float = 0.0

    def continued(self, steps_per_epoch: int, step: int) -> Pace:
        """Return the pace of a run that continues at a step with so many steps per epoch."""
        if steps_per_epoch == self.steps_per_epoch:
            return self
        return Pace(steps_per_epoch, step, self.epochs + (step - self.step) / self.steps_per_epoch)

    def total_steps(self, max_epochs: int) -> int:
        """Return the optimiser steps from the first to the end of the last epoch."""
        return self.step + math.ceil((max_epochs - self.epochs) * self.steps_per_epoch)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return asdict(self)


def class_name(optimizer: Optimizer) -> str:
    """Return the name of an optimiser's class."""
    return f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"


def settings_of(optimizer: Optimizer) -> Settings:
    """Return the settings of an optimiser's groups as the config has them, whatever the schedule has made of the rate.

    Args:
        optimizer: With a schedule, before it takes over the state of a checkpoint.
    """
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def prepare_states(checkpoint: dict[str, Any], optimizer: Optimizer) -> str | None:
    """Make a checkpoint's optimiser state fit the run's own optimiser; if it cannot, take it out.

    Args:
        checkpoint: Its content; changed.
        optimizer: That will take over the state.

    Returns:
        Why the optimiser has to start with fresh moments, in one line; None if it takes over the checkpoint's.
    """
    states = checkpoint.get("optimizer_states")
    if not states:
        return None
    saved = states[0]["param_groups"]
    reason = other_class(checkpoint, optimizer)
    if reason is None and OPTIMIZER_KEY not in checkpoint and _lacks_settings(saved, optimizer.param_groups):
        reason = f"the checkpoint's are not of {class_name(optimizer)}"
    reason = reason or _misfit(saved, optimizer.param_groups)
    if reason is not None:
        checkpoint["optimizer_states"] = []
        return reason
    for group, own in zip(saved, optimizer.param_groups, strict=True):
        group.update({key: own[key] for key in _IMPLEMENTATION if key in own})
    return None


def other_class(checkpoint: Mapping[str, Any], optimizer: Optimizer) -> str | None:
    """Return in one line that a checkpoint's optimiser is of another class; None if it is not, or does not say."""
    was = checkpoint.get(OPTIMIZER_KEY)
    if was is None or was == class_name(optimizer):
        return None
    return f"the checkpoint's are of {was}, this is {class_name(optimizer)}"


def _lacks_settings(saved: Settings, groups: Settings) -> bool:
    return any(not set(own) <= set(before) for before, own in zip(saved, groups, strict=False))


def _misfit(saved: Settings, groups: Settings) -> str | None:
    for group, own in zip(saved, groups, strict=False):
        for key, value in own.items():
            # A switch, and whether there is momentum at all, decide what is kept of each weight.
            decides = isinstance(value, bool) or key == "momentum"
            if decides and key not in _IMPLEMENTATION and bool(group.get(key)) != bool(value):
                return f"{key} {group.get(key)!r} -> {value!r} needs others"
    before, now = ({group.get("name", ""): len(group["params"]) for group in each} for each in (saved, groups))
    if before != now:
        name = next(name for name in [*before, *now] if before.get(name) != now.get(name))
        return (
            f"other weights are trained than before (group {name!r}: {before.get(name, 0)} tensors before, "
            f"{now.get(name, 0)} now)"
        )
    return None


def follow(schedule: LambdaLR, settings: Settings, factor: Callable[[int], float]) -> None:
    """Give an optimiser and its schedule their own settings back after they have taken over a checkpoint's state.

    The moments and the step stay the checkpoint's; the rates become those that the run's own schedule has at that step.

    Args:
        schedule: Of the optimiser.
        settings: Of :func:`settings_of`.
        factor: Of the schedule, by step.
    """
    for group, own in zip(schedule.optimizer.param_groups, settings, strict=True):
        group.update({key: value for key, value in own.items() if key not in ("lr", *_IMPLEMENTATION)})
    schedule.base_lrs = [own["initial_lr"] for own in settings]
    schedule.lr_lambdas = [factor] * len(settings)
    # The numbers that the schedule's own step would have come to.
    rates = [base * factor(schedule.last_epoch) for base in schedule.base_lrs]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    schedule._last_lr = rates


def effects(different: Iterable[str]) -> list[str]:
    """Return the settings that differ from the run before, sorted by whether they take effect, with notes.

    Args:
        different: Each a key, a space and how it differs.
    """
    found: list[str] = []
    without: list[str] = []
    for line in different:
        key = line.partition(" ")[0]
        if key in _WITHOUT_EFFECT:
            without.append(f"does not take effect: {line} ({_WITHOUT_EFFECT[key]})")
        else:
            found.append(f"{line} ({_WITH_NOTE[key]})" if key in _WITH_NOTE else line)
    return found + without


def pace_of(checkpoint: Mapping[str, Any]) -> Pace | None:
    """Return the pace that a checkpoint holds; None for one that has none.

    Raises:
        CheckpointError: It holds something else there.
    """
    saved = checkpoint.get(PACE_KEY)
    if saved is None:
        return None
    try:
        pace = Pace(**saved)
        sound = pace.steps_per_epoch >= 1 and pace.step >= 0 and 0 <= pace.epochs < math.inf
    except TypeError:
        sound = False
    if not sound:
        raise CheckpointError(f"the checkpoint: its entry {PACE_KEY!r} is not one of this project")
    return pace
