"""YAML, with the parser and the writer in C where they are: text that may be malicious, and the package's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from ocrnet_pl.errors import one_line

MOST_BYTES = 1 << 20
"""Largest number of bytes: no config or description of a data set has more, and parsing it would take seconds."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_DEPTH = 100
_NODES = 100_000
_SCALAR = 100
_PLAIN = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:binary")
_OF_MAPPINGS = ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")
"""Tags of the keys << and =, which the library resolves with their mapping."""


class YamlError(ValueError):
    """Text that is not YAML, or YAML that would expand to more than a person writes.

    Attributes:
        line: Line of the problem, counted from 1; None if it is not known.
    """

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line

    def at(self, place: str) -> str:
        """Return the problem with its place: what the file is and its name, and the line."""
        return f"{place}{'' if self.line is None else f', line {self.line}'}: {self}"


def compose(text: str) -> Any:
    """Parse YAML to its tree of nodes.

    Args:
        text: The YAML.

    Returns:
        The root node; None for an empty text.

    Raises:
        YamlError: It is not YAML, too long, nested too deeply, its aliases expand to too much or to themselves, a
            number has too many digits, or a tag names a type that is not YAML's.
    """
    if len(text) > MOST_BYTES:
        raise YamlError(f"this is not usable YAML (it has more than {MOST_BYTES >> 20} MiB)")
    try:
        _check_depth(text)
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or one_line(error)
        line = "" if mark is None else [*text.split("\n"), ""][mark.line]
        if "\t" in line[: len(line) - len(line.lstrip())]:
            # The library's words for it are a riddle.
            problem = "a tab indents it; YAML takes spaces only"
        raise YamlError(f"this is not valid YAML ({problem})", None if mark is None else mark.line + 1) from error
    if root is not None:
        _check_size(root)
    return root


def load(text: str, parse: Callable[[str], Any] | None = None) -> Any:
    """Parse YAML to plain values.

    Args:
        text: The YAML.
        parse: Function that parses it once it is known to be harmless; None for PyYAML's safe loader.

    Raises:
        YamlError: :func:`compose` raises it, or a value is not what its tag says.
    """
    compose(text)
    try:
        return yaml.load(text, Loader=_LOADER) if parse is None else parse(text)
    except yaml.YAMLError as error:
        raise YamlError(f"this is not valid YAML ({one_line(error)})") from error
    # The library converts values such as `!!int x` and `2024-99-99` to numbers and dates without checking them first.
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise YamlError(f"this is not valid YAML (a value is not of the type it is marked as: {error})") from error


def own(text: str) -> Any:
    """Parse YAML that the package has just written itself.

    Args:
        text: The YAML.
    """
    return yaml.load(text, Loader=_LOADER)


def dump(data: Any) -> str:
    """Write plain values as YAML, in their order.

    Args:
        data: The values.
    """
    text: str = yaml.dump(data, Dumper=_DUMPER, default_flow_style=False, allow_unicode=True, sort_keys=False)
    return text


def _check_depth(text: str) -> None:
    """Go through the text without building anything: the library nests its own calls as deeply as the text."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEPTH:
                mark = event.start_mark
                problem = f"this is not usable YAML (nested more than {_DEPTH} levels deep)"
                raise YamlError(problem, None if mark is None else mark.line + 1)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_size(root: Any) -> None:
    """Count the nodes that there are after every alias is replaced by its value."""
    sizes: dict[int, tuple[int, int]] = {}
    open_nodes: set[int] = set()
    pending: list[tuple[Any, bool]] = [(root, False)]
    while pending:
        node, finished = pending.pop()
        line = node.start_mark.line + 1
        if finished:
            below = [sizes[id(child)] for child in _children(node)]
            size, depth = 1 + sum(own for own, _ in below), 1 + max((own for _, own in below), default=0)
            if size > _NODES or depth > _DEPTH:
                text = f"its aliases expand to more than {_NODES} values or {_DEPTH} levels"
                raise YamlError(f"this is not usable YAML ({text})", line)
            open_nodes.discard(id(node))
            sizes[id(node)] = size, depth
        elif id(node) in open_nodes:
            raise YamlError("this is not usable YAML (an alias is inside the value that it refers to)", line)
        elif id(node) not in sizes:
            if isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN and len(node.value) > _SCALAR:
                raise YamlError(f"this is not usable YAML (a number or date of {len(node.value)} characters)", line)
            if node.tag not in _LOADER.yaml_constructors and node.tag not in _OF_MAPPINGS:
                name = node.tag.rpartition(":")[2]
                raise YamlError(f"this is not usable YAML (there is no type {name!r:.100})", line)
            open_nodes.add(id(node))
            pending.append((node, True))
            pending += [(child, False) for child in _children(node)]


def _children(node: Any) -> list[Any]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []
