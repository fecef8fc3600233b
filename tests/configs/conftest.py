"""Fixtures for the tests of configs."""

from __future__ import annotations

import pytest
from jsonargparse import ArgumentParser

from tests.helpers.command_line import command_line_parser


@pytest.fixture(scope="session")
def parser() -> ArgumentParser:
    """The command line's own; building it takes longer than reading a config with it."""
    return command_line_parser()
