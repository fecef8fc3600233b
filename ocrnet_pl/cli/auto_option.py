"""The option ``auto``, and the budget in it."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

from lightning.pytorch.cli import LightningArgumentParser

from ocrnet_pl.cli.parser import Parser
from ocrnet_pl.errors import UsageError

MEASURED_FOR = ("fit", "cross-validate", "joint-report")
"""Subcommands that train: they choose all settings."""
LOOKED_UP_FOR = ("check", "memory")
"""Subcommands that look at the data or the network: they choose what needs no measurement."""
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_BUDGET = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?\s*")


@dataclass
class Auto:
    """How settings are chosen from the data.

    Attributes:
        budget: Time of the run from which the number of steps follows, as a number with its unit s, m, h or d, such
            as 30m or 8h; null chooses about 6000 steps.
    """

    budget: str | float | None = None


def add_auto_option(parser: LightningArgumentParser) -> None:
    """Add the option to a parser; for commands that choose nothing, whose config may have it, without a help."""
    parser.add_argument(
        "--auto",
        type=bool | Auto,
        default=False,
        help="Whether input size, levels, scales, batch size and length are chosen from the data: true or false, or "
        "the budget that the run has, such as {budget: 30m}; what is set elsewhere is kept.",
    )
    if Parser.words[0] not in (*MEASURED_FOR, *LOOKED_UP_FOR):
        for action in parser._actions:
            if {"--auto", "--auto.help"} & set(action.option_strings):
                action.help = argparse.SUPPRESS


def seconds_of(budget: str | float, option: str = "auto.budget") -> float:
    """Return the seconds of a budget.

    Args:
        budget: A number with its unit, or a number of seconds.
        option: Name of the option for error messages.

    Raises:
        UsageError: It is no duration above 0.
    """
    found = _BUDGET.fullmatch(str(budget))
    seconds = float(found[1]) * _UNITS[found[2] or "s"] if found else 0.0
    if seconds <= 0:
        raise UsageError(
            f"{option}: expected a duration above 0, such as 90s, 30m or 8h, or a number of seconds, got {budget!r}"
        )
    return seconds
