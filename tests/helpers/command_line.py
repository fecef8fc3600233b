"""A subcommand's parser, which takes a while to build, for tests of many command lines."""

from __future__ import annotations

import os
from typing import Any

import pytest

from ocrnet_pl.cli.lightning_cli import OCRNetCLI
from ocrnet_pl.cli.main import main
from ocrnet_pl.cli.parser import Parser


def command_line_parser(subcommand: str = "fit", **options: Any) -> Parser:
    """Build the parser of a command line.

    Args:
        subcommand: Subcommand that the command line begins with.
        **options: Options of ``main``.
    """

    class Built(BaseException):
        """No mistake, which the command line would turn into one line."""

    built: list[Parser] = []

    def keep(self: OCRNetCLI, parser: Parser, args: object) -> None:
        built.append(parser)
        raise Built

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Built):
        patch.setattr(OCRNetCLI, "parse_arguments", keep)
        main([subcommand], **options)
    return built[0]


def complaint(parser: Parser, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Parse a command line that must be refused, and return what is said of it."""
    Parser.words, Parser.folder = list(words), os.getcwd()
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(list(words))
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0].removeprefix("error: ")
