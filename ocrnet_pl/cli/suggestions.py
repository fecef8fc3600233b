"""The valid name that a mistyped one may stand for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(name: str, valid: Iterable[str], cutoff: float = 0.6, same: bool = False) -> str:
    """Return ``; did you mean 'x'?`` with the closest valid name, or nothing if none is close.

    Args:
        name: The name that is not valid.
        valid: Those that are.
        cutoff: How much alike the two have to be, between 0 and 1.
        same: The name itself may be the answer, since it stood in a wrong place.
    """
    near = [each for each in difflib.get_close_matches(name, list(valid), n=2, cutoff=cutoff) if same or each != name]
    return f"; did you mean {near[0]!r}?" if near else ""


def did_you_mean(key: str, valid: Iterable[str]) -> str:
    """Return a hint at the valid dotted key that an unknown one may stand for, or nothing.

    A key beside it whose name is nearly the same comes first, then the same name elsewhere, nearby if possible, then
    names that are less alike.

    Args:
        key: The unknown key.
        valid: All valid keys.
    """
    section, _, name = key.rpartition(".")
    every = sorted({each for each in valid if each != key})
    prefixes = {".".join(parts[: n + 1]) for each in every for parts in [each.split(".")] for n in range(len(parts))}
    beside = {each.rpartition(".")[2]: each for each in sorted(prefixes - {key}) if each.rpartition(".")[0] == section}
    elsewhere = [each for each in every if each.rpartition(".")[2] == name]
    elsewhere.sort(key=lambda each: (not each.startswith(f"{section.partition('.')[0]}."), each.count("."), each))
    leaves = {each.rpartition(".")[2]: each for each in reversed(every)}
    for names, cutoff in (
        (beside, 0.85),
        ({name: elsewhere[0]} if elsewhere else {}, 1.0),
        (beside, 0.6),
        (leaves, 0.8),
    ):
        near = difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)
        if near:
            return f"; did you mean {names[near[0]]!r}?"
    return ""
