"""The project's own subcommands: what they read from the config, and whom they ask."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ocrnet_pl.data.errors import DataError
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.doctor.check import Recipe, run_check
from ocrnet_pl.drawing.progress import Progress
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.tiling import Tiling
from ocrnet_pl.memory import Size, StepMemory, available_mb, by_size, largest_that_fits
from ocrnet_pl.report.joint import run_joint_report
from ocrnet_pl.storage.secrets import in_environment
from ocrnet_pl.structures import PostProcess
from ocrnet_pl.task import OCRNetTask

CHECK, PACK, REPORT, CALIBRATE, MEMORY = OWN = ("check", "pack", "joint-report", "calibrate", "memory")


def check_data(config: Namespace) -> int:
    """Check the sources that a config names, and return the number of errors.

    Raises:
        DataError: There is no source, or the copy cannot be written.
    """
    data = config["data"]
    recipes = {name: _recipe(name, data[name]) for name in ("train", "val", "test") if data.get(name) is not None}
    if not recipes:
        raise DataError("data: there is no source to check; set data.train")
    size = data["size"]
    input_size = (size, size) if isinstance(size, int) else tuple(size)
    output = config["output"] or Path(config["trainer"]["default_root_dir"], config["name"], "check")
    return run_check(
        recipes,
        output=output,
        fix=config["fix"],
        limit=config["limit"],
        input_size=input_size,
        workers=data["num_workers"],
        title=config["name"],
        object_limit=_object_limit(config["model"], input_size),
    )


def pack_data(config: Namespace) -> int:
    """Write the sources that a config names as shards, and return how many images the sets lack.

    Raises:
        DataError: There is no source or no output, an image cannot be read, or the output cannot be written to, or
            holds something else.
    """
    from ocrnet_pl.data.digest import source_digest
    from ocrnet_pl.data.packing import pack

    data = config["data"]
    given = [name for name in ("train", "val", "test") if data.get(name) is not None]
    names = config["splits"] or given
    if config["output"] is None:
        raise DataError("output: give the folder of the shards with --output DIR")
    if re.match(r"\w+:/", str(config["output"])):
        raise DataError(
            f"output {str(config['output'])!r}: pack into a folder, then upload it; docs/packed.md says how"
        )
    if not names:
        raise DataError("data: there is no source to pack; set data.train")
    for name in names:
        if name not in given:
            raise DataError(f"splits: there is no data.{name} to pack")
    skipped: list[tuple[str, str]] = []
    with Progress() as progress:
        for name in names:
            source = _recipe(name, data[name]).make()
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
    return len(skipped)


def joint_report(config: Namespace, written: Namespace, dump: Callable[[Namespace], str]) -> None:
    """Train a config's network and its twins, and write the joint report.

    Args:
        config: Of both tasks.
        written: The same config with its references to environment variables as they were written.
        dump: Writes the config of a training as YAML.

    Raises:
        ValueError: The config lacks one of the two tasks, or the output folder holds other runs.
        RunError: A run failed.
    """
    for task in ("detection", "segmentation"):
        if config["model"][task] is None:
            raise ValueError(f"model.{task} is null: the report compares a network of both tasks with its twins")
    output = config["output"] or Path(config["trainer"]["default_root_dir"], config["name"], "joint")
    # The runs' config is a file: they find the credentials in the environment.
    shared, variables = in_environment(written)
    os.environ.update(variables)
    for key in ("output", "seeds", "config"):
        shared.pop(key, None)
    run_joint_report(dump(shared), config["seeds"], output, config["name"])


def measure_memory(
    task: OCRNetTask,
    sizes: Sequence[Size],
    batch_size: int,
    limit_gb: float | None,
    device: torch.device,
    context: Callable[[], contextlib.AbstractContextManager[Any]],
) -> bool:
    """Print the memory of a training step at each size, and the largest batch size that fits the largest of them.

    Args:
        task: To train.
        sizes: (height, width) of the training batches.
        batch_size: Of the config.
        limit_gb: What a step may take; None for what there is.
        device: To measure on.
        context: Gives the precision's context.

    Returns:
        Whether a step at the largest size fits, of one image, or of two where the network refuses one.
    """
    from rich.console import Console
    from rich.table import Table

    limit = available_mb(device) if limit_gb is None else limit_gb * 1024
    memory = StepMemory(task, device, context)
    table = Table("size", f"MiB at batch_size {batch_size}", title=f"Training steps on {device}")
    table.columns[1].justify = "right"
    sizes = by_size(sizes)
    with Progress() as progress:
        work = progress.add(f"measuring steps of {len(sizes)} sizes", 1 + len(sizes))
        # The largest first: what fits there fits everywhere.
        largest = largest_that_fits(lambda count: memory.peak(sizes[0], count), limit)
        for size in sizes:
            work.advance()
            peak = memory.peak(size, batch_size) if batch_size <= largest else None
            table.add_row(f"{size[0]} x {size[1]}", "does not fit" if peak is None else f"{peak:.0f}")
    Console().print(table)
    if largest:
        print(f"The largest that fits {limit:.0f} MiB:")
        print(f"data.batch_size: {largest}")
    return largest > 0


def _object_limit(model: Namespace, input_size: Size) -> Callable[[Size], int] | None:
    """Return what tells the most boxes that a config's network may return of an image; None if there is no limit."""
    if model["detection"] is None:
        return None
    parser = ArgumentParser()
    parser.add_argument("--postprocess", type=PostProcess | None)
    parser.add_argument("--tile", type=Tiling | None)
    own = Namespace(postprocess=model["postprocess"], tile=model["tile"]).clone()
    try:
        parts = parser.instantiate_classes(own)
    except ValueError as error:
        raise MisconfigurationException(f"model: {error}") from error
    limit, tile = (parts.postprocess or FusionPostProcess()).max_detections, parts.tile
    if limit is None:
        return None
    return lambda size: limit if tile is None else limit * tile.count(size, input_size)


def _recipe(split: str, config: Namespace) -> Recipe:
    """Return how to make a source of a checked part of the config."""
    parser = ArgumentParser()
    parser.add_argument("--source", type=Source)

    def make(**changes: Any) -> Source:
        own = Namespace(source=config.clone())
        own.source.init_args.update(Namespace(**changes))
        try:
            source: Source = parser.instantiate_classes(own).source
        except DataError:
            raise
        except ValueError as error:
            # An option out of range is no fault of the data.
            raise MisconfigurationException(f"data.{split}: {error}") from error
        return source

    module, _, name = config.class_path.rpartition(".")
    return Recipe(make, getattr(sys.modules[module], name), config.init_args.as_dict())
