"""What the command line takes, read from its own parsers."""

from __future__ import annotations

import argparse
import functools
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from ocrnet_pl.cli.lightning_cli import OCRNetCLI
from ocrnet_pl.cli.option_types import Made, Shape, fitting, readable, shape_of
from ocrnet_pl.cli.parser import Parser
from ocrnet_pl.cli.short_names import ROOMS
from ocrnet_pl.cli.subcommands import SUBCOMMANDS
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.training.task import OCRNetTask


@dataclass(frozen=True)
class Option:
    """An option of a subcommand or of a class.

    Attributes:
        name: Its dotted key.
        kind: What it takes, in words.
        default: Its default as YAML; None if it has to be given.
        meaning: Its description.
        parts: The kinds of classes that it chooses from.
    """

    name: str
    kind: str
    default: str | None
    meaning: str
    parts: tuple[Made, ...]


class _Built(Exception):
    pass


class _ParserAlone(OCRNetCLI):
    """The command line up to its parser."""

    def parse_arguments(self, parser: Any, args: Any) -> None:
        raise _Built


def subcommand_parsers() -> dict[str, Any]:
    """Return the parser of each subcommand by its name."""
    found = {}
    for name in SUBCOMMANDS:
        Parser.words = [name]
        cli = _ParserAlone.__new__(_ParserAlone)
        try:
            cli.__init__(  # type: ignore[misc]
                OCRNetTask,
                JointDataModule,
                parser_class=Parser,
                seed_everything_default=0,
                args=[name],
                auto_configure_optimizers=False,
            )
        except _Built:
            found[name] = cli._subcommand_parsers[name]
    return found


def options_of(parser: Any) -> Iterator[Option]:
    """Yield the options of a parser that take a value of their own."""
    for action in parser._actions:
        hint = getattr(action, "_typehint", None)
        if hint is None or action.dest.endswith(".help") or action.help == argparse.SUPPRESS:
            continue
        yield Option(
            name=action.dest,
            kind=readable(hint),
            default=None if action.required else _as_yaml(action.default),
            meaning=action.help or "",
            parts=tuple(_parts(shape_of(hint))),
        )


def titles_of(parser: Any) -> dict[str, str]:
    """Return the descriptions of a parser's groups of options by the key that each group begins with."""
    groups = {}
    for group in parser._action_groups:
        for action in group._group_actions[:1]:
            groups[action.dest.removesuffix(".help")] = group.title or ""
    return groups


@functools.cache
def options_of_class(made: Made, kind: type) -> list[Option]:
    """Return the options that a config can give for a class.

    Args:
        made: What it is chosen as.
        kind: The class.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, skip={made.given} if made.given else None)
    return list(options_of(parser))


def own_classes(made: Made) -> list[type]:
    """Return the package's own classes that a config names by their short names, in the order of these."""
    rooms = tuple(f"ocrnet_pl.{room}" for room in ROOMS)
    own = [kind for kind in fitting(made.kind) if kind.__module__.startswith(rooms)]
    return sorted(own, key=lambda kind: kind.__name__)


def summary_of(kind: type) -> str:
    """Return the first paragraph of a class's docstring."""
    return (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")


def _parts(shape: Shape) -> Iterator[Made]:
    yield from shape.parts
    if shape.items is not None:
        yield from _parts(shape.items)
    if shape.values is not None:
        yield from _parts(shape_of(shape.values))


def _as_yaml(value: Any) -> str:
    text = yaml.safe_dump(_plain(value), default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    return text.strip().removesuffix("\n...").strip()


def _plain(value: Any) -> Any:
    """Return a default as a config has it, with the short names of the package's classes."""
    if isinstance(value, dict) or hasattr(value, "as_dict"):
        items = value if isinstance(value, dict) else value.as_dict()
        return {key: _plain(each) for key, each in items.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, str) and value.startswith("ocrnet_pl."):
        return value.rpartition(".")[2]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return getattr(value, "__name__", None) or str(value)
