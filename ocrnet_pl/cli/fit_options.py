"""Options of ``fit`` in a config that another subcommand is given."""

from __future__ import annotations

import argparse
import inspect
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI

from ocrnet_pl.callbacks.save_config import INIT_OPTIONS

if TYPE_CHECKING:
    from ocrnet_pl.cli.command import Command, NetworkCommand


class OptionOfFit(argparse.Action):
    """An option that a config saved by ``fit`` may hold, and that has no meaning for a command that trains nothing."""

    def __call__(self, parser: Any, *_: Any) -> None:
        """Refuse it on the command line, where it was meant for this very command."""
        of = "fit" if self.dest in INIT_OPTIONS else "fit and of what evaluates a checkpoint"
        parser.error(f"{self.option_strings[0]} is an option of {of}, not of this")


def unused_options(command: Command | NetworkCommand) -> list[str]:
    """Return the options of ``fit`` that its saved config has and that one of the project's own commands leaves out.

    Args:
        command: The command; one that needs a checkpoint has an option of that name.
    """
    parts = LightningCLI.subcommands()["fit"] | {"self"} | ({"ckpt_path"} if command.needs_checkpoint else set())
    return [name for name in inspect.signature(Trainer.fit).parameters if name not in parts]
