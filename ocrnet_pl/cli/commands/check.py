"""``check``: look for faults in the data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ocrnet_pl.cli.command import Command, Run
from ocrnet_pl.cli.exit_codes import EXIT_ERROR

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the options for the report, the corrected copy, and the number of images."""
    from jsonargparse.typing import PositiveInt

    parser.add_argument(
        "--output",
        type=Path | None,
        default=None,
        help="Folder of the report; null for runs/NAME/check.",
    )
    parser.add_argument(
        "--fix", type=Path | None, default=None, help="New folder for a corrected copy in COCO format; null for none."
    )
    parser.add_argument(
        "--limit", type=PositiveInt | None, default=None, help="Number of images to check per split; null for all."
    )


def check_data(run: Run) -> int:
    """Check the sources that a config names, and return the status to exit with.

    Raises:
        DataError: There is no source, or the copy cannot be written.
        ValueError: There are too many loading processes.
    """
    from ocrnet_pl.cli.source_recipes import object_limit, source_recipe, widest_box
    from ocrnet_pl.data.loading.loader_options import check_workers
    from ocrnet_pl.data.split_keys import SPLITS
    from ocrnet_pl.doctor.run import run_check
    from ocrnet_pl.errors import DataError

    config, data = run.config, run.config["data"]
    recipes = {name: source_recipe(name, data[name]) for name in SPLITS if data.get(name) is not None}
    if not recipes:
        raise DataError("data: there is no source to check; set data.train")
    check_workers(data["num_workers"])
    size = data["size"]
    input_size = (size, size) if isinstance(size, int) else tuple(size)
    errors = run_check(
        recipes,
        output=config["output"] or Path(config["trainer"]["default_root_dir"], config["name"], "check"),
        fix=config["fix"],
        limit=config["limit"],
        input_size=input_size,
        workers=data["num_workers"],
        title=config["name"],
        object_limit=object_limit(config["model"], input_size),
        widest=widest_box(config["model"]),
    )
    return EXIT_ERROR if errors else 0


COMMAND = Command(
    name="check",
    help="look for faults in the data",
    run=check_data,
    arguments=add_arguments,
    options=(("--fix DIR", "of check: write a corrected copy; also --output DIR and --limit N"),),
)
