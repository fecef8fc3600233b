"""Credentials in a config: found by their keys, and kept out of everything that a run writes and prints.

These are credentials: every text below ``storage_options``; texts below keys that say so, such as ``token``,
``api_key`` or ``headers``; in addresses, the password, and what a signed one has after its question mark. A reference
to an environment variable, ``${oc.env:NAME}``, reveals nothing and is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from enum import IntEnum
from typing import Any
from urllib.parse import quote

import yaml
from jsonargparse import Namespace

from ocrnet_pl.storage.interpolation import REFERENCE, resolved

MARKER = "<redacted>"
"""Shown in place of a credential."""

Replace = Callable[[str, str], Any]
"""Called with the dotted key of a credential and the credential; returns the replacement."""

_OPTIONS = "storage_options"
_NAMED_BY_USERS = frozenset({"rename", "shares", "sources"})
"""Below these, a key is the name of a category or of a source."""
_UNMISTAKABLE = re.compile(r"(?:^|_)(?:secret|password|passwd|passphrase|pwd|pin)$")
_SECRET = re.compile(
    r"(?:^|_)(?:(?:api|access|secret|account|private|shared)?_?key|token|credentials?|auth|authorization|headers|cookies?"
    r"|connection_?string|conn_str|sas|signature|(?:access_)?key_id)$"
)
_SCHEME = re.compile(r"(?:Basic|Bearer|Token) +", re.IGNORECASE)
_USER = re.compile(r"(?<=://)([^/\s:@]*:)([^/\s]+)(?=@)")
_TOKEN_AS_USER = re.compile(r"(?:(?<=https://)|(?<=http://))([^/\s:@]+)(?=@)")
_QUERY = re.compile(
    r"(?<=[?&])([\w.-]*(?:sig|signature|token|key|keyid|secret|password|credential)=)([^&\s#'\"]+)", re.IGNORECASE
)
_SHORTEST = 4
"""Shorter credentials are not searched for in texts: they would be found in every word."""

_NOT_YAML = (
    yaml.YAMLError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What the library raises, which converts values such as ``!!bool x`` and ``2024-99-99`` without checking them, and
calls itself as often as a text is nested.
"""


class _Place(IntEnum):
    """What a place of a config may contain."""

    PLAIN = 0
    OPTIONS = 1
    SECRET = 2
    UNMISTAKABLE = 3


def _below(place: _Place, parent: str, key: str) -> _Place:
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower().replace("-", "_")
    own = _Place.PLAIN
    if key == _OPTIONS:
        own = _Place.OPTIONS
    elif parent not in _NAMED_BY_USERS:
        own = _Place.UNMISTAKABLE if _UNMISTAKABLE.search(name) else own
        own = _Place.SECRET if _SECRET.search(name) else own
    return max(place, own)


def _is_reference(text: str) -> bool:
    """Return whether a text consists of references with harmless defaults, perhaps after a word for the scheme."""
    rest = REFERENCE.sub(lambda match: "" if match["default"] in (None, "", "null") else match[0], text)
    return rest != text and not _SCHEME.sub("", rest + " ").strip()


def _in_address(text: str, path: str, replace: Replace) -> str:
    def change(match: re.Match[str]) -> str:
        *before, secret = match.groups()
        return match[0] if _is_reference(secret) or secret == MARKER else f"{''.join(before)}{replace(path, secret)}"

    for pattern in (_USER, _TOKEN_AS_USER, _QUERY):
        text = pattern.sub(change, text)
    return text


def replace_secrets(
    value: Any, replace: Replace, path: str = "", parent: str = "", place: _Place = _Place.PLAIN
) -> Any:
    """Return a copy of a config, or of a part of one, in which every credential is replaced.

    Args:
        value: The config, or the part.
        replace: Returns the replacement of each credential.
        path: Dotted key of the part.
        parent: Last key of the path.
        place: What is known about the part.
    """
    if isinstance(value, Namespace | dict):
        items = vars(value) if isinstance(value, Namespace) else value
        changed = {
            key: replace_secrets(item, replace, f"{path}.{key}".lstrip("."), str(key), _below(place, parent, str(key)))
            for key, item in items.items()
        }
        if isinstance(value, dict):
            return changed
        copy = Namespace()
        vars(copy).update(changed)
        return copy
    if isinstance(value, list | tuple):
        return type(value)(replace_secrets(item, replace, path, parent, place) for item in value)
    if isinstance(value, str):
        if place is _Place.PLAIN:
            return _in_address(value, path, replace)
        return value if not value or value == MARKER or _is_reference(value) else replace(path, value)
    if place is _Place.UNMISTAKABLE and isinstance(value, int | float) and not isinstance(value, bool):
        return replace(path, str(value))
    return value


def redacted(value: Any) -> Any:
    """Return a copy of a config, or of a part of one, with :data:`MARKER` in place of every credential."""
    return replace_secrets(value, lambda path, secret: MARKER)


def in_environment(value: Any) -> tuple[Any, dict[str, str]]:
    """Return a copy of a config that refers to environment variables in place of its credentials, and those variables.

    Args:
        value: The config.
    """
    variables: dict[str, str] = {}

    def refer(path: str, secret: str) -> str:
        name = re.sub(r"\W", "_", f"OCRNET_PL_{path}").replace("_init_args", "").upper()
        number = 1
        # A reference whose default is a credential counts as one: it is resolved here.
        content = str(resolved(secret))
        while variables.setdefault(name if number == 1 else f"{name}_{number}", content) != content:
            number += 1
        return f"${{oc.env:{name if number == 1 else f'{name}_{number}'}}}"

    return replace_secrets(value, refer), variables


def secrets_in(value: Any, path: str = "") -> set[str]:
    """Return the credentials of a config, or of a part of one, that are long enough to be searched for in a text.

    Args:
        value: The config, or the part. Its references may have been replaced by their values.
        path: Dotted key of the part.
    """
    found: set[str] = set()

    def collect(path: str, secret: str) -> str:
        # An address among the options says which server cannot be reached; it is not a credential in itself.
        if not re.match(r"https?://", secret) or _in_address(secret, path, lambda *_: MARKER) != secret:
            found.update((secret, _SCHEME.sub("", secret)))
        return secret

    parts = path.split(".") if path else []
    place = _Place.PLAIN
    for parent, key in zip(["", *parts], parts, strict=False):
        place = _below(place, parent, key)
    replace_secrets(value, collect, path, parts[-1] if parts else "", place)
    return {secret for secret in found if len(secret) >= _SHORTEST}


def secrets_of_setting(path: str, text: str) -> set[str]:
    """Return the credentials in one setting, as a user wrote it: a scalar, or a part of a config as YAML."""
    try:
        value = yaml.safe_load(text)
    except _NOT_YAML:
        # The parser, which reads the setting as well, says what is wrong with it.
        value = text
    # The text as a whole as well, since it may be malformed.
    return secrets_in(value, path) | secrets_in(text, path)


def _forms(secret: str) -> Iterator[str]:
    """Yield the forms in which a text may show a credential."""
    yield from (secret, " ".join(secret.split()), repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe=""))


def hidden(text: str, secrets: Collection[str] = ()) -> str:
    """Return a text in which no credential can be read.

    Args:
        text: Text of a message.
        secrets: Credentials to search for; those in addresses are found in any case.
    """
    for form in sorted({form for secret in secrets for form in _forms(secret)}, key=len, reverse=True):
        text = text.replace(form, MARKER)
    return _in_address(text, "", lambda path, secret: MARKER)


def hidden_words(words: list[str], secrets: Collection[str] = ()) -> list[str]:
    """Return a command line in which no credential can be read.

    Args:
        words: The command line.
        secrets: Credentials to search for; those in addresses are found in any case.
    """
    shown = []
    key = ""
    for word in words:
        own, equals, value = word.partition("=") if word.startswith("--") else (key, "", word)
        found = secrets_of_setting(own.lstrip("-"), value) if not word.startswith("--") or equals else set()
        shown.append(hidden(word, {*secrets, *found}))
        key = word if word.startswith("--") and not equals else ""
    return shown
