"""Runs that continue from a checkpoint: the optimiser and its schedule follow the run's own config."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.training.optimizers import FACTOR, without_layers

OPTIMIZER_KEY = "optimizer_class"
"""Key of a checkpoint for the class of its optimiser."""
PARAMETERS_KEY = "optimizer_parameters"
"""Key of a checkpoint for the names of the optimiser's parameters, by group."""
PRETRAINED_KEY = "encoder_pretrained"
"""Key of a checkpoint for whether the encoder began with pretrained weights."""
PACE_KEY = "pace"
"""Key of a checkpoint for how its steps are counted in epochs."""

_WITHOUT_EFFECT = {
    "model.encoder.init_args.weights": "the weights are the checkpoint's",
    "model.encoder.init_args.weights_by_order": "the weights are the checkpoint's",
    "trainer.num_sanity_val_steps": "a run that continues makes no trial validation",
}
"""Settings that have no effect on a run that continues, and why."""
_WITH_NOTE = {"model.optimizer.class_path": "its moments start from zero"}
_IMPLEMENTATION = ("foreach", "fused", "capturable", "differentiable")
"""Options of an optimiser that decide where and how its state is kept."""

Settings = list[dict[str, Any]]
"""The settings of each parameter group of an optimiser, everything but the parameters."""


@dataclass(frozen=True)
class Pace:
    """How optimiser steps are counted in epochs.

    The number of steps per epoch changes if a run continues with another batch size, on another number of processes or
    with other data. The steps that were made before still count for the epochs that they belong to.

    Attributes:
        steps_per_epoch: Number of steps per epoch from ``step`` on.
        step: The optimiser step from which this holds.
        epochs: Number of epochs done before it.
    """

    steps_per_epoch: int
    step: int = 0
    epochs: float = 0.0

    def continued(self, steps_per_epoch: int, step: int) -> Pace:
        """Return the pace of a run that continues at a step with the given number of steps per epoch."""
        if steps_per_epoch == self.steps_per_epoch:
            return self
        return Pace(steps_per_epoch, step, self.epochs + (step - self.step) / self.steps_per_epoch)

    def total_steps(self, max_epochs: int) -> int:
        """Return the number of optimiser steps from the first to the end of the last epoch."""
        return self.step + math.ceil((max_epochs - self.epochs) * self.steps_per_epoch)

    def epochs_at(self, step: float) -> float:
        """Return the epochs, whole or not, that are done after so many optimiser steps."""
        # Rounding leaves no sliver of an epoch.
        return round(self.epochs + (step - self.step) / self.steps_per_epoch, 9)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return asdict(self)


def class_name(optimizer: Optimizer) -> str:
    """Return the name of an optimiser's class."""
    return f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"


def settings_of(optimizer: Optimizer) -> Settings:
    """Return the settings of an optimiser's groups as the config has them.

    Args:
        optimizer: It has no schedule yet, which would change the rate.
    """
    return [
        {key: value.clone() if isinstance(value, Tensor) else value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]


def prepare_states(checkpoint: dict[str, Any], optimizer: Optimizer, task: nn.Module) -> str | None:
    """Make a checkpoint's optimiser state fit the run's own optimiser; remove it if that is not possible.

    Args:
        checkpoint: Content of the checkpoint; changed in place.
        optimizer: The optimiser that will restore the state.
        task: Has the parameters, and names them.

    Returns:
        Why the optimiser has to start with fresh moments, in one line; None if it restores the checkpoint's.
    """
    states = checkpoint.get("optimizer_states")
    if not states:
        return None
    _regroup(checkpoint, optimizer, task)
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


def parameter_names(optimizer: Optimizer, task: nn.Module) -> list[list[str]]:
    """Return the names of an optimiser's parameters in a task, by group."""
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    return [[names.get(id(parameter), "") for parameter in group["params"]] for group in optimizer.param_groups]


def _regroup(checkpoint: dict[str, Any], optimizer: Optimizer, task: nn.Module) -> None:
    """Sort a checkpoint's state into the groups of the run's own optimiser, if they have the same parameters."""
    state, own = checkpoint["optimizer_states"][0], parameter_names(optimizer, task)
    saved: Settings = state["param_groups"]
    kinds = [group.get("name", "") for group in optimizer.param_groups]
    before = checkpoint.get(PARAMETERS_KEY)
    if before is None:
        # Of versions that had no rates by layer, and so no names either.
        groups: dict[str, list[str]] = {}
        group_of = {name: without_layers(kind) for kind, names in zip(kinds, own, strict=True) for name in names}
        for name, _ in task.named_parameters():
            if name in group_of:
                groups.setdefault(group_of[name], []).append(name)
        before = [groups.get(group.get("name", ""), []) for group in saved]
    if before == own or not isinstance(before, list) or not all(isinstance(names, list) for names in before):
        return
    if [len(names) for names in before] != [len(group["params"]) for group in saved]:
        return
    place = dict(zip(chain(*before), chain(*(group["params"] for group in saved)), strict=True))
    if set(place) != {name for names in own for name in names}:
        return
    settings = {without_layers(group.get("name", "")): group for group in saved}
    state["param_groups"] = [
        settings[without_layers(kind)] | {"name": kind, "params": [place[name] for name in names]}
        for kind, names in zip(kinds, own, strict=True)
    ]


def other_class(checkpoint: Mapping[str, Any], optimizer: Optimizer) -> str | None:
    """Return in one line that a checkpoint's optimiser is of another class; None if it is not, or does not say."""
    was = checkpoint.get(OPTIMIZER_KEY)
    if was is None or was == class_name(optimizer):
        return None
    return f"the checkpoint's are of {was}, this is {class_name(optimizer)}"


def _lacks_settings(saved: Settings, groups: Settings) -> bool:
    return any(not set(own) - {FACTOR} <= set(before) for before, own in zip(saved, groups, strict=False))


def _misfit(saved: Settings, groups: Settings) -> str | None:
    for group, own in zip(saved, groups, strict=False):
        for key, value in own.items():
            # A switch, and whether there is momentum at all, decide what is kept for each weight.
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


def restore_settings(optimizer: Optimizer, settings: Settings) -> None:
    """Give an optimiser its own settings back after it has taken over a checkpoint's state; the moments stay.

    Args:
        optimizer: Changed.
        settings: What :func:`settings_of` returned.
    """
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        # What the schedule of the run before had noted in the group.
        for key in set(group) - set(own) - {"params", *_IMPLEMENTATION}:
            del group[key]
        rate = group["lr"]
        group.update({key: value for key, value in own.items() if key not in _IMPLEMENTATION})
        if isinstance(rate, Tensor):
            group["lr"] = rate.fill_(own["lr"])


def effects(different: Iterable[str]) -> list[str]:
    """Return the settings that differ from the previous run, sorted by whether they take effect, with notes.

    Args:
        different: Texts that each start with a key and a space, followed by the difference.
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
    """Return the pace in a checkpoint; None if it has none.

    Raises:
        CheckpointError: The entry is not a pace.
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
