"""One clear line for a mistake in a config, with the file and the closest valid key."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ocrnet_pl.data.readers import yaml_text
from ocrnet_pl.storage.ordinary_files import read_text

_OWNER = re.compile(r'Parser key "([^"]+)"')
_UNKNOWN_KEY = re.compile(r"(?:Group '([^']+)' )?does not accept option '([^']+)'|[Uu]nrecognized arguments?:? +(\S+)")
_UNKNOWN_ARGUMENT = re.compile(r"Option '([^']+)' is not accepted")
_UNKNOWN_CLASS = re.compile(
    r"Expected a dot import path string: ([\w.]+)|Import path ([\w.]+)|[Uu]nexpected import path format: ([\w.]+)"
)
_WRONG_TYPE = re.compile(r"Expected an? (?:<class '([^']+)'>|(\S[^\n]*?))\. Got value: (.*)")
_UNION = re.compile(r"Subtypes: \[(.*)\]\n(?:.*\n)*?\s*Given value: (.*)")
_PLAIN_TYPE = re.compile(r"\b(?:int|float|bool|str|list|tuple|dict|Sequence|Literal)\b")
_LINK = re.compile(r"Call to compute_fn of link .* failed: ", re.DOTALL)
_CAUSE = re.compile(r"^ *- (?!Expected an? )(.*)$", re.MULTILINE)
_PLUMBING = re.compile(r"\.?\b(?:init_args|class_path|dict_kwargs)\b")

_PARTS = ("data", "model", "trainer")


class DuplicateKeyError(ValueError):
    """A key that stands twice in one mapping of a YAML file, where the last would win silently."""


class Entry(NamedTuple):
    """One setting, as a user wrote it.

    Attributes:
        where: ``config 'x.yaml', line 3: ``, or nothing for the command line.
        path: Dotted keys, without ``init_args``; a class's own path has the key of what it is the class of.
        value: Of a scalar; nothing for a mapping or a list.
        is_class: The value is a class path.
    """

    where: str
    path: str
    value: str
    is_class: bool


def find_duplicate(root: Any) -> tuple[str, int] | None:
    """Return the first key that stands twice in one mapping of a YAML tree, and its line, or None."""
    pending: list[Any] = [root]
    looked_at: set[int] = set()
    while pending:
        node = pending.pop()
        if id(node) in looked_at:
            continue  # an alias stands for it as well
        looked_at.add(id(node))
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                name = str(key.value)
                if name in seen:
                    return name, key.start_mark.line + 1
                seen.add(name)
                pending.append(value)
        elif isinstance(node, yaml.SequenceNode):
            pending.extend(node.value)
    return None


def config_files(words: list[str]) -> Iterator[str]:
    """Yield the config files that a command line names."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("--config", "-c"):
            yield following
        elif word.startswith("--config="):
            yield word.partition("=")[2]


def check_files(words: list[str]) -> None:
    """Check that the config files of a command line exist and are sound YAML.

    Raises:
        FileNotFoundError: A file is absent.
        ValueError: A file is not YAML or no ordinary file, its aliases unfold to too much, or a key stands twice.
    """
    for name in config_files(words):
        path = Path(name)
        if not os.path.exists(path):
            near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], n=1, cutoff=0.5)
            hint = f"; did you mean {str(path.parent / near[0])!r}?" if near else ""
            raise FileNotFoundError(f"config {name!r}: no such file{hint}")
        root = _tree(name)
        for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
            if key.value in _PARTS and isinstance(value, yaml.SequenceNode):
                line = value.start_mark.line + 1
                raise ValueError(f"config {name!r}, line {line}: {key.value}: expected keys, found a list")
        duplicate = find_duplicate(root)
        if duplicate:
            raise DuplicateKeyError(f"config {name!r}, line {duplicate[1]}: the key {duplicate[0]!r} stands twice")


def _tree(name: str) -> Any:
    """Return the YAML tree of a config file."""
    try:
        return yaml_text.compose(read_text(name, "config", yaml_text.MOST_BYTES))
    except yaml_text.YamlError as error:
        where = f", line {error.line}" if error.line else ""
        raise ValueError(f"config {name!r}{where}: {error}") from error


def entries(words: list[str]) -> list[Entry]:
    """Return what a command line and its config files set; what overrides stands before what it overrides."""
    found = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--"):
            key, _, value = word[2:].partition("=")
            path = _PLUMBING.sub("", key)
            found.append(Entry("", path, value or following, key.endswith("class_path")))
    for name in reversed(list(config_files(words))):
        if Path(name).is_file():
            found += _entries_of(_tree(name), name, "")
    return found


def _entries_of(node: Any, file: str, path: str) -> Iterator[Entry]:
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _entries_of(child, file, path)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = str(key.value).rstrip("+")
            own = path if _PLUMBING.fullmatch(name) else f"{path}.{name}".lstrip(".")
            scalar = str(value.value) if isinstance(value, yaml.ScalarNode) else ""
            if name != "init_args":
                where = f"config {file!r}, line {key.start_mark.line + 1}: "
                yield Entry(where, own, scalar, name == "class_path")
            yield from _entries_of(value, file, own)


def cause(message: str) -> str:
    """Return what went wrong in building a part, without what the parser says around it."""
    message = _LINK.sub("", message)
    if "Does not validate against any" in message and (match := _CAUSE.search(message)):
        return match.group(1)
    return message


def _arguments_of(class_path: str, known: Iterable[str]) -> list[str]:
    """Return the constructor arguments of a class given by path or by the short name of a known one."""
    candidates = [class_path, *(path for path in known if path.rpartition(".")[2] == class_path)]
    for candidate in candidates:
        module, _, name = candidate.rpartition(".")
        try:
            target = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError):
            continue
        return [p for p in inspect.signature(target).parameters if p != "self"]
    return []


def _closest(name: str, valid: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` with the closest valid name, or nothing if none is close."""
    valid = list(valid)
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    if not near and "." in name:
        leaf = name.rpartition(".")[2]
        near = [v for v in valid if difflib.get_close_matches(leaf, [v.rpartition(".")[2]], cutoff=0.8)][:1]
    return f"; did you mean {near[0]!r}?" if near else ""


def _readable(types: str) -> str:
    """Shorten the parser's names of types: ``<class 'int'>, <class 'NoneType'>`` is ``int or null``."""
    plain = re.sub(r"<class '([^']+)'>", r"\1", types).replace("NoneType", "null")
    plain = re.sub(r"\b(?:\w+\.)*Sequence\b", "list", plain)
    plain = re.sub(r"\b(?:\w+\.)*Literal\[([^\]]*)\]", r"\1", plain)
    parts = re.split(r", (?![^\[]*\])", plain)
    return " or ".join(part.rpartition(".")[2] if "[" not in part else part for part in parts)


def _where(given: list[Entry], path: str, value: str = "") -> str:
    """Return where a setting stands; nothing if the command line or no file has it."""
    return next((entry.where for entry in given if entry.path == path and value in entry.value), "")


def place_of(path: str, value: str, words: list[str]) -> str:
    """Return the key of a setting, after the file and the line that it comes from.

    Args:
        path: Dotted keys, as the parser has them.
        value: Of the setting.
        words: The command line.
    """
    key = _PLUMBING.sub("", path)
    return f"{_where(entries(words), key, value)}{key}"


def _unknown_key(key: str, keys: list[str], given: list[Entry]) -> str:
    """Blame the first part of a dotted key that is not the beginning of any valid one."""
    prefixes = {".".join(valid.split(".")[:depth]) for valid in keys for depth in range(1, valid.count(".") + 2)}
    parts = key.split(".")
    wrong = next((p for n in range(1, len(parts)) if (p := ".".join(parts[:n])) not in prefixes), key)
    level = [prefix for prefix in prefixes if prefix.count(".") == wrong.count(".")]
    hint = _closest(wrong, sorted(level)) or _closest(key, keys)
    return f"{_where(given, wrong)}there is no key {wrong!r}{hint}"


def _unknown_argument(argument: str, classes: list[str], given: list[Entry]) -> str:
    """Name the part whose class does not take the argument."""
    nowhere = Entry("", "", "", False)
    entry = next((e for e in given if e.path.rpartition(".")[2] == argument and "." in e.path), nowhere)
    owner = entry.path.rpartition(".")[0]
    of_owner = [e.value for e in given if e.path == owner and e.value and (e.is_class or not e.where)]
    valid = _arguments_of(of_owner[0], classes) if of_owner else []
    of = f" of {of_owner[0].rpartition('.')[2]}" if of_owner else ""
    hint = _closest(argument, valid) or (f"; it has {', '.join(valid)}" if valid else "")
    return f"{entry.where}{owner + ': ' if owner else ''}there is no option {argument!r}{of}{hint}"


def explain(message: str, keys: Iterable[str], classes: Iterable[str], words: list[str]) -> str:
    """Shorten a parser's message to one line.

    Args:
        message: Of any length.
        keys: The valid dotted keys.
        classes: Import paths of the project's own classes.
        words: The command line.

    Returns:
        One line that names the file, the key and, for an unknown key or class, the closest valid one.
    """
    keys, classes, given = list(keys), list(classes), entries(words)
    owner = _PLUMBING.sub("", match.group(1)) if (match := _OWNER.search(message)) else ""
    if owner and "." not in owner:
        # Of a class's arguments the parser names only the last part.
        owner = next((entry.path for entry in given if entry.path.endswith(f".{owner}")), owner)

    if match := _UNKNOWN_KEY.search(message):
        group, option, word = match.groups()
        key = word.lstrip("-").partition("=")[0] if word else f"{group}.{option}" if group else option
        return _unknown_key(_PLUMBING.sub("", key), keys, given)
    if match := _UNKNOWN_ARGUMENT.search(message):
        return _unknown_argument(match.group(1).rpartition(".")[2], classes, given)
    if (match := _UNION.search(message)) and _PLAIN_TYPE.search(match.group(1)):
        return f"{_where(given, owner)}{owner}: expected {_readable(match.group(1))}, got {match.group(2).strip()!r}"
    if match := _UNKNOWN_CLASS.search(message):
        name = next(filter(None, match.groups()))
        hint = _closest(name.rpartition(".")[2], [path.rpartition(".")[2] for path in classes])
        return f"{_where(given, owner, name)}{owner}: there is no class {name!r}{hint}"
    if match := _WRONG_TYPE.search(message):
        expected, value = match.group(1) or match.group(2), match.group(3).strip()
        return f"{_where(given, owner)}{owner}: expected {_readable(expected)}, got {value!r}"
    return (_where(given, owner) if owner else "") + " ".join(message.split())
