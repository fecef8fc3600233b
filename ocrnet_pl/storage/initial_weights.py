"""Weights to start from: of a checkpoint, a saved network, a bare state dict or a safetensors file; nothing is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.storage.checkpoints import read_checkpoint
from ocrnet_pl.storage.network_folder import read_description, read_weights
from ocrnet_pl.storage.plain_values import plain_values, shown
from ocrnet_pl.storage.saved_network import saved_taxonomy
from ocrnet_pl.structures import FUSION_KEY, Taxonomy

_SUFFIX = ".safetensors"
_PREFIXES = ("module.", "network.")
"""What stands before the names of a network's weights: where DDP's own wrapper was saved, and in a task."""


class InitialWeights(NamedTuple):
    """The weights of a file, and what it says of their classes.

    Attributes:
        weights: Weights by name, as a network's ``state_dict`` names them.
        taxonomy: The categories; None if the file names none.
        fusion: Calibrated settings of the post-processing as plain values; None if there are none.
        path: Path of the file.
    """

    weights: dict[str, Tensor]
    taxonomy: Taxonomy | None
    fusion: Any
    path: str

    @property
    def where(self) -> str:
        """The name of the file for error messages."""
        return _where(Path(self.path))


def read_initial_weights(path: str | Path) -> InitialWeights:
    """Read weights to start from; of a checkpoint, the averaged ones where training kept an average.

    No class that the file names is imported.

    Args:
        path: Path of a checkpoint that training wrote, of a folder that ``OCRNet.save`` wrote, of a file of
            ``torch.save`` with a dictionary of tensors (alone, or under ``state_dict``), or of a safetensors file.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged, or contains no weights.
    """
    path = Path(path).expanduser()
    where = _where(path)
    if path.suffix == _SUFFIX:
        if not path.is_file():
            raise FileNotFoundError(f"{where}: no such file")
        try:
            content: dict[str, Any] = dict(load_file(path))
        except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"{where}: unreadable; it is not a safetensors file, or not complete") from error
        return InitialWeights(_named(content, where), None, None, str(path))
    content = read_description(path) | {"state_dict": read_weights(path)} if path.is_dir() else read_checkpoint(path)
    weights = _named(content.get("state_dict", content), where)
    if "taxonomy" not in content or "state_dict" not in content:
        return InitialWeights(weights, None, None, str(path))
    # A folder without settings says so by an empty entry.
    fusion = plain_values(content.get(FUSION_KEY), f"{where}: {FUSION_KEY}")
    return InitialWeights(weights, saved_taxonomy(content, where), fusion or None, str(path))


def _where(path: Path) -> str:
    kind = "weights" if path.suffix == _SUFFIX else "network" if path.is_dir() else "checkpoint"
    return f"{kind} {str(path)!r}"


def _named(content: Mapping[Any, Any], where: str) -> dict[str, Tensor]:
    """Return the weights of a network among those of a file, under the network's own names."""
    found = dict(content)
    for name, tensor in found.items():
        usable = isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_quantized
        if not isinstance(name, str) or not usable or tensor.is_complex() or tensor.device.type == "meta":
            shown = name if isinstance(name, str) and name.isprintable() and len(name) < 80 else "an entry"
            raise CheckpointError(f"{where}: it contains no weights to start from: {shown} is not a plain tensor")
    for prefix in _PREFIXES:
        # A task also has weights of its own, such as those of a balancing.
        own = {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}
        found = own or found
    check_finite(found, where)
    return found


def check_finite(weights: Mapping[str, Tensor], where: str) -> None:
    """Raise an error for weights from which no training can go on.

    Args:
        weights: Weights by name.
        where: Name of the file for error messages.

    Raises:
        CheckpointError: One of them is infinite or not a number.
    """
    wrong = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if wrong:
        raise CheckpointError(
            f"{where}: {len(wrong)} of its tensors hold values that are not finite, such as {shown(wrong[0])}: the "
            "training that wrote it had failed; take an earlier file"
        )
