"""``cross-validate``: train all folds of the data and join their figures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocrnet_pl.cli.command import Command, Run

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser

_ADVICE = "give data.train and data.val a Split with `folds`, as docs/folds.md shows"


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the option for the folder."""
    parser.add_argument(
        "--output",
        type=Path | None,
        default=None,
        help="Folder of the results and the runs; null for runs/NAME/folds.",
    )


def cross_validate(run: Run) -> int:
    """Train a config once per fold and print the joined figures.

    Raises:
        ValueError: The config has no folds, or the output folder holds other runs.
        RunError: A run failed.
    """
    from rich.console import Console

    from ocrnet_pl.report.folds import run_folds
    from ocrnet_pl.storage.secrets import in_environment

    config = run.config
    splits = {name: _splits(config["data"][name]) for name in ("train", "val")}
    for name, found in splits.items():
        if not found:
            raise ValueError(f"data.{name}: there are no folds; {_ADVICE}")
        part = next((each["part"] for each in found if each["part"] != name), name)
        if part != name:
            raise ValueError(f"data.{name}: the part of its Split is {part!r}; set it to {name!r}")
    counts = {int(each["folds"]) for found in splits.values() for each in found}
    if len(counts) > 1:
        raise ValueError(f"data: the numbers of folds {sorted(counts)} differ; {_ADVICE}")
    if min(counts) < 2:
        raise ValueError(f"data: folds is {min(counts)}, and at least 2 are needed; {_ADVICE}")
    output = config["output"] or Path(config["trainer"]["default_root_dir"], config["name"], "folds")
    # The runs' configs are files: they find the credentials in the environment, and resolve the references themselves.
    shared, variables = in_environment(run.written)
    os.environ.update(variables)
    for key in ("output", "config"):
        shared.pop(key, None)
    configs = []
    for number in range(counts.pop()):
        for name in splits:
            for own in _splits(shared["data"][name]):
                own["fold"] = number
        configs.append(run.dump(shared))
    figures = run_folds(configs, output, config["name"])
    console = Console()
    for table in _tables(figures):
        console.print(table)
    print(f"Folds: {output / 'folds.json'}")
    return 0


def _splits(part: Any) -> list[Any]:
    """Return the options of every ``Split`` with folds in a part of the config."""
    from jsonargparse import Namespace

    if isinstance(part, list):
        return [found for item in part for found in _splits(item)]
    if not isinstance(part, Namespace | dict):
        return []
    values = part if isinstance(part, dict) else vars(part)
    found = [part] if values.get("folds") is not None and {"part", "source"} <= set(values) else []
    return found + [each for value in values.values() for each in _splits(value)]


def _tables(figures: Any) -> list[Any]:
    """Return the table of the figures of the whole set, and that of the classes."""
    from ocrnet_pl.drawing.figures_table import figures_table

    tables = []
    for title, chosen in (
        ("Figures over the folds", [figure for figure in figures if "/" not in figure.key]),
        ("Per class", [figure for figure in figures if "/" in figure.key]),
    ):
        if not chosen or len(chosen) > 120:
            continue
        rows = [
            (
                figure.title,
                f"{figure.mean:.4f}",
                "-" if figure.deviation is None else f"{figure.deviation:.4f}",
                "-" if figure.half is None else f"{figure.mean - figure.half:.4f} to {figure.mean + figure.half:.4f}",
                " ".join("-" if value != value else f"{value:.3f}" for value in figure.values),
            )
            for figure in chosen
        ]
        tables.append(figures_table(("", "mean", "deviation", "95 % interval", "folds"), rows, title))
    return tables


COMMAND = Command(
    name="cross-validate",
    help="train all folds of the data and join their figures with intervals",
    run=cross_validate,
    arguments=add_arguments,
    options=(("--output DIR", "of cross-validate: where the runs and the results go"),),
)
