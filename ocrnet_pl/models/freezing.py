"""Stages of an encoder that are not trained, for the whole run or until a given time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MethodType
from typing import Any

import torch
from torch import nn

_UNITS = ("epoch", "step")


class FrozenStages:
    """The first stages of a model, which are neither trained nor change their statistics.

    Stages that stay frozen need no gradient. Those that will train later keep asking for one, so that the optimiser and
    what exchanges gradients between processes know them from the beginning: until then they run without recording for
    the backward pass, and the optimiser is given no gradient, so that weight decay does not move them either.

    Args:
        model: A model of timm that returns feature maps.
        stages: Number of stages; the stem is the first. 0 freezes none.
        until: When they begin to train: ``{"epoch": 3}`` or ``{"step": 500}``, counted from 0; None for never.

    Raises:
        ValueError: The model has fewer stages, or ``until`` is not such a time.
    """

    def __init__(self, model: nn.Module, stages: int, until: Mapping[str, int] | None = None) -> None:
        self.until = _checked(until, stages)
        self.modules, self.parameters = _before(model, stages) if stages else ([], [])
        if self.until is None:
            for parameter in self.parameters:
                parameter.requires_grad_(False)
            return
        for module in self.modules:
            # Lists are not called, their members are.
            called: Any
            for called in (module, *(module.children() if isinstance(module, nn.ModuleList | nn.Sequential) else ())):
                called.runs_frozen = True
                called.forward = MethodType(_forward, called)

    def begin_step(self, epoch: int, step: int) -> bool:
        """Let the stages train if it is time; return whether they do from here on, but did not before."""
        if self.until is None or not self.modules:
            return False
        unit, at = self.until
        if {"epoch": epoch, "step": step}[unit] < at:
            return False
        for module in self.modules:
            each: Any
            for each in module.modules():
                if hasattr(each, "runs_frozen"):
                    each.runs_frozen = False
        self.modules, self.parameters = [], []
        return True

    def hold_still(self) -> None:
        """Keep the optimiser from moving the weights, also by weight decay: it skips those without a gradient."""
        for parameter in self.parameters:
            parameter.grad = None


def _forward(module: nn.Module, *inputs: Any, **options: Any) -> Any:
    """Call a module's own forward pass; while it is frozen, nothing is recorded for the backward pass."""
    own = type(module).forward
    if not module.runs_frozen:
        return own(module, *inputs, **options)
    with torch.no_grad():
        return own(module, *inputs, **options)


def _checked(until: Mapping[str, int] | None, stages: int) -> tuple[str, int] | None:
    if until is None:
        return None
    unit, at = next(iter(until.items()), ("", 0))
    if len(until) != 1 or unit not in _UNITS or at < 0:
        raise ValueError(
            f"model.encoder.unfreeze_at: expected an epoch or a step, such as {{epoch: 3}} or {{step: 500}}, got "
            f"{dict(until)}"
        )
    if stages == 0:
        raise ValueError("model.encoder.unfreeze_at: no stages are frozen; set frozen_stages, or unfreeze_at to null")
    return unit, at


def _before(model: nn.Module, stages: int) -> tuple[list[nn.Module], list[nn.Parameter]]:
    """Return what runs up to the end of a stage: its modules, and all weights, also those outside of modules.

    These are the earlier siblings at every depth of the stage's path, and itself.
    """
    info: Any = model.feature_info
    if not 0 < stages <= len(info.channels()):
        raise ValueError(f"encoder: frozen_stages is {stages}, the model {len(info.channels())} stages deep")
    boundary = info[stages - 1]["module"].split(".")
    # What selects the maps of a transformer wraps it, and keeps the names.
    inner = getattr(model, "model", None)
    parent = inner if isinstance(inner, nn.Module) and not hasattr(model, boundary[0]) else model
    found: list[nn.Module] = []
    weights: list[nn.Parameter] = []
    for depth, part in enumerate(boundary):
        children = dict(parent.named_children())
        # Such as the embeddings of positions.
        weights += parent.parameters(recurse=False)
        name = part if part in children else "_".join(boundary[depth:])
        for sibling, module in children.items():
            if sibling == name:
                break
            found.append(module)
        parent = children[name]
        if name != part:
            break
    found.append(parent)
    return found, [*weights, *_parameters(found)]


def _parameters(modules: list[nn.Module]) -> Iterator[nn.Parameter]:
    for module in modules:
        yield from module.parameters()
