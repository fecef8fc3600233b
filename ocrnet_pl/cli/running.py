"""Runs a command line; mistakes end it with one line and a status that is not 0."""

from __future__ import annotations

import itertools
import logging
import os
import re
import sys
import warnings
from typing import NoReturn

from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ocrnet_pl.callbacks.checkpoint import BestCheckpoint
from ocrnet_pl.callbacks.log_lines import LogLines
from ocrnet_pl.callbacks.memory import PeakMemory
from ocrnet_pl.callbacks.progress import log_through_the_bar
from ocrnet_pl.callbacks.run_status import RunStatus
from ocrnet_pl.callbacks.save_config import SaveConfig
from ocrnet_pl.callbacks.stopping import GracefulStop
from ocrnet_pl.callbacks.summary import Summary
from ocrnet_pl.callbacks.throughput import Throughput
from ocrnet_pl.cli.bundled_configs import with_found_configs
from ocrnet_pl.cli.checkpoint_option import settle_checkpoint
from ocrnet_pl.cli.config_files import check_files
from ocrnet_pl.cli.exit_codes import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_SKIPPED, EXIT_TERMINATED, EXIT_USAGE
from ocrnet_pl.cli.library_errors import cause, mistake
from ocrnet_pl.cli.lightning_cli import OCRNetCLI
from ocrnet_pl.cli.parser import Parser, shortened
from ocrnet_pl.cli.sections import stored_sections
from ocrnet_pl.cli.subcommands import OWN, SUBCOMMANDS
from ocrnet_pl.cli.suggestions import closest
from ocrnet_pl.cli.system_errors import error_line
from ocrnet_pl.cli.unused_model import refuse_unused
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.distributed.gather import compute_on_first
from ocrnet_pl.errors import DEBUG_VARIABLE, CheckpointError, DataError, LossError, RunError, UsageError
from ocrnet_pl.storage.earlier_settings import words_now
from ocrnet_pl.storage.files import FULL
from ocrnet_pl.storage.secrets import hidden
from ocrnet_pl.tracking.wandb_tracker import MetricsTable, WandbTracker
from ocrnet_pl.training.sharding import lost_peer
from ocrnet_pl.training.step_memory import advice, out_of_memory
from ocrnet_pl.training.task import OCRNetTask


def _one_line(error: BaseException) -> str:
    """Return the last line of an error, which for one out of a loading process stands behind its traceback."""
    error = cause(error)
    if "Traceback" not in str(error):
        return error_line(error)
    return re.sub(r"^ocrnet_pl\.errors\.\w+: ", "", str(error).strip().splitlines()[-1].strip())


def _is_of_use(record: logging.LogRecord) -> bool:
    """Leave out an advertisement, and what is said of Ctrl-C: the command line says it itself."""
    return not any(text in str(record.msg) for text in ("litlogger", "Detected KeyboardInterrupt"))


def build(
    words: list[str], *, task: type[OCRNetTask] | None = None, data: type[JointDataModule] | None = None
) -> OCRNetCLI:
    """Build what a command line names; mistakes end the process with one line and a status that is not 0.

    Args:
        words: The command line, without the program's name.
        task: The LightningModule to build; None for the project's own.
        data: The data module to build; None for the project's own.
    """
    task, data = task or OCRNetTask, data or JointDataModule
    words = words_now(with_found_configs(words))
    Parser.words, Parser.folder, Parser.secrets = words, os.getcwd(), frozenset()
    throughput, memory = Throughput(), PeakMemory()
    # Noise between Lightning and torch, of no use to anybody here.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_of_use)
    log_through_the_bar()
    # Every process computed these from all images: there is nothing to synchronise.
    warnings.filterwarnings("ignore", message=r"It is recommended to use `self\.log\('(val|test)/")
    # The folder is new; Weights & Biases, which Lightning starts first, may have put its own there.
    warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty")
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    try:
        _check_subcommand(words)
        refuse_unused(words)
        check_files(words)
        Parser.learn_secrets()
        words, OCRNetCLI.stored_config = settle_checkpoint(words, stored_sections(task, data))
        Parser.words = words
        return OCRNetCLI(
            task,
            data,
            save_config_callback=SaveConfig,
            parser_class=Parser,
            # The summary stands last, so that it sees what all others have logged.
            trainer_defaults={
                "callbacks": [
                    LearningRateMonitor("step"),
                    GracefulStop(),
                    throughput,
                    memory,
                    LogLines(throughput),
                    RunStatus(throughput),
                    Summary(throughput, memory),
                ]
            },
            seed_everything_default=0,
            args=words,
            auto_configure_optimizers=False,
        )
    except (ValueError, OSError, MisconfigurationException) as error:
        _fail(error)
    except Exception as error:
        # A part was given what it cannot be built from.
        _fail(MisconfigurationException(f"{_one_line(error)} ({type(error).__name__}; {DEBUG_VARIABLE}=1 shows where)"))


def _check_subcommand(words: list[str]) -> None:
    if words[0].startswith("-"):
        raise UsageError(f"{words[0]!r} stands where the subcommand belongs, as in: train.py fit --config FILE")
    if words[0] not in SUBCOMMANDS:
        hint = closest(words[0], SUBCOMMANDS) or f"; there are {', '.join(SUBCOMMANDS)}"
        raise UsageError(f"there is no subcommand {words[0]!r}{hint}")


def run(words: list[str], *, task: type[OCRNetTask] | None = None, data: type[JointDataModule] | None = None) -> None:
    """Run a subcommand; mistakes in configs and data end it with one line and a status that is not 0.

    Args:
        words: The command line, without the program's name.
        task: The LightningModule to run; None for the project's own.
        data: The data module to load with; None for the project's own.
    """
    cli = build(words, task=task, data=data)
    if cli.subcommand in OWN:
        try:
            status = cli.run_own()
        except OSError as error:
            _fail(disk_full(error, "", False) or error)
        except (ValueError, RunError, MisconfigurationException) as error:
            _fail(error)
        except Exception as error:
            line = mistake(error)
            if line is None:
                raise
            _fail(RuntimeError(line))
        if status:
            sys.exit(status)
        return
    status = EXIT_ERROR
    try:
        _execute(cli)
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else EXIT_ERROR
        raise
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
        raise
    finally:
        for logger in cli.trainer.loggers:
            if isinstance(logger, WandbTracker):
                logger.finish(status)


def _execute(cli: OCRNetCLI) -> None:
    skipped: list[tuple[str, str]] = []
    try:
        cli.execute()
        if cli.subcommand == "predict":
            skipped = _skipped(cli.datamodule.skipped)
    except OSError as error:
        _fail(disk_full(error, cli.trainer.default_root_dir, cli.subcommand == "predict") or error)
    except (DataError, LossError, CheckpointError, UsageError, MisconfigurationException) as error:
        _fail(error)
    except (RuntimeError, MemoryError) as error:
        # What follows a lost process, such as the attempt to save, fails in the same way.
        line = lost_peer(error)
        if line is None and out_of_memory(error):
            memory = next(each for each in cli.trainer.callbacks if isinstance(each, PeakMemory))  # type: ignore[attr-defined]
            line = advice(memory.size, memory.count)
        line = line or mistake(error)
        if line is None:
            raise
        _fail(RuntimeError(line))
    except Exception as error:
        line = mistake(error)
        if line is None:
            raise
        _fail(RuntimeError(line))
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt(_how_to_continue(cli)) from None
        # Lightning ends a terminated run with status 0; nobody may take it for a finished one.
        if cli.trainer.received_sigterm:
            _terminated(cli)
        raise
    if cli.trainer.received_sigterm:
        _terminated(cli)
    checkpoint = cli.trainer.checkpoint_callback
    if isinstance(checkpoint, BestCheckpoint) and checkpoint.missing is not None:
        _fail(CheckpointError(checkpoint.missing))
    # Whoever started several processes asks the first how it went.
    if skipped and cli.trainer.is_global_zero:
        for path, reason in skipped:
            sys.stderr.write(f"skipped: {path}: {reason}\n")
        sys.stderr.write(f"error: {len(skipped)} file(s) could not be read as images\n")
        sys.exit(EXIT_SKIPPED)


def _skipped(own: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the files that any process left out, each once, with the reasons."""
    return compute_on_first(own, lambda parts: list(dict.fromkeys(itertools.chain(*parts))))


def disk_full(error: OSError, root: str, resumable: bool) -> OSError | None:
    """Return what to say where there is no room left, which the system says of no file; None for any other error.

    Args:
        error: The error that ended a run.
        root: Folder of the runs; empty if what was written may be elsewhere.
        resumable: Whether the run goes on with ``--resume``.
    """
    if error.errno not in FULL:
        return None
    advice = "make room" + (", and go on with --resume" if resumable else "")
    place = error.filename or root
    return OSError(f"{f'{place}: ' if place else ''}the disk is full ({error.strerror}); {advice}")


def _how_to_continue(cli: OCRNetCLI) -> str:
    """Return what to say of a run that was interrupted or terminated."""
    if cli.subcommand == "predict":
        table = cli.trainer.loggers[0]
        # One that had written nothing has no folder any more.
        there = isinstance(table, MetricsTable) and cli.trainer.is_global_zero and os.path.isdir(table.log_dir)
        return f"; continue with --resume --version {table.version}" if there else ""
    checkpoint = cli.trainer.checkpoint_callback
    if cli.subcommand != "fit" or not isinstance(checkpoint, BestCheckpoint):
        return ""
    last = checkpoint.last_model_path
    if not last or not os.path.exists(last):
        return f" at step {cli.trainer.global_step}; no checkpoint had been written"
    return f" at step {cli.trainer.global_step}; continue with --ckpt_path {last}"


def _terminated(cli: OCRNetCLI) -> NoReturn:
    """End a run that was terminated, of whose processes the first says so."""
    if cli.trainer.is_global_zero:
        sys.stderr.write(f"terminated{_how_to_continue(cli)}\n")
    sys.exit(EXIT_TERMINATED)


def _fail(error: BaseException) -> NoReturn:
    if os.environ.get(DEBUG_VARIABLE):
        raise error
    sys.stderr.write(f"error: {shortened(hidden(_one_line(error), Parser.secrets))}\n")
    sys.exit(EXIT_USAGE if isinstance(error, UsageError) else EXIT_ERROR)
