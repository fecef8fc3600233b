"""Options of ``fit`` in a config that another subcommand is given."""

from __future__ import annotations

import argparse
import inspect
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI

from ocrnet_pl.callbacks.save_config import INIT_OPTIONS


class OptionOfFit(argparse.Action):
    """An option that a config saved by ``fit`` may hold, and that has no meaning for a command that trains nothing."""

    def __call__(self, parser: Any, *_: Any) -> None:
        """Refuse it on the command line, where it was meant for this very command."""
        of = "fit" if self.dest in INIT_OPTIONS else "fit and of what evaluates a checkpoint"
        parser.error(f"{self.option_strings[0]} is an option of {of}, not of this")


def options_of_fit() -> list[str]:
    """Return the names of what ``fit`` takes besides the parts of a config, such as the checkpoint to continue from."""
    parts = LightningCLI.subcommands()["fit"] | {"self"}
    return [name for name in inspect.signature(Trainer.fit).parameters if name not in parts]
