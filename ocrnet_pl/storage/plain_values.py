"""The content of a foreign file as plain values of bounded size: no objects, no cycles, limited depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ocrnet_pl.errors import CheckpointError

_DEEPEST = 32
_MOST_VALUES = 200_000
_LONGEST_TEXT = 20_000
_LARGEST_NUMBER = 2**63


def shown(value: Any) -> str:
    """Return a value as an error shows it: on one line, and short."""
    text = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def plain_values(value: Any, where: str) -> Any:
    """Return a copy of numbers, texts, lists and dictionaries.

    Args:
        value: The value from a checkpoint. Tuples become lists.
        where: Name of the file and the entry for error messages.

    Raises:
        CheckpointError: It contains anything else, or is nested too deeply or too large.
    """
    left = _MOST_VALUES

    def copy(value: Any, key: str, depth: int) -> Any:
        nonlocal left
        left -= 1
        if depth > _DEEPEST or left < 0:
            raise CheckpointError(f"{where}: nested too deeply, or too large")
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            if abs(value) >= _LARGEST_NUMBER:
                raise CheckpointError(f"{where}{key}: the number is too large")
            return value
        if isinstance(value, str):
            if len(value) > _LONGEST_TEXT:
                raise CheckpointError(f"{where}{key}: the text is too long")
            return value
        if isinstance(value, list | tuple):
            return [copy(item, f"{key}[{position}]", depth + 1) for position, item in enumerate(value)]
        if isinstance(value, Mapping):
            for name in value:
                if not isinstance(name, str | int) or len(str(name)) > _LONGEST_TEXT:
                    raise CheckpointError(f"{where}{key}: {shown(name)} is not a key")
            return {name: copy(item, f"{key}.{shown(name).strip(chr(39))}", depth + 1) for name, item in value.items()}
        raise CheckpointError(f"{where}{key}: expected numbers, texts, lists and dictionaries, got {shown(value)}")

    return copy(value, "", 0)
