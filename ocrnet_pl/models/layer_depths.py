"""How deep each parameter of a model is, as timm groups its layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def layer_depths(name: str, parameters: Iterable[str]) -> dict[str, int]:
    """Return how many layers each parameter is away from the end, where timm's classifier would be at 0.

    What returns feature maps gives the parts of a model other names, in which dots have become underscores, and may
    stand around it; the layers are those of the whole model.

    Args:
        name: Name of a timm model.
        parameters: Names of the parameters to look up, each with ``model.`` before it. Those that are not the whole
            model's, which no pretrained weights are for, are left out.

    Raises:
        ValueError: timm has no grouping for this model.
    """
    import timm
    from timm.models import group_parameters

    whole: Any = timm.create_model(name)
    if not hasattr(whole, "group_matcher"):
        raise ValueError(f"model.layer_decay: timm does not say what the layers of {name!r} are; set it to null")
    layers = group_parameters(whole, whole.group_matcher(coarse=False), reverse=True)
    last = max(layers.values())
    depths = {_flat(key): last - layer for key, layer in layers.items()}
    found = {}
    for parameter in parameters:
        inner = parameter.removeprefix("model.")
        depth = depths.get(_flat(inner), depths.get(_flat(inner.removeprefix("model."))))
        if depth is not None:
            found[parameter] = depth
    return found


def _flat(name: str) -> str:
    return name.replace(".", "_")
