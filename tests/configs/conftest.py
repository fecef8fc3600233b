"""Fixtures for the tests of configs."""

from __future__ import annotations

import pytest
from jsonargparse import ArgumentParser

from ocrnet_pl.cli.lightning_cli import OCRNetCLI
from ocrnet_pl.cli.main import main


@pytest.fixture(scope="session")
def parser() -> ArgumentParser:
    """The command line's own; building it takes longer than reading a config with it."""

    class Built(BaseException):
        """No mistake, which the command line would turn into one line."""

    built: list[ArgumentParser] = []

    def keep(self: OCRNetCLI, parser: ArgumentParser, args: object) -> None:
        built.append(parser)
        raise Built

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Built):
        patch.setattr(OCRNetCLI, "parse_arguments", keep)
        main(["fit"])
    return built[0]
