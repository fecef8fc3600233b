"""The subcommands: Lightning's four and those of ``cli/commands/``."""

from __future__ import annotations

import importlib
import pkgutil

from ocrnet_pl.cli import commands
from ocrnet_pl.cli.command import Command

OF_LIGHTNING = {
    "fit": "train and validate",
    "validate": "evaluate a checkpoint on the validation set",
    "test": "evaluate a checkpoint on the test set",
    "predict": "write predictions for a folder of images",
}
"""The subcommands of the trainer, with the help of each."""


def _found() -> dict[str, Command]:
    """Return the commands of all files in ``cli/commands/``, in the order of the files' names."""
    found: dict[str, Command] = {}
    for module in pkgutil.iter_modules(commands.__path__, f"{commands.__name__}."):
        command = getattr(importlib.import_module(module.name), "COMMAND", None)
        if not isinstance(command, Command):
            raise TypeError(f"{module.name} defines no COMMAND; other code of the command line belongs one folder up")
        if command.name in OF_LIGHTNING or command.name in found:
            raise ValueError(f"{module.name}: there is already a subcommand {command.name!r}")
        found[command.name] = command
    return found


OWN = _found()
"""The project's own commands by name."""

SUBCOMMANDS = OF_LIGHTNING | {name: command.help for name, command in OWN.items()}
"""All subcommands, with the help of each by its name."""

EVALUATING = (
    *(name for name in OF_LIGHTNING if name != "fit"),
    *(name for name, command in OWN.items() if command.needs_checkpoint),
)
"""Subcommands that need a checkpoint."""
