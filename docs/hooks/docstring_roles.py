"""Lets mkdocstrings show the roles that docstrings name things by, such as :class:`Sample`, as code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:\w+:)?\w+:`~?([^`<]*?)`")


class DocstringRoles(Extension):
    """Replaces the roles by code."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring of an object that was read."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(r"`\1`", obj.docstring.value)
