"""What a checkpoint, or a network's folder, says of its network, checked apart from the parts to build."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.storage.earlier_settings import parts_now
from ocrnet_pl.storage.plain_values import plain_values, shown
from ocrnet_pl.structures import Taxonomy

_LARGEST_SIDE = 65_536
_MOST_CATEGORIES = 10_000

UNRECORDED_KEY = "unrecorded"
"""Key of a file's entry with the reasons, by name of the part, why it does not say how some parts were made."""


class SavedNetwork(NamedTuple):
    """The entries of a file that describe a network.

    Attributes:
        content: All entries.
        key: Name of the entry with the parts.
        parts: How the parts were made, not checked yet.
        unrecorded: Why the file does not say how some parts were made, by name.
        taxonomy: The categories.
        input_size: (height, width) in pixels.
        weights: Weights by name; in a checkpoint as the task names them, in a folder as the network does.
        dtype: The type of numbers to give the network; None leaves those that it is built with.
    """

    content: Mapping[str, Any]
    key: str
    parts: Mapping[str, Any]
    unrecorded: Mapping[str, str]
    taxonomy: Taxonomy
    input_size: tuple[int, int]
    weights: dict[str, Tensor]
    dtype: torch.dtype | None = None


def saved_network(content: Mapping[str, Any], where: str) -> SavedNetwork:
    """Return the entries of a checkpoint that describe its network.

    Args:
        content: Content of the checkpoint, as :func:`~ocrnet_pl.storage.checkpoints.read_checkpoint` returns it.
        where: Name of the file for error messages.

    Raises:
        CheckpointError: An entry is missing, or is not what training writes.
    """
    return _network(content, "hyper_parameters", where, content.get("state_dict"))


def network_in_folder(description: Mapping[str, Any], weights: dict[str, Tensor], where: str) -> SavedNetwork:
    """Return what a network's folder says of it.

    Args:
        description: Content of its ``network.json``, from :func:`~ocrnet_pl.storage.network_folder.read_description`.
        weights: Its weights by name.
        where: Name of the file for error messages.

    Raises:
        CheckpointError: An entry is missing, or is not what :meth:`OCRNet.save` writes.
    """
    return _network(description, "parts", where, weights)._replace(dtype=description["dtype"])


def _network(content: Mapping[str, Any], key: str, where: str, weights: dict[str, Tensor] | None) -> SavedNetwork:
    for name in (key, "taxonomy", "input_size"):
        if name not in content:
            raise CheckpointError(f"{where}: no entry {name!r}; it is not one of this project")
    if weights is None:
        raise CheckpointError(f"{where}: no entry 'state_dict'; it is not one of this project")
    parts = content[key]
    if not isinstance(parts, Mapping):
        raise CheckpointError(f"{where}: {key}: expected a dictionary, got {shown(parts)}")
    return SavedNetwork(
        content=content,
        key=key,
        parts=parts_now(parts),
        unrecorded=unrecorded_parts(content, where),
        taxonomy=saved_taxonomy(content, where),
        input_size=saved_size(content, where),
        weights=dict(weights),
    )


def unrecorded_parts(content: Mapping[str, Any], where: str) -> dict[str, str]:
    """Return why a file does not say how some parts were made, by name.

    Args:
        content: Content of the file.
        where: Name of the file for error messages.

    Raises:
        CheckpointError: The entry is not what training writes.
    """
    found = content.get(UNRECORDED_KEY, {})
    if not isinstance(found, Mapping) or not all(isinstance(text, str) for item in found.items() for text in item):
        raise CheckpointError(f"{where}: {UNRECORDED_KEY}: expected reasons by name, got {shown(found)}")
    return {name: "".join(sign for sign in reason if sign.isprintable())[:300] for name, reason in found.items()}


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


def saved_size(content: Mapping[str, Any], where: str) -> tuple[int, int]:
    """Return the (height, width) in pixels of a checkpoint's input.

    Args:
        content: Content of the checkpoint.
        where: Name of the file for error messages.

    Raises:
        CheckpointError: It is not what training writes.
    """
    saved = content["input_size"]
    if not isinstance(saved, list | tuple) or len(saved) != 2:
        raise CheckpointError(f"{where}: input_size: expected height and width, got {shown(saved)}")
    for side in saved:
        if type(side) is not int or not 0 < side <= _LARGEST_SIDE:
            raise CheckpointError(f"{where}: input_size: expected height and width, got {shown(side)}")
    return saved[0], saved[1]
