"""What a subcommand of the project's own consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonargparse import Namespace
    from lightning.pytorch import Trainer
    from lightning.pytorch.cli import LightningArgumentParser

    from ocrnet_pl.data.datamodule import JointDataModule
    from ocrnet_pl.training.task import OCRNetTask


@dataclass(frozen=True)
class Run:
    """One call of a subcommand.

    Attributes:
        config: Every option, with environment variables resolved.
        written: The same config with references to environment variables as they were written.
        objects: The same config with the parts that were built from it; equal to ``config`` if none were.
        dump: Writes a config as YAML, without credentials.
        trainer: The trainer; None unless the command asks for the network.
        task: The LightningModule with the network; None unless the command asks for it.
        data: The data module; None unless the command asks for the network.
    """

    config: Namespace
    written: Namespace
    objects: Namespace
    dump: Callable[[Namespace], str]
    trainer: Trainer | None = None
    task: OCRNetTask | None = None
    data: JointDataModule | None = None


@dataclass(frozen=True)
class Command:
    """A subcommand; a file in ``cli/commands/`` that defines one as ``COMMAND`` adds it to the command line.

    The overview of ``train.py --help`` imports all of these files, so what takes long to import is imported inside the
    functions.

    Attributes:
        name: The word on the command line.
        help: What it does, in a few words that begin in lower case.
        run: Does it, and returns the status to exit with. ``ValueError``, ``OSError``, ``RunError`` and Lightning's
            ``MisconfigurationException`` become one line and status 1.
        arguments: Adds options to those of the config, which every subcommand takes.
        needs_network: Build data, network and trainer from the config before ``run``.
        needs_checkpoint: Refuse a command line without ``--ckpt_path``, and take what the config lacks from the
            checkpoint's own. The command adds the option itself.
        options: Lines about its main options for the overview, as pairs of the option and its description.
    """

    name: str
    help: str
    run: Callable[[Run], int]
    arguments: Callable[[LightningArgumentParser], Any] | None = None
    needs_network: bool = False
    needs_checkpoint: bool = False
    options: tuple[tuple[str, str], ...] = ()
