"""Finding files by names that a tool wrote in another way than the files are named."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

from ocrnet_pl.distributed.first_process import tell

_MOST_COMPARED = 20_000
"""Largest number of names among which the nearest one is looked for, which takes about a second."""


class NameFinder:
    """Finds names among those that exist, whatever a tool did to them.

    In this order: the name itself; Windows separators; URL encoding; accents stored in another way (archives from
    macOS); upper and lower case; folders in front of it that do not exist here, if others remain or if they repeat the
    folder that is searched; and for a path of another place, which is absolute or leads upwards, a base name that
    occurs only once. A name that fits several is not found. What was taken for what is said once per way.

    Args:
        names: The names that exist, with the separators of this system.
        place: Where they are, for messages.
    """

    def __init__(self, names: Iterable[str], place: str | os.PathLike[str] = "") -> None:
        self._names = list(names)
        self._exact = set(self._names)
        self._place = os.fspath(place)
        self._folder = folded(os.path.basename(os.path.abspath(self._place)))
        self._forms: dict[str, str | None] | None = None
        self._bases: dict[str, str | None] = {}
        self._said: set[str] = set()
        self._dropped: dict[str, str] = {}

    def find(self, name: str, *, folders: bool = True) -> str | None:
        """Return the existing name that is meant; None if there is none, or if it could be several.

        Args:
            name: The name as it is written.
            folders: Whether folders in front of it may be left out; if not, only the spelling may differ.
        """
        if name in self._exact:
            return name
        if "\0" in name:
            return None
        for spelling in _spellings(name):
            parts = _parts(spelling)
            found = self._of_form(os.sep.join(parts))
            if found is not None:
                return self._say(name, found)
        if folders:
            for spelling in _spellings(name):
                found = self._without_folders(_parts(spelling), elsewhere=_is_elsewhere(spelling))
                # Two names that only their folders tell apart are two files, of which at most one is here.
                if found is not None and self._dropped.setdefault(found, name) == name:
                    return self._say(name, found)
        return None

    def _without_folders(self, parts: list[str], *, elsewhere: bool) -> str | None:
        for start in range(1, len(parts)):
            found = self._of_form(os.sep.join(parts[start:]))
            # A base name alone says too little, unless the folder in front of it is the one that is searched.
            repeats = folded(parts[start - 1]) == self._folder
            if found is not None and (start < len(parts) - 1 or repeats or elsewhere):
                return found
        return self._bases.get(folded(parts[-1])) if elsewhere and parts else None

    def nearest(self, name: str) -> str | None:
        """Return the existing name that is most like a name; None if none is."""
        if len(self._names) > _MOST_COMPARED:
            return None
        parts = _parts(name)
        base = parts[-1] if parts else name
        whole = difflib.get_close_matches(os.sep.join(parts), self._names, 1, 0.75)
        if whole:
            return whole[0]
        by_base = {os.path.basename(one): one for one in self._names}
        close = difflib.get_close_matches(base, by_base, 1, 0.6)
        return by_base[close[0]] if close else None

    def _of_form(self, name: str) -> str | None:
        if name in self._exact:
            return name
        if self._forms is None:
            self._forms = {}
            for one in self._names:
                for key, table in ((folded(one), self._forms), (folded(os.path.basename(one)), self._bases)):
                    table[key] = None if key in table else one
        return self._forms.get(folded(name))

    def _say(self, name: str, found: str) -> str:
        reason = _difference(name, found)
        if os.path.normpath(name) != found and reason not in self._said:
            self._said.add(reason)
            where = f"{self._place}: " if self._place else ""
            tell(f"{where}{name!r:.200} is taken for {found!r:.200}, and others likewise ({reason})")
        return found


def folded(name: str) -> str:
    """Return a form of a name that does not depend on case and on how accents are stored."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def with_nearest(problem: str, nearest: str | None) -> str:
    """Return the text of a problem, with the nearest thing that exists."""
    return problem if nearest is None else f"{problem}; the nearest is {nearest!r:.200}"


def _spellings(name: str) -> Iterator[str]:
    yield name
    forward = name.replace("\\", "/")
    if forward != name:
        yield forward
    if "%" in forward:
        yield unquote(forward)
    # Addresses of files that Label Studio serves.
    if "?d=" in forward:
        yield unquote(forward.partition("?d=")[2])


def _parts(name: str) -> list[str]:
    # As a path on this system, but without what stands only for a place: `C:`, `.`, `..` and the root.
    parts = os.path.normpath(name).split(os.sep)
    return [part for part in parts if part not in ("", os.curdir, os.pardir) and not part.endswith(":")]


def _is_elsewhere(name: str) -> bool:
    return name.startswith(("/", os.pardir)) or name[1:2] == ":"


def _difference(name: str, found: str) -> str:
    if "\\" in name and "\\" not in found:
        return "it has the separators of Windows"
    if "%" in name and "%" not in found:
        return "it is URL-encoded"
    last, own = os.path.basename(name), os.path.basename(found)
    if unicodedata.normalize("NFC", last) == unicodedata.normalize("NFC", own) != last == own:
        return "accents are stored differently"
    if last != own:
        same = unicodedata.normalize("NFC", last) == unicodedata.normalize("NFC", own)
        return "accents are stored differently" if same else "upper and lower case differ"
    return "the folders in front of it differ"
