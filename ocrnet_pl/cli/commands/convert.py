"""``convert``: write the data as COCO JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ocrnet_pl.cli.command import Command, Run
from ocrnet_pl.cli.exit_codes import EXIT_SKIPPED

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the option for the folder."""
    parser.add_argument("--output", type=Path | None, default=None, help="New folder for the JSON files; required.")


def convert_data(run: Run) -> int:
    """Write the sources that a config names as COCO instances, and return the status to exit with.

    Raises:
        DataError: There is no source or no output, an image cannot be read, or the folder is not empty.
    """
    import yaml

    from ocrnet_pl.cli.source_recipes import source_recipe
    from ocrnet_pl.data.exporting.coco_files import write_coco
    from ocrnet_pl.data.split_keys import SPLITS
    from ocrnet_pl.drawing.progress import Progress
    from ocrnet_pl.errors import DataError
    from ocrnet_pl.storage.files import complete_folder

    data, output = run.config["data"], run.config["output"]
    given = [name for name in SPLITS if data.get(name) is not None]
    if output is None:
        raise DataError("output: give the folder of the JSON files with --output DIR")
    if not given:
        raise DataError("data: there is no source to convert; set data.train")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError.at(output, "it exists and is not empty", advice="give a new folder")
    skipped: list[tuple[str, str]] = []
    config: dict[str, object] = {"root": str(output.resolve())}
    lines: list[str] = []
    with complete_folder(output) as unfinished:
        with Progress() as progress:
            for name in given:
                source = source_recipe(name, data[name]).make()
                work = progress.add(f"converting {name}", len(source))
                tolerant = data["on_error"] == "skip"
                written = write_coco(source, name, unfinished, tolerant=tolerant, advance=work.reach)
                work.finish()
                skipped += written.skipped
                config[name] = written.source
                lines.append(f"{output / f'instances_{name}.json'}: {written.images} images, {written.boxes} boxes")
        text = yaml.safe_dump({"data": config}, sort_keys=False)
        (unfinished / "data.yaml").write_text(text, encoding="utf-8")
    print("\n".join([*lines, f"train on it with --config {output / 'data.yaml'}"]))
    for path, reason in skipped:
        sys.stderr.write(f"skipped: {path}: {reason}\n")
    return EXIT_SKIPPED if skipped else 0


COMMAND = Command(
    name="convert",
    help="write the data as COCO JSON, which other programs read",
    run=convert_data,
    arguments=add_arguments,
    options=(("--output DIR", "of convert: a new folder for the JSON files and a config that reads them"),),
)
