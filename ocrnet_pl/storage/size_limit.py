"""A bound on what is built from a file's entries, so that a forged number does not fill the memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

_TIMES = 8
"""How many times as many numbers as its weights a network may allocate while it is built: models are built on trial."""
_SPARE = 2**28
"""How many further numbers it may allocate, for classifiers that models drop again: 1 GiB in float32."""
_MOST_MODULES = 200_000


@contextmanager
def bounded_by(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let what is built meanwhile be about as large as the weights that it is to take.

    A parameter is looked at before it is filled; until then, it takes no memory.

    Args:
        weights: The weights by name.

    Raises:
        ValueError: Within the context, if the network is much larger.
    """
    most = _TIMES * sum(value.numel() for value in weights.values()) + _SPARE
    numbers = modules = 0

    def weigh(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal numbers
        numbers += 0 if parameter is None else parameter.numel()
        if numbers > most:
            raise ValueError(f"{type(module).__name__}.{name} makes it much larger than the weights of the file")

    def count(module: nn.Module, name: str, child: nn.Module | None) -> None:
        nonlocal modules
        modules += 1
        if modules > _MOST_MODULES:
            raise ValueError(f"it has more than {_MOST_MODULES:,} modules")

    hooks = register_module_parameter_registration_hook(weigh), register_module_module_registration_hook(count)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
