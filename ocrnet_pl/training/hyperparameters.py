"""The arguments of a task as plain values, from which its checkpoints are built again."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, get_type_hints

from lightning.pytorch import LightningModule
from lightning.pytorch.core.mixins import hparams_mixin
from lightning.pytorch.utilities.parsing import collect_init_args
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from ocrnet_pl.metrics.base import Metric
from ocrnet_pl.models.network_parts import PARTS
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.storage.recording import NotRecordedError, plain_record, record_of, record_of_factory

_ELSEWHERE = ("taxonomy", "input_size", "compile_backend", "teacher")
"""Arguments that checkpoints have entries of their own for, and those that only training has a use for."""
_FACTORIES = ("optimizer", "scheduler")
"""Arguments that are called with one object, and that may be a class or a partial of one."""


@contextmanager
def given_arguments(arguments: Mapping[str, Any]) -> Iterator[None]:
    """Let the task that is built meanwhile keep these arguments as they are, as Lightning's command line does.

    Args:
        arguments: Arguments by name, in the form of a config.
    """
    token = hparams_mixin._given_hyperparameters.set(dict(arguments))
    try:
        yield
    finally:
        hparams_mixin._given_hyperparameters.reset(token)


def keep_arguments(
    task: LightningModule, frame: FrameType | None, network: OCRNet, metrics: Sequence[Metric]
) -> dict[str, str]:
    """Make the hyper-parameters of a task: its arguments in the form of a config.

    The parts record how they were made. Where the arguments come from a config or a checkpoint, what stands there is
    kept: it may say where a value is from instead of what it is.

    Args:
        task: The task, in whose constructor this is called.
        frame: The frame of that constructor.
        network: The task's network.
        metrics: Its additional metrics.

    Returns:
        Why arguments could not be recorded, by name.
    """
    assert frame is not None
    # The constructor of a subclass comes after the one that it calls, and has the last word.
    levels = collect_init_args(frame, [], classes=(hparams_mixin.HyperparametersMixin,))
    arguments = {name: value for level in levels for name, value in level.items() if name not in PARTS}
    if arguments.get("metrics"):
        arguments["metrics"] = metrics
    arguments |= hparams_mixin._given_hyperparameters.get() or {}
    records, unrecorded = network.parts
    defaults = _defaults(task)
    for name, value in arguments.items():
        if name in _ELSEWHERE:
            continue
        unrecorded.pop(name, None)
        try:
            records[name] = _record(name, value, network)
        except NotRecordedError as error:
            # What the constructor itself brings along, it brings again.
            if value is not defaults.get(name):
                unrecorded[name] = str(error)
    task.save_hyperparameters(records)
    for name, reason in unrecorded.items():
        rank_zero_warn(
            f"{type(task).__name__}: checkpoints cannot say how to make {name!r} again ({reason}). Training is not "
            f"affected; give it again when a checkpoint is loaded: load_from_checkpoint(path, {name}=...)"
        )
    return unrecorded


def _record(name: str, value: Any, network: OCRNet) -> Any:
    if name in _FACTORIES and not isinstance(value, Mapping | str | None):
        return record_of_factory(value, 1)
    if name == "metrics" and value is not None:
        return [record_of(each, [network.taxonomy]) if isinstance(each, Metric) else each for each in value]
    return plain_record(value)


def _defaults(task: LightningModule) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in type(task).__mro__:
        if "__init__" in vars(each) and issubclass(each, LightningModule):
            for name, parameter in inspect.signature(each.__init__).parameters.items():  # type: ignore[misc]
                found.setdefault(name, parameter.default)
    return found


def argument_types(kind: type) -> dict[str, Any]:
    """Return the types of a constructor's options; those that it hands on to its base class are among them."""
    found: dict[str, Any] = {}
    for each in kind.__mro__:
        if "__init__" not in vars(each):
            continue
        found = get_type_hints(each.__init__) | found  # type: ignore[misc]
        kinds = {parameter.kind for parameter in inspect.signature(each.__init__).parameters.values()}  # type: ignore[misc]
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    return found
