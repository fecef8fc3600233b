"""A checkpoint's entries on its network, apart from the parts to build, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.storage.earlier_settings import model_now
from ocrnet_pl.storage.plain_values import plain_values, shown
from ocrnet_pl.structures import Taxonomy

_LARGEST_SIDE = 65_536
_MOST_CATEGORIES = 10_000


class SavedNetwork(NamedTuple):
    """The entries of a checkpoint that describe a network.

    Attributes:
        parts: Hyper-parameters of the network, not checked yet.
        taxonomy: The categories.
        input_size: (height, width) in pixels.
        weights: Weights by name, as the task names them.
    """

    parts: Mapping[str, Any]
    taxonomy: Taxonomy
    input_size: tuple[int, int]
    weights: dict[str, Tensor]


def saved_network(content: Mapping[str, Any], where: str) -> SavedNetwork:
    """Return the entries of a checkpoint that describe its network.

    Args:
        content: Content of the checkpoint, as :func:`~ocrnet_pl.storage.checkpoints.read_checkpoint` returns it.
        where: Name of the file for error messages.

    Raises:
        CheckpointError: An entry is missing, or is not what training writes.
    """
    for name in ("hyper_parameters", "taxonomy", "input_size", "state_dict"):
        if name not in content:
            raise CheckpointError(f"{where}: no entry {name!r}; it is not one of this project")
    parts, weights = content["hyper_parameters"], content["state_dict"]
    if not isinstance(parts, Mapping):
        raise CheckpointError(f"{where}: hyper_parameters: expected a dictionary, got {shown(parts)}")
    return SavedNetwork(
        model_now(parts), saved_taxonomy(content, where), _size(content["input_size"], where), dict(weights)
    )


def saved_taxonomy(content: Mapping[str, Any], where: str) -> Taxonomy:
    """Return a checkpoint's categories.

    Args:
        content: Content of the checkpoint.
        where: Name of the file for error messages.

    Raises:
        CheckpointError: There are none, or they are not what training writes.
    """
    if "taxonomy" not in content:
        raise CheckpointError(f"{where}: not a checkpoint of this project, it has no taxonomy")
    saved = plain_values(content["taxonomy"], f"{where}: taxonomy")
    try:
        if len(saved["categories"]) > _MOST_CATEGORIES:
            raise ValueError(f"there are {len(saved['categories'])} of them")
        taxonomy = Taxonomy.from_dict(saved)
        for category in taxonomy.categories:
            indices = [index for index in (category.detection, category.semantic) if index is not None]
            if not isinstance(category.name, str) or any(type(index) is not int for index in indices):
                raise TypeError("a name is not a text, or an index is not a number")
            if [type(value) for value in category.color] != [int] * 3 or not all(0 <= c <= 255 for c in category.color):
                raise TypeError("a colour is not red, green and blue, 0 to 255")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(
            f"{where}: taxonomy: these are not valid categories: {' '.join(reason.split())[:200]}"
        ) from error
    return taxonomy


def _size(saved: Any, where: str) -> tuple[int, int]:
    if not isinstance(saved, list | tuple) or len(saved) != 2:
        raise CheckpointError(f"{where}: input_size: expected height and width, got {shown(saved)}")
    for side in saved:
        if type(side) is not int or not 0 < side <= _LARGEST_SIDE:
            raise CheckpointError(f"{where}: input_size: expected height and width, got {shown(side)}")
    return saved[0], saved[1]
