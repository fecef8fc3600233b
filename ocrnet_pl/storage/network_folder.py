"""A network as a folder: ``model.safetensors`` with the weights, and ``network.json`` with all else; no pickle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ocrnet_pl.errors import CheckpointError, one_line
from ocrnet_pl.storage.files import complete_file
from ocrnet_pl.storage.plain_values import plain_values, shown
from ocrnet_pl.storage.unfinished import remove_abandoned, unfinished_path

WEIGHTS = "model.safetensors"
DESCRIPTION = "network.json"
CARD, PICTURES = "README.md", "pictures"
"""The page that introduces the network, and the folder of its pictures."""

_FORMAT = 1
_LARGEST_DESCRIPTION = 2**24
"""Largest number of bytes of ``network.json``; ten thousand categories take a tenth of it."""
_TYPES = {str(kind).removeprefix("torch."): kind for kind in (torch.float32, torch.bfloat16, torch.float16)}
"""Types of the numbers that a network computes with, by name."""


def type_name(kind: torch.dtype) -> str:
    """Return the name of the type of the numbers that a network computes with.

    Raises:
        ValueError: A network of this type is not saved.
    """
    name = str(kind).removeprefix("torch.")
    if name not in _TYPES:
        raise ValueError(f"a network of {name} cannot be saved; turn it into one of {', '.join(_TYPES)} first")
    return name


def write_network(
    folder: str | Path,
    description: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    overwrite: bool,
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Write a network's folder, which appears when it is complete.

    Args:
        folder: Path of a folder that does not exist or is empty.
        description: What ``network.json`` contains, as plain values.
        weights: The weights by name.
        overwrite: Whether the folder of another network may be replaced.
        files: Content of the files of its page, by their paths in the folder; None for no page.

    Raises:
        FileExistsError: There is something else, or a network that is not to be replaced.
        ValueError: A weight is no tensor.
    """
    folder = Path(folder)
    _refuse_taken(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder.parent)
    unfinished = unfinished_path(folder)
    before = unfinished_path(folder.with_name(f"{folder.name}.before"))
    try:
        unfinished.mkdir()
        _write_weights(unfinished / WEIGHTS, weights)
        with complete_file(unfinished / DESCRIPTION, durable=True) as temporary:
            text = json.dumps({"format": _FORMAT, **description}, indent=2)
            temporary.write_text(text + "\n", encoding="utf-8")
        for name, content in (files or {}).items():
            (unfinished / name).parent.mkdir(exist_ok=True)
            (unfinished / name).write_bytes(content)
        if folder.exists():
            folder.rename(before)
        try:
            unfinished.rename(folder)
        except OSError:
            if before.exists():
                before.rename(folder)
            raise
    except OSError as error:
        # Nobody knows the other name.
        if error.filename == str(unfinished):
            error.filename = str(folder)
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)


def _refuse_taken(folder: Path, overwrite: bool) -> None:
    where = f"network {str(folder)!r}"
    if folder == Path():
        # An empty path is this, too.
        raise FileExistsError(f"{where}: it is the folder that this was started in; give the path of a new folder")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise FileExistsError(f"{where}: it exists, and is no folder; give another path")
    names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    if names and DESCRIPTION not in names:
        raise FileExistsError(f"{where}: the folder contains something else, such as {min(names)!r}; give another path")
    if names - {DESCRIPTION, WEIGHTS, CARD, PICTURES}:
        other = min(names - {DESCRIPTION, WEIGHTS, CARD, PICTURES})
        raise FileExistsError(f"{where}: beside a network there is {other!r}; move it away, or give another path")
    if names and not overwrite:
        raise FileExistsError(f"{where}: there is a network already; give another path, or overwrite=True")


def _write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    # The format has no strides and no weights of two names: both are given back by the network that is built.
    whole: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name}: expected a tensor, got {shown(value)}, which {WEIGHTS} cannot contain")
        value = value.detach().cpu().contiguous()
        place = value.untyped_storage().data_ptr()
        whole[name] = value.clone() if place in seen else value
        seen.add(place)
    with complete_file(path, durable=True) as temporary:
        save_file(whole, temporary, metadata={"format": "pt"})


def read_description(folder: str | Path) -> dict[str, Any]:
    """Return the content of a folder's ``network.json`` as plain values, with its ``dtype`` as one of torch.

    Raises:
        FileNotFoundError: There is no such folder, or one of its two files is absent.
        CheckpointError: It is damaged, or of another version.
    """
    where = f"network {str(folder)!r}"
    if not str(folder):
        # The current folder would be read.
        raise FileNotFoundError(f"{where}: the path is empty; give that of a folder")
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{where}: no such folder" if not Path(folder).exists() else f"{where}: it is a file")
    for name in (DESCRIPTION, WEIGHTS):
        if not (Path(folder) / name).is_file():
            raise FileNotFoundError(f"{where}: there is no file {name}; OCRNet.save writes both")
    path = Path(folder) / DESCRIPTION
    where = f"{where}: {DESCRIPTION}"
    size = path.stat().st_size
    if size > _LARGEST_DESCRIPTION:
        raise CheckpointError(f"{where}: {size:,} bytes are too large for the description of a network")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        reason = one_line(error)[:200]
        raise CheckpointError(f"{where}: damaged, it is not valid JSON: {reason}") from error
    content = plain_values(content, where)
    if not isinstance(content, dict):
        raise CheckpointError(f"{where}: expected a dictionary, got {shown(content)}")
    if content.get("format") != _FORMAT or isinstance(content["format"], bool):
        raise CheckpointError(
            f"{where}: format: this version reads {_FORMAT}, got {shown(content.get('format'))}; install the version "
            "of ocrnet_pl that wrote it"
        )
    kind = content.get("dtype")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise CheckpointError(f"{where}: dtype: expected one of {', '.join(_TYPES)}, got {shown(kind)}")
    return content | {"dtype": _TYPES[kind]}


def read_weights(folder: str | Path, map_location: str | torch.device = "cpu") -> dict[str, Tensor]:
    """Return the weights in a folder by name; nothing in the file is executed.

    Args:
        folder: Path of the folder.
        map_location: Device for the weights.

    Raises:
        CheckpointError: The file is damaged, or its header does not describe its content.
    """
    from safetensors.torch import load_file

    try:
        return dict(load_file(Path(folder) / WEIGHTS, device=str(map_location)))
    except Exception as error:  # A forged file can raise anything.
        reason = one_line(error)[:200]
        raise CheckpointError(f"network {str(folder)!r}: {WEIGHTS}: damaged, or not complete: {reason}") from error
