"""The subcommands: Lightning's four and those of ``cli/commands/``."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil

from ocrnet_pl.cli import commands
from ocrnet_pl.cli.command import Command, NetworkCommand
from ocrnet_pl.errors import DEBUG_VARIABLE, CommandError

OF_LIGHTNING = {
    "fit": "train and validate",
    "validate": "evaluate a checkpoint on the validation set",
    "test": "evaluate a checkpoint on the test set",
    "predict": "write predictions for a folder of images",
}
"""The subcommands of the trainer, with the help of each."""


def _found() -> dict[str, Command | NetworkCommand]:
    """Return the commands of all files in ``cli/commands/``, in the order of the files' names.

    Raises:
        CommandError: One of them cannot be imported, or defines no command of a name of its own.
    """
    found: dict[str, Command | NetworkCommand] = {}
    for module in pkgutil.iter_modules(commands.__path__, f"{commands.__name__}."):
        spec = importlib.util.find_spec(module.name)
        file = module.name if spec is None else spec.origin
        try:
            command = getattr(importlib.import_module(module.name), "COMMAND", None)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise CommandError(
                f"{file}: it cannot be imported ({type(error).__name__}: {reason}; {DEBUG_VARIABLE}=1 shows where)"
            ) from error
        if not isinstance(command, Command | NetworkCommand):
            raise CommandError(
                f"{file}: it defines no COMMAND, which every file of this folder does; other code of the command line "
                "belongs one folder up"
            )
        if command.name in OF_LIGHTNING or command.name in found:
            raise CommandError(f"{file}: COMMAND: there is already a subcommand {command.name!r}; give it another name")
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


def sentence(name: str) -> str:
    """Return what a subcommand does, as a sentence for its own help.

    Args:
        name: Name of the subcommand, or any other word.
    """
    text = SUBCOMMANDS.get(name, name)
    return f"{text[:1].upper()}{text[1:]}."
