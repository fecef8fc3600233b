"""Values from annotation files: what counts as a number, and how a value is shown in a message."""

from __future__ import annotations

import reprlib
from typing import Any, TypeGuard

MOST = 1e9
"""Coordinates with a larger absolute value, in pixels, are mistakes.

It is far below the point where a sum of two of them would exceed float32.
"""

_WHOLE = 1 << 63
_DIGITS = 40
_YES = ("1", "1.0", "true", "t", "yes", "y")
_NO = ("0", "0.0", "false", "f", "no", "n", "none", "null", "unspecified", "")
_WORDS = dict.fromkeys(_YES, True) | dict.fromkeys(_NO, False)
_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother, _repr.maxlong = 3, 60, 60, 60


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a finite number of absolute value up to :data:`MOST`; True counts as 1, False as 0."""
    return isinstance(value, int | float) and -MOST <= value <= MOST


def is_whole(value: Any) -> TypeGuard[int]:
    """Return whether a value is an integer that 64 bits hold."""
    return isinstance(value, int) and -_WHOLE <= value < _WHOLE


def is_text(value: Any) -> TypeGuard[str]:
    """Return whether a value is text that files and messages can contain: not empty, no NUL, no half of a character."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can contain one of the two halves that make up a character in UTF-16
        return False
    return True


def as_whole(value: Any) -> int | None:
    """Return an integer that 64 bits hold, written as 3, 3.0, "3" or, for 1, true; None for another value."""
    if isinstance(value, str) and len(value) <= _DIGITS:
        try:
            value = float(value) if "." in value else int(value)
        except ValueError:
            return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return int(value) if is_whole(value) else None


def as_number(value: Any) -> float | None:
    """Return a number (:func:`is_number`), also if it is written as text; None for another value."""
    if isinstance(value, str) and len(value) <= _DIGITS:
        try:
            value = float(value)
        except ValueError:
            return None
    return value if is_number(value) else None


def as_flag(value: Any) -> bool | None:
    """Return what a flag says: 0, 1, 0.0, true, "0", "yes", "False", ...; None if it is neither yes nor no.

    Nothing, an empty text and "Unspecified" (as in the files of several tools) say no.
    """
    if value is None:
        return False
    if isinstance(value, str):
        return _WORDS.get(value.strip().lower())
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


def shown(value: Any) -> str:
    """Return a value for a message: at most 60 characters, however large or deeply nested it is."""
    try:
        return _repr.repr(value)[:60]
    except ValueError:
        return "an integer of thousands of digits"
