"""What the parser's library finds out about a class, for the many command lines of one test process.

A command line is parsed once per process; the tests parse hundreds, each of which reads the source code and the
docstrings of the same classes again.
"""

from __future__ import annotations

import copy
from typing import Any

import jsonargparse._signatures as library

_found: dict[Any, list[Any]] = {}


def remember_signatures() -> None:
    """Let the library look at each class once; where it works in another way, it goes on as it does."""
    look_up = getattr(library, "get_signature_parameters", None)
    if look_up is None:
        return

    def remembered(owner: Any, method: str | None = None, *more: Any, **options: Any) -> list[Any]:
        key = owner, method
        if key not in _found:
            _found[key] = look_up(owner, method, *more, **options)
        return [copy.copy(parameter) for parameter in _found[key]]

    library.get_signature_parameters = remembered
