"""The entry point, light enough to answer ``--help`` at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ocrnet_pl.cli.exit_codes import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_USAGE
from ocrnet_pl.cli.program import program
from ocrnet_pl.errors import DEBUG_VARIABLE, CommandError
from ocrnet_pl.version import __version__

if TYPE_CHECKING:
    from ocrnet_pl.cli.command import Command, NetworkCommand
    from ocrnet_pl.data.datamodule import JointDataModule
    from ocrnet_pl.training.task import OCRNetTask


@contextmanager
def interruptible() -> Iterator[None]:
    """End the process with one line and status 130 where it is interrupted, whatever it is doing."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        _end(str(interrupt))
    except SystemExit as stop:
        # What Lightning makes of it.
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        _end("")


def _end(text: str) -> None:
    # Of several processes, all of which the terminal tells, the first says it.
    if not int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))):
        sys.stderr.write(f"interrupted{text}\n")
    sys.exit(EXIT_INTERRUPTED)


def overview() -> str:
    """Return the help that lists the subcommands."""
    from ocrnet_pl.cli.subcommands import OWN, SUBCOMMANDS

    called = program()
    width = max(map(len, SUBCOMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in SUBCOMMANDS.items()]
    return "\n".join(
        [
            f"usage: {called} SUBCOMMAND --config FILE [--config FILE ...] [--KEY VALUE ...]",
            "",
            "Joint object detection and semantic segmentation: one network, one pass.",
            "",
            "subcommands:",
            *lines,
            "",
            "options of a subcommand:",
            "  --config FILE       a YAML file, or the name of one in configs/; a later one overrides an earlier one",
            "  --KEY VALUE         any key of the config, such as --trainer.max_epochs 20 or --data.batch_size 8",
            "  --ckpt_path FILE    a checkpoint to evaluate, predict with, or continue from; also `last` and `best`",
            "  --init_from FILE    weights that a new training starts from; also --init_map and --init_keep",
            "  --trust PACKAGE     allow the checkpoint to name classes of your own package; again for more",
            *(f"  {option:<18}  {text}" for command in OWN.values() for option, text in command.options),
            "  --print_config      print the whole configuration with its defaults, and exit",
            "  --help              every key with its type and meaning",
            "",
            f"{called} --version prints the version.",
            "",
            f"example: {'python ' if called.endswith('.py') else ''}{called} fit --config quickstart",
        ]
    )


def _import_commands() -> None:
    """Import the files of all subcommands; one that cannot be used ends the process with one line."""
    try:
        import ocrnet_pl.cli.subcommands  # noqa: F401
    except CommandError as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        sys.stderr.write(f"error: {error}\n")
        sys.exit(EXIT_ERROR)


def _own_command(name: str) -> Command | NetworkCommand | None:
    """Return one of the project's own commands; None for any other word."""
    from ocrnet_pl.cli.subcommands import OWN

    return OWN.get(name)


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    """Let configs name classes of the current folder, whichever program calls.

    Python's own entry for it, "", means another folder while a config is read from there.
    """
    try:
        here = os.getcwd()
    except FileNotFoundError:
        sys.stderr.write("error: the current folder does not exist any more; change to another one\n")
        sys.exit(EXIT_ERROR)
    relative, known = "" in sys.path, here in sys.path
    if relative:
        sys.path[sys.path.index("")] = here
    elif not known:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path and relative:
            sys.path[sys.path.index(here)] = ""
        elif here in sys.path and not known:
            sys.path.remove(here)


def main(
    args: Sequence[str] | None = None,
    *,
    task: type[OCRNetTask] | None = None,
    data: type[JointDataModule] | None = None,
) -> None:
    """Run the command line; configs may name classes of the current folder by their import paths.

    Args:
        args: The words of the command line; None for those of the process.
        task: A subclass of ``OCRNetTask`` to train instead; the options of its constructor become keys below ``model``.
        data: A subclass of ``JointDataModule`` to load with; the options of its constructor become keys below ``data``.
    """
    words = list(sys.argv[1:] if args is None else args)
    _import_commands()
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        if not words:
            sys.exit(EXIT_USAGE)
        return
    if words[0] == "--version":
        print(f"ocrnet-pl {__version__}")
        return
    own = _own_command(words[0])
    if own is not None and own.exported is not None:
        from ocrnet_pl.cli.exported_file import run_exported

        with interruptible():
            if run_exported(own, words):
                return
    with interruptible(), _current_folder_importable():
        # Lightning takes seconds to import, which the overview has no use for.
        from ocrnet_pl.cli.running import run

        run(words, task=task, data=data)
