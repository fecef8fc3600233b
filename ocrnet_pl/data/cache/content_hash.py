"""A hash of everything that a source contains."""

from __future__ import annotations

import os
from dataclasses import fields, is_dataclass
from functools import partial
from hashlib import blake2b
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor

from ocrnet_pl.data.sources.base import Source


def source_digest(source: Source, *options: Any, root: str | None = None) -> str:
    """Return a hash of everything a source contains, paths, options and annotations, the same in every process.

    Functions and classes count by their names. Objects of a class whose ``in_digest`` is False do not count.

    Args:
        source: The source.
        options: Further values that distinguish the source.
        root: Folder of the data, which does not count, so that the hash is the same wherever the folder is; None if
            all of each path counts.
    """
    identity = blake2b(repr(options).encode(), digest_size=12)
    _digest(source, identity, set(), root)
    return identity.hexdigest()


def _digest(value: Any, into: blake2b, seen: set[int], root: str | None) -> None:
    """Feed everything that a source contains into a hash, the same in every process."""
    into.update(type(value).__qualname__.encode() + b"\0")
    if isinstance(value, np.ndarray):
        into.update(f"{value.dtype.str}{value.shape}".encode())
        into.update(np.ascontiguousarray(value).view(np.uint8).data if value.size else b"")
    elif isinstance(value, Tensor):
        _digest(value.as_subclass(Tensor).detach().cpu().numpy(), into, seen, root)
    elif value is None or isinstance(value, str | bytes | int | float | os.PathLike):
        text = repr(value)
        into.update((text.replace(root, "") if root else text).encode())
    elif id(value) in seen:
        pass
    elif isinstance(value, dict):
        seen.add(id(value))
        for key, item in value.items():
            _digest(key, into, seen, root)
            _digest(item, into, seen, root)
    elif isinstance(value, set | frozenset):
        into.update(repr(sorted(map(repr, value))).encode())
    elif isinstance(value, list | tuple):
        seen.add(id(value))
        into.update(str(len(value)).encode())
        for item in value:
            _digest(item, into, seen, root)
    elif is_dataclass(value):
        seen.add(id(value))
        for field in fields(value):
            _digest(getattr(value, field.name), into, seen, root)
    elif isinstance(value, partial):
        for held in (value.func, value.args, value.keywords):
            _digest(held, into, seen, root)
    elif hasattr(value, "__dict__") and not hasattr(value, "__qualname__") and not isinstance(value, ModuleType):
        # Callable objects are among these: they may decide what a sample becomes.
        if getattr(type(value), "in_digest", True):
            seen.add(id(value))
            _digest(vars(value), into, seen, root)
    else:
        into.update(getattr(value, "__qualname__", getattr(value, "__name__", "")).encode())
