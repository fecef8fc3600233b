"""The project's own subcommands: what they read from the config, and whom they ask."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ocrnet_pl.data.errors import DataError
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.doctor.check import Recipe, run_check
from ocrnet_pl.report.joint import run_joint_report

CHECK, REPORT, CALIBRATE = "check", "joint-report", "calibrate"


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
    output = config["output"] or Path(config["trainer"]["default_root_dir"], config["name"], "check")
    return run_check(
        recipes,
        output=output,
        fix=config["fix"],
        limit=config["limit"],
        input_size=(size, size) if isinstance(size, int) else tuple(size),
        workers=data["num_workers"],
        title=config["name"],
    )


def joint_report(config: Namespace, dump: Callable[[Namespace], str]) -> None:
    """Train a config's network and its twins, and write the joint report.

    Args:
        config: Of both tasks.
        dump: Writes the config of a training as YAML.

    Raises:
        ValueError: The config lacks one of the two tasks, or the output folder holds other runs.
        RunError: A run failed.
    """
    for task in ("detection", "segmentation"):
        if config["model"][task] is None:
            raise ValueError(f"model.{task} is null: the report compares a network of both tasks with its twins")
    output = config["output"] or Path(config["trainer"]["default_root_dir"], config["name"], "joint")
    shared = config.clone()
    for key in ("output", "seeds", "config"):
        shared.pop(key, None)
    run_joint_report(dump(shared), config["seeds"], output, config["name"])


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
