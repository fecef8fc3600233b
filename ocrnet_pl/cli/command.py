"""The parts of one of the project's own subcommands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace
    from lightning.pytorch import Trainer
    from lightning.pytorch.cli import LightningArgumentParser

    from ocrnet_pl.data.datamodule import JointDataModule
    from ocrnet_pl.training.task import OCRNetTask


@dataclass(frozen=True)
class Run:
    """One call of a subcommand.

    Attributes:
        config: All options, with environment variables resolved.
        written: The same config, in which references to environment variables are kept.
        objects: The same config with the objects that were built from it; equal to ``config`` if none were.
        dump: Function that writes a config as YAML, without credentials.
    """

    config: Namespace
    written: Namespace
    objects: Namespace
    dump: Callable[[Namespace], str]


@dataclass(frozen=True)
class NetworkRun(Run):
    """One call of a subcommand for which the network was built.

    Attributes:
        trainer: The trainer.
        task: The LightningModule with the network.
        data: The data module.
    """

    trainer: Trainer
    task: OCRNetTask
    data: JointDataModule


@dataclass(frozen=True)
class ForExported:
    """What a subcommand does with a file of ``export`` in place of a checkpoint, without importing torch.

    Attributes:
        arguments: Function that adds its options, ``--ckpt_path`` among them.
        run: Function that runs it with these, and returns the exit status.
    """

    arguments: Callable[[ArgumentParser], Any]
    run: Callable[[Namespace], int]


RunT = TypeVar("RunT", bound=Run)


@dataclass(frozen=True)
class AnyCommand(Generic[RunT]):
    """The parts that :class:`Command` and :class:`NetworkCommand` share.

    The overview of ``train.py --help`` imports all files of ``cli/commands/``, so modules that take long to import are
    imported inside the functions.

    Attributes:
        name: Name on the command line.
        help: Short description that begins in lower case.
        run: Function that runs the command and returns the exit status. ``ValueError``, ``OSError``, ``RunError`` and
            Lightning's ``MisconfigurationException`` become one line and status 1.
        arguments: Function that adds options to those of the config, which every subcommand takes.
        needs_checkpoint: Whether a command line without ``--ckpt_path`` is refused, and parts that the config lacks are
            taken from the checkpoint's own. The command adds the option itself.
        uses_of_model: The options of ``model`` that a command uses which takes the network from the checkpoint; others
            are refused on its command line, and not in config files, which may be those of the training.
            None for a command that builds the network from the config, or needs none.
        exported: What it does with an exported file; None if it takes checkpoints only. A word that follows the name
            of such a command is its ``--ckpt_path``.
        options: Lines about its main options for the overview, as pairs of the option and its description.
    """

    name: str
    help: str
    run: Callable[[RunT], int]
    arguments: Callable[[LightningArgumentParser], Any] | None = None
    needs_checkpoint: bool = False
    uses_of_model: tuple[str, ...] | None = None
    exported: ForExported | None = None
    options: tuple[tuple[str, str], ...] = ()


class Command(AnyCommand[Run]):
    """A subcommand; a file in ``cli/commands/`` that defines one as ``COMMAND`` adds it to the command line."""


class NetworkCommand(AnyCommand[NetworkRun]):
    """A subcommand for which data, network and trainer are built from the config before ``run``."""
