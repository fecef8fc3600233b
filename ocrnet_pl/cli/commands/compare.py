"""``compare``: figures of several runs on the same images, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ocrnet_pl.cli.command import Command, Run

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the runs, the page, and the number of random choices."""
    from jsonargparse.typing import NonNegativeInt, PositiveInt

    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        help="Folders of runs of validate or test, at least two; the others are compared with the first.",
    )
    parser.add_argument(
        "--output",
        type=Path | None,
        default=None,
        help="Path of the page to write; null for compare.html below trainer.default_root_dir.",
    )
    parser.add_argument(
        "--choices", type=PositiveInt, default=1000, help="Number of random choices of the images for the intervals."
    )
    parser.add_argument("--choices_seed", type=NonNegativeInt, default=0, help="Seed of the random choices.")


def compare(run: Run) -> int:
    """Print the figures of the runs with their intervals, and write them as a page.

    Raises:
        DataError: A folder has no file of images, or the runs differ in their images or classes.
    """
    from rich.console import Console

    from ocrnet_pl.report.compare import compare_runs
    from ocrnet_pl.report.compare_page import comparison_tables, write_comparison

    config = run.config
    found = compare_runs([path.expanduser() for path in config["runs"]], config["choices"], config["choices_seed"])
    for table in comparison_tables(found):
        Console().print(table)
    output = config["output"] or Path(config["trainer"]["default_root_dir"], "compare.html")
    write_comparison(output, found)
    print(f"written: {output}")
    return 0


COMMAND = Command(
    name="compare",
    help="compare runs of validate or test on the same images, with intervals",
    run=compare,
    arguments=add_arguments,
    options=(("compare RUN RUN ...", "folders of runs of validate or test; also --output FILE and --choices N"),),
)
