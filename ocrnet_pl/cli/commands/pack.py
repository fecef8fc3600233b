"""``pack``: write the data as shards."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ocrnet_pl.cli.command import Command, Run
from ocrnet_pl.cli.exit_codes import EXIT_SKIPPED
from ocrnet_pl.data.split_keys import SPLITS, Split

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the options for the folder, the size of shards, and the splits."""
    from jsonargparse.typing import PositiveInt

    parser.add_argument("--output", type=Path | None, default=None, help="Folder of the shards; required.")
    parser.add_argument("--shard_mb", type=PositiveInt, default=128, help="Size of a shard in megabytes.")
    parser.add_argument(
        "--splits", type=Split, nargs="+", default=None, help="Splits to pack; null for all that the config has."
    )


def pack_data(run: Run) -> int:
    """Write the sources that a config names as shards, and return the status to exit with.

    Raises:
        DataError: There is no source or no output, an image cannot be read, or the output cannot be written to, or
            contains something else.
        ValueError: There are too many loading processes.
    """
    from ocrnet_pl.cli.source_recipes import source_recipe
    from ocrnet_pl.data.cache.content_hash import source_digest
    from ocrnet_pl.data.loading.loader_options import check_workers
    from ocrnet_pl.data.shards.writer import pack
    from ocrnet_pl.drawing.progress import Progress
    from ocrnet_pl.errors import DataError

    config, data = run.config, run.config["data"]
    given = [name for name in SPLITS if data.get(name) is not None]
    names = config["splits"] or given
    if config["output"] is None:
        raise DataError("output: give the folder of the shards with --output DIR")
    if re.match(r"\w+:/", str(config["output"])):
        raise DataError(
            f"output {str(config['output'])!r}: pack into a folder, then upload it; docs/packed.md explains how"
        )
    if not names:
        raise DataError("data: there is no source to pack; set data.train")
    for name in names:
        if name not in given:
            raise DataError(f"splits: there is no data.{name} to pack")
    check_workers(data["num_workers"])
    skipped: list[tuple[str, str]] = []
    with Progress() as progress:
        for name in names:
            source = source_recipe(name, data[name]).make()
            work = progress.add(f"packing {name}", len(source))
            outcome = pack(
                source,
                config["output"] / name,
                source_digest(source),
                shard_bytes=config["shard_mb"] * 1_000_000,
                workers=data["num_workers"],
                tolerant=data["on_error"] == "skip",
                advance=work.reach,
            )
            work.finish()
            manifest = outcome.manifest
            skipped += manifest.skipped
            size = sum(shard.size for shard in manifest.shards) / 1e9
            print(
                f"{config['output'] / name}: {manifest.samples} images, {len(manifest.shards)} shards, {size:.3g} GB"
                + ("" if outcome.written else " (packed already)")
            )
    for path, reason in skipped:
        sys.stderr.write(f"skipped: {path}: {reason}\n")
    return EXIT_SKIPPED if skipped else 0


COMMAND = Command(
    name="pack",
    help="write the data as shards to train from, on a disk or in an object store",
    run=pack_data,
    arguments=add_arguments,
    options=(("--output DIR", "of pack: where the shards go; also --shard_mb N and --splits train val"),),
)
