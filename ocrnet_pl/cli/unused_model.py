"""Options of the network on the command line of a command that takes the network from the checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator

import yaml

from ocrnet_pl.cli.config_files import config_tree
from ocrnet_pl.cli.subcommands import OWN
from ocrnet_pl.data.readers import yaml_text
from ocrnet_pl.errors import UsageError


def refuse_unused(words: list[str]) -> None:
    """Refuse the options of the network that a command would take no notice of.

    Raises:
        UsageError: One of the words is such an option, or gives the section ``model`` with one in it.
    """
    command = OWN.get(words[0])
    if command is None or command.uses_of_model is None:
        return
    for option in _options(words):
        if option.split(".")[1] not in command.uses_of_model:
            *others, last = command.uses_of_model or ("",)
            uses = f"; of model it uses {', '.join(others)} and {last}" if last else ""
            raise UsageError(f"{option}: {words[0]} takes the network from the checkpoint; leave the option out{uses}")


def _options(words: list[str]) -> Iterator[str]:
    """Yield the options of the network that a command line sets, one by one or in the whole section."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        key, equals, value = word.partition("=")
        option = key.removesuffix("+")
        if option.startswith("--model.") and not option.endswith(".help"):
            yield option
        elif option == "--model":
            yield from (f"--model.{name}" for name in _keys(value if equals else following))


def _keys(text: str) -> list[str]:
    """Return the keys of a section, written as YAML or in a file; none for anything else, which the parser refuses."""
    if os.path.isfile(text):
        node = config_tree(text)
    else:
        try:
            node = yaml_text.compose(text)
        except yaml_text.YamlError:
            return []
    if not isinstance(node, yaml.MappingNode):
        return []
    return [str(key.value).removesuffix("+") for key, _ in node.value]
