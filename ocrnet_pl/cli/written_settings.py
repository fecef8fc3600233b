"""The settings of a command line as a user wrote them, each with the place where it stands."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ocrnet_pl.cli.config_files import config_files, config_tree
from ocrnet_pl.data.readers import yaml_text

_PLUMBING = re.compile(r"\.?\b(?:init_args|class_path|dict_kwargs)\b")
_OPTION = re.compile(r"-(?!\d+$|\d*\.\d+$).")
"""A word that the library takes for an option although it may be a value; it knows negative numbers by their looks."""


class Entry(NamedTuple):
    """One setting, as a user wrote it.

    Attributes:
        where: ``config 'x.yaml', line 3: ``, or nothing for the command line.
        path: Dotted keys, without ``init_args``; a class's own path has the key of what it is the class of.
        value: Text of a scalar; empty for a mapping or a list.
    """

    where: str
    path: str
    value: str


class Layer(NamedTuple):
    """What one word or one config file sets.

    Attributes:
        file: The config file; nothing for a word of the command line.
        node: The YAML tree.
        problem: What is wrong with the word itself; nothing for a sound one.
    """

    file: str
    node: Any
    problem: str = ""


def place(file: str, node: Any) -> str:
    """Return ``config 'x.yaml', line 3: ``, or nothing for what stands on the command line."""
    return f"config {file!r}, line {node.start_mark.line + 1}: " if file else ""


def entries(words: list[str]) -> list[Entry]:
    """Return what a command line and its config files set; what overrides stands before what it overrides."""
    found = []
    for word, following in reversed(list(zip(words, [*words[1:], ""], strict=True))):
        if word.startswith("--"):
            key, _, value = word[2:].partition("=")
            found.append(Entry("", _PLUMBING.sub("", key), value or following))
    for name in reversed(list(config_files(words))):
        if Path(name).is_file():
            found += _entries_of(config_tree(name), name, "")
    return found


def given_settings(words: list[str]) -> dict[str, str]:
    """Return what a command line and its configs set: the place of each by its dotted key, without ``init_args``."""
    found: dict[str, str] = {}
    for entry in entries(words):
        # The last place counts, which stands first.
        where = f" in {entry.where.removeprefix('config ').removesuffix(': ')}" if entry.where else ""
        for key in (entry.path, *(() if entry.where else _inside(entry.path, entry.value))):
            found.setdefault(key, where)
    return found


def _inside(path: str, text: str) -> Iterator[str]:
    """Yield the keys of a mapping that stands on the command line."""
    try:
        pending = [(path, yaml_text.load(text))] if text.lstrip().startswith("{") else []
    except yaml_text.YamlError:
        return
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict):
            pending += [(path if key == "init_args" else f"{path}.{key}", inner) for key, inner in value.items()]
        else:
            yield path


def _entries_of(node: Any, file: str, path: str) -> Iterator[Entry]:
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _entries_of(child, file, path)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = str(key.value).rstrip("+")
            own = path if _PLUMBING.fullmatch(name) else f"{path}.{name}".lstrip(".")
            if name != "init_args":
                yield Entry(place(file, key), own, str(value.value) if isinstance(value, yaml.ScalarNode) else "")
            yield from _entries_of(value, file, own)


def place_of(path: str, value: str, words: list[str]) -> str:
    """Return the key of a setting, after the file and the line that it comes from.

    Args:
        path: Dotted keys, as the parser has them.
        value: Value of the setting.
        words: The command line.
    """
    key = _PLUMBING.sub("", path)
    where = next((entry.where for entry in entries(words) if entry.path == key and value in entry.value), "")
    return f"{where}{key}"


def layers(
    words: list[str], options: dict[str, argparse.Action], positional: argparse.Action | None = None
) -> Iterator[Layer]:
    """Yield what a command line sets, word by word and file by file; what overrides comes after what it overrides.

    Args:
        words: The command line; its config files are sound YAML.
        options: What the parser knows of, by the word on the command line.
        positional: What words without an option belong to; None if the subcommand takes none.
    """
    position = 1
    while position < len(words):
        word = words[position]
        position += 1
        key, equals, value = word.partition("=")
        if not word.startswith("--") and key not in options:
            if positional is not None:
                yield Layer("", _nested(positional.dest, _node(word) if positional.nargs is None else _nodes([word])))
                continue
            hint = "; options begin with --" if word else ""
            yield Layer("", None, f"{word!r} is not an option of {words[0]}{hint}")
            continue
        action = options.get(key)
        given = [value] if equals else []
        while not equals and position < len(words) and not words[position].startswith("--"):
            if given and (action is None or action.nargs is None):
                break
            given.append(words[position])
            position += 1
        if not equals and given and _OPTION.match(given[0]):
            missing = f"{key}: write {key}={given[0]}, since the value begins with -"
            yield Layer("", None, f"{key}: the value is missing" if given[0] in options else missing)
        elif key in ("--config", "-c") and given:
            yield Layer(given[0], config_tree(given[0]))
        elif (action is not None and isinstance(action, argparse._HelpAction)) or key.startswith("--print_config"):
            continue
        elif not given and not key.endswith(".help") and (action is None or action.nargs is None):
            yield Layer("", _nested(key, _scalar("")) if action is None else None, f"{key}: the value is missing")
        elif action is not None and action.nargs is not None:
            yield Layer("", _nested(key, _nodes(given)))
        else:
            yield Layer("", _nested(key, _node(given[0] if given else "")))


def _nested(key: str, node: Any) -> Any:
    """Return a tree in which a dotted key leads to a value."""
    for name in reversed(key.lstrip("-").split(".")):
        node = yaml.MappingNode("tag:yaml.org,2002:map", [(_scalar(name), node)])
    return node


def _node(text: str) -> Any:
    try:
        node = yaml_text.compose(text)
    except yaml_text.YamlError:
        node = None
    return _scalar(text) if node is None else node


def _nodes(texts: list[str]) -> Any:
    return yaml.SequenceNode("tag:yaml.org,2002:seq", [_node(text) for text in texts])


def _scalar(text: str) -> Any:
    return yaml.ScalarNode("tag:yaml.org,2002:str", text)
