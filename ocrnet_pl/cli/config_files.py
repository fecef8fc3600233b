"""The config files of a command line: that they exist and are sound YAML, before anything reads their settings."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from typing import Any

import yaml

from ocrnet_pl.cli.bundled_configs import similar_config
from ocrnet_pl.data.readers import yaml_text
from ocrnet_pl.errors import UsageError
from ocrnet_pl.storage.ordinary_files import read_bytes, text_of

_PARTS = ("data", "model", "trainer")


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
        UsageError: A file is absent, empty, not YAML or no ordinary file, its aliases unfold to too much, or a key
            stands twice in one mapping, where the last would win silently.
    """
    for name in config_files(words):
        if not os.path.exists(name):
            similar = similar_config(name)
            hint = f"; did you mean {similar!r}?" if similar else ""
            raise UsageError(f"config {name!r}: no such file{hint}")
        root = config_tree(name)
        if root is None:
            raise UsageError(f"config {name!r}: it has no settings; leave it out")
        if not isinstance(root, yaml.MappingNode):
            raise UsageError(f"config {name!r}: expected keys with values, found {kind_of(root)}")
        for key, value in root.value:
            if key.value in _PARTS and isinstance(value, yaml.SequenceNode):
                line = value.start_mark.line + 1
                raise UsageError(f"config {name!r}, line {line}: {key.value}: expected keys, found a list")
        duplicate = find_duplicate(root)
        if duplicate:
            raise UsageError(f"config {name!r}, line {duplicate[1]}: the key {duplicate[0]!r} stands twice")


def config_tree(name: str) -> Any:
    """Return the YAML tree of a config file; None for an empty one.

    Raises:
        UsageError: The file cannot be read or is not usable YAML.
    """
    try:
        data = read_bytes(name, "config", yaml_text.MOST_BYTES)
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise UsageError(f"config {name!r}: this is a text file in UTF-16; save it as UTF-8")
        return yaml_text.compose(text_of(data, name))
    except yaml_text.YamlError as error:
        raise UsageError(error.at(f"config {name!r}")) from error
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error


def kind_of(node: Any) -> str:
    """Return what a YAML node is, in words."""
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return "keys" if isinstance(node, yaml.MappingNode) else repr(node.value)


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
