"""One clear line for a mistake in a config, with the file and the closest valid key."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

_OWNER = re.compile(r'Parser key "([^"]+)"')
_UNKNOWN_KEY = re.compile(r"does not accept option '([^']+)'|[Uu]nrecognized arguments?:? +(\S+)")
_UNKNOWN_ARGUMENT = re.compile(r"Option '([^']+)' is not accepted")
_GIVEN_CLASS = re.compile(r"class_path[= ]'([\w.]+)'")
_UNKNOWN_CLASS = re.compile(
    r"Expected a dot import path string: ([\w.]+)|Import path ([\w.]+)|[Uu]nexpected import path format: ([\w.]+)"
)
_WRONG_TYPE = re.compile(r"Expected an? (?:<class '([^']+)'>|(\S[^.\n]*))\. Got value: (.*)")


class DuplicateKeyError(ValueError):
    """A key that stands twice in one mapping of a YAML file, where the last would win silently."""


def find_duplicate(text: str) -> tuple[str, int] | None:
    """Return the first key that stands twice in one mapping of a YAML text, and its line, or None."""
    pending: list[Any] = [yaml.compose(text, Loader=yaml.SafeLoader)]
    while pending:
        node = pending.pop()
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if key.value in seen:
                    return key.value, key.start_mark.line + 1
                seen.add(key.value)
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
        ValueError: A file is not YAML, or a key stands twice.
    """
    for name in config_files(words):
        path = Path(name)
        if not path.is_file():
            near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], n=1, cutoff=0.5)
            hint = f"; did you mean {str(path.parent / near[0])!r}?" if near else ""
            raise FileNotFoundError(f"config {name!r}: no such file{hint}")
        text = path.read_text(encoding="utf-8")
        try:
            duplicate = find_duplicate(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f", line {mark.line + 1}" if mark else ""
            raise ValueError(f"config {name!r}{where}: not valid YAML: {getattr(error, 'problem', error)}") from error
        if duplicate:
            raise DuplicateKeyError(f"config {name!r}, line {duplicate[1]}: the key {duplicate[0]!r} stands twice")


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


def _closest(name: str, valid: list[str]) -> str:
    """Return ``; did you mean 'x'?`` with the closest valid name, or nothing if none is close."""
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    if not near and "." in name:
        leaf = name.rpartition(".")[2]
        near = [v for v in valid if difflib.get_close_matches(leaf, [v.rpartition(".")[2]], cutoff=0.8)][:1]
    return f"; did you mean {near[0]!r}?" if near else ""


def _line_of(key: str, words: list[str], value: str = "") -> str:
    """Return where a config file has the key, as ``config 'x.yaml', line 3: ``, or nothing."""
    leaf = key.rpartition(".")[2].rstrip("+")
    pattern = re.compile(rf"^\s*-?\s*['\"]?{re.escape(leaf)}['\"]?\+?\s*:.*{re.escape(value)}")
    for name in config_files(words):
        path = Path(name)
        if not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if pattern.match(line):
                return f"config {name!r}, line {number}: "
    return ""


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
    keys, classes = list(keys), list(classes)
    owner = match.group(1) if (match := _OWNER.search(message)) else ""

    if match := _UNKNOWN_KEY.search(message):
        key = next(filter(None, match.groups())).lstrip("-").partition("=")[0]
        key = re.sub(r"\.(class_path|init_args)(\..*)?$", "", key)
        return f"{_line_of(key, words)}there is no key {key!r}{_closest(key, keys)}"
    if match := _UNKNOWN_ARGUMENT.search(message):
        given = _GIVEN_CLASS.search(message)
        valid = _arguments_of(given.group(1), classes) if given else []
        argument = match.group(1)
        of = f" of {given.group(1).rpartition('.')[2]}" if given else ""
        hint = _closest(argument, valid) or (f"; it has {', '.join(valid)}" if valid else "")
        return f"{_line_of(argument, words)}{owner}: there is no option {argument!r}{of}{hint}"
    if match := _UNKNOWN_CLASS.search(message):
        name = next(filter(None, match.groups()))
        hint = _closest(name.rpartition(".")[2], [path.rpartition(".")[2] for path in classes])
        return f"{_line_of('class_path', words, name)}{owner}: there is no class {name!r}{hint}"
    if match := _WRONG_TYPE.search(message):
        expected, value = match.group(1) or match.group(2), match.group(3).strip()
        return f"{_line_of(owner, words)}{owner}: expected {expected}, got {value!r}"
    where = _line_of(owner, words) if owner else ""
    return where + " ".join(message.split())
