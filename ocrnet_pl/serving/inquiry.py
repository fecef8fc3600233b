"""What a request asks for, read from its query and its headers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ocrnet_pl.errors import UsageError
from ocrnet_pl.taxonomy import names_in

Kind = Literal["json", "png"]
"""The kinds of answers."""
_MEDIA: dict[Kind, tuple[str, ...]] = {
    "json": ("application/json", "application/*", "*/*"),
    "png": ("image/png", "image/*", "*/*"),
}
"""The media types that stand for each kind."""
_NUMBER = re.compile(r"[0-9]*\.?[0-9]+(?:[eE]-?[0-9]+)?")
_KEYS = ("format", "score", "classes", "masks")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_SHOWN = 100


class NotAcceptable(ValueError):
    """The client takes no kind of answer that there is."""


@dataclass(frozen=True)
class Inquiry:
    """What is wanted of an image's prediction.

    Attributes:
        kind: ``json`` for numbers, ``png`` for the drawn image.
        score: Smallest score of an object, 0 to 1.
        classes: Names of the classes that are wanted; empty for all.
        masks: Whether each object of a JSON answer gets its mask, as COCO's run lengths.
    """

    kind: Kind = "json"
    score: float = 0.0
    classes: tuple[str, ...] = ()
    masks: bool = False

    @classmethod
    def parse(
        cls, given: Iterable[tuple[str, str]], accept: str, names: Sequence[str], default_score: float
    ) -> Inquiry:
        """Read a request's query, which comes before its ``Accept`` header.

        Args:
            given: The parameters ``format``, ``score``, ``classes`` and ``masks``, each optional, with their values.
            accept: The header; empty for none.
            names: Names of the network's classes.
            default_score: The score unless one is given.

        Raises:
            UsageError: A parameter is unknown, given twice, or has no valid value.
            NotAcceptable: Neither JSON nor PNG is accepted.
        """
        query: dict[str, str] = {}
        for key, value in given:
            if key not in _KEYS:
                raise UsageError(f"{key[:_SHOWN]!r}: there is no such parameter; there are {', '.join(_KEYS)}")
            if key in query:
                raise UsageError(f"{key}: it is given twice; leave one out")
            query[key] = value
        kind = query.get("format") or _accepted(accept)
        if kind not in ("json", "png"):
            raise UsageError(f"format: expected json or png, got {kind[:_SHOWN]!r}")
        wanted = names_in(query["classes"]) if "classes" in query else ()
        for name in wanted:
            if name not in names:
                known = ", ".join(names)
                raise UsageError(f"classes: there is no class {name[:_SHOWN]!r}; the network knows {known:.300}")
        masks = query.get("masks", "false").lower()
        if masks not in _TRUTH:
            raise UsageError(f"masks: expected true or false, got {masks[:_SHOWN]!r}")
        return cls("png" if kind == "png" else "json", _score(query.get("score"), default_score), wanted, _TRUTH[masks])


def _score(text: str | None, default: float) -> float:
    if text is None:
        return default
    # Python also takes 0_1, and the digits of all scripts.
    score = float(text) if _NUMBER.fullmatch(text) else -1.0
    if not 0 <= score <= 1:
        raise UsageError(f"score: expected a number from 0 to 1, got {text[:_SHOWN]!r}")
    return score


def _accepted(accept: str) -> Kind:
    """Return the kind of answer that an ``Accept`` header prefers; of equals, the first.

    What names a kind more closely counts: ``application/json;q=0, */*`` is everything but JSON (RFC 9110, 12.5.1).
    """
    found: dict[Kind, tuple[int, float]] = {}
    for part in accept.split(","):
        media, *options = (word.strip().lower() for word in part.split(";"))
        quality = next((_quality(each[2:]) for each in options if each.startswith("q=")), 1.0)
        closeness = 2 - media.count("*")
        for kind, names in _MEDIA.items():
            if media in names and closeness > found.get(kind, (-1, 0.0))[0]:
                found[kind] = closeness, quality
    if not accept.strip():
        return "json"
    kinds = [kind for kind, (_, quality) in found.items() if quality > 0]
    if not kinds:
        raise NotAcceptable("Accept: there are answers in application/json and image/png only")
    return max(kinds, key=lambda kind: found[kind][1])


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
