"""References to environment variables in a config, as OmegaConf has them: ``${oc.env:NAME}``, ``${oc.env:NAME,other}``.

They are resolved when a run is built, and never before. The config itself keeps them as they were written, so that what
a run saves contains no credentials, and works elsewhere with the values that are set there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

REFERENCE = re.compile(r"\$\{oc\.env:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:,(?P<default>[^{}]*))?\}")


class InterpolationError(ValueError):
    """A reference that cannot be resolved.

    Attributes:
        path: Dotted key in the config.
        text: The text that contains the reference.
    """

    def __init__(self, problem: str, path: str, text: str) -> None:
        super().__init__(problem)
        self.path = path
        self.text = text


def each_text(value: Any, change: Callable[[str, str], Any], path: str = "") -> Any:
    """Return a copy of a config, or of a part of one, in which every text and path is replaced.

    Args:
        value: The config, or the part.
        change: Called with the dotted key of a text and the text; returns the replacement.
        path: Dotted key of the part.
    """
    if isinstance(value, Namespace):
        copy = Namespace()
        vars(copy).update(each_text(vars(value), change, path))
        return copy
    if isinstance(value, dict):
        return {key: each_text(item, change, f"{path}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(each_text(item, change, path) for item in value)
    if isinstance(value, str):
        return change(path, value)
    if isinstance(value, Path):
        return type(value)(change(path, str(value)))
    return value


def resolved(value: Any, path: str = "") -> Any:
    """Return a copy of a config, or of a part of one, in which references are replaced by the variables' values.

    Args:
        value: The config, or the part.
        path: Dotted key of the part.

    Raises:
        InterpolationError: A variable is not set and the reference has no default, or the reference is malformed.
    """
    return each_text(value, _resolved_text, path)


def _resolved_text(path: str, text: str) -> str | None:
    if "${oc." not in text:
        return text
    whole = REFERENCE.fullmatch(text)
    if whole and whole["default"] == "null" and whole["name"] not in os.environ:
        return None

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match["name"], match["default"])
        if found is None:
            raise InterpolationError(
                f"the environment variable {match['name']!r} is not set; set it, or give a default: "
                f"${{oc.env:{match['name']},DEFAULT}}",
                path,
                text,
            )
        return found

    if "${oc." in REFERENCE.sub("", text):
        raise InterpolationError(
            f"{text!r} is not a reference; write ${{oc.env:NAME}} or ${{oc.env:NAME,DEFAULT}}", path, text
        )
    return REFERENCE.sub(value, text)
