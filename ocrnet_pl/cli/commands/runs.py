"""``runs``: list the runs in a folder with their figures and settings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ocrnet_pl.cli.command import Command, Run

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the option for the file."""
    parser.add_argument(
        "--csv", type=Path | None, default=None, help="CSV file for all figures and changed settings; null for none."
    )


def list_runs(run: Run) -> int:
    """Print the runs below ``trainer.default_root_dir``, and what each changes against the config of this command line.

    Raises:
        FileNotFoundError: There is no such folder, or no run in it.
    """
    import yaml
    from rich.console import Console

    from ocrnet_pl.report.run_table import changes_text, read_runs, run_table, write_runs
    from ocrnet_pl.storage.checkpoints import flat_config

    runs, faults = read_runs(Path(run.config["trainer"]["default_root_dir"]))
    base = dict(flat_config(yaml.safe_load(run.dump(run.written))))
    Console().print(run_table(runs))
    print("Changes against this command line's config:")
    for each in runs:
        print(f"  {changes_text(each, base)}")
    if run.config["csv"] is not None:
        write_runs(run.config["csv"], runs, base)
        print(f"written: {run.config['csv']}")
    for fault in faults:
        sys.stderr.write(f"left out: {fault}\n")
    return 0


COMMAND = Command(
    name="runs",
    help="list the runs in a folder, with their figures and what each changes",
    run=list_runs,
    arguments=add_arguments,
    options=(("--csv FILE", "of runs: write all figures and changed settings; also --trainer.default_root_dir DIR"),),
)
