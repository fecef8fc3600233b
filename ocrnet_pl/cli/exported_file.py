"""Command lines that name an exported file in place of a checkpoint, which run without torch."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from ocrnet_pl.cli.exit_codes import EXIT_ERROR, EXIT_USAGE
from ocrnet_pl.cli.system_errors import error_line
from ocrnet_pl.cli.written_settings import entries
from ocrnet_pl.errors import DEBUG_VARIABLE, RunError, UsageError, one_line
from ocrnet_pl.storage.exported_files import is_exported

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from ocrnet_pl.cli.command import Command, NetworkCommand

_KEY = "ckpt_path"
_OPTION = f"--{_KEY}"


def with_option(words: list[str]) -> list[str]:
    """Return a command line whose second word, if it is no option, became the value of ``--ckpt_path``.

    Raises:
        UsageError: That is given as well.
    """
    if len(words) < 2 or words[1].startswith("-"):
        return words
    if any(word.partition("=")[0] == _OPTION for word in words):
        raise UsageError(f"ckpt_path: there is {words[1]!r} behind {words[0]!r}, and {_OPTION}; leave one of them out")
    return [words[0], f"{_OPTION}={words[1]}", *words[2:]]


def _names_exported(words: list[str]) -> bool:
    """Return whether the checkpoint of a command line, or of a config that it names, is an exported file."""
    try:
        found = next((entry.value for entry in entries(words) if entry.path == _KEY), None)
    except UsageError:
        # Whoever reads the configs next tells what is wrong with them.
        return False
    return is_exported(found)


def run_exported(command: Command | NetworkCommand, words: list[str]) -> bool:
    """Run a subcommand if it names an exported file; mistakes end it with one line and a status that is not 0.

    Args:
        command: The subcommand, which takes exported files.
        words: The command line.

    Returns:
        Whether it names one.
    """
    try:
        words = with_option(words)
    except UsageError as error:
        _fail(error)
    if not _names_exported(words):
        return False
    from jsonargparse import ArgumentParser

    assert command.exported is not None
    parser = ArgumentParser(
        prog=f"train.py {command.name}",
        description=f"{command.help[:1].upper()}{command.help[1:]}, with an exported file.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with options.")
    command.exported.arguments(parser)
    try:
        try:
            config = parser.parse_args(words[1:])
        except argparse.ArgumentError as error:
            raise UsageError(_of_parser(error, command.name, parser, words)) from error
        config.pop("config", None)
        status = command.exported.run(config)
    except (ValueError, OSError, RunError) as error:
        _fail(error)
    if status:
        sys.exit(status)
    return True


def _of_parser(error: argparse.ArgumentError, name: str, parser: ArgumentParser, words: list[str]) -> str:
    if str(error).startswith("Parser key"):
        # There is such an option: the value is wrong.
        from ocrnet_pl.cli.config_errors import first_mistake

        found = first_mistake(parser, words)
        if found is not None:
            return found
    text = one_line(error)
    actions: list[Any] = parser._actions
    there = {each.option_strings[0] for each in actions if each.option_strings} - {
        "--config",
        "--help",
        "-h",
        "--print_shtab",
    }
    known = ", ".join(sorted(each for each in there if not each.endswith("+")))
    return f"{name}: {text}; with an exported file there are {known}, all else is as it was exported"


def _fail(error: Exception) -> NoReturn:
    if os.environ.get(DEBUG_VARIABLE):
        raise error
    sys.stderr.write(f"error: {error_line(error)}\n")
    sys.exit(EXIT_USAGE if isinstance(error, UsageError) else EXIT_ERROR)
