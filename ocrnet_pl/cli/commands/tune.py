"""``tune``: search for better settings in short trainings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocrnet_pl.cli.command import Command, Run

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the options of the search."""
    parser.add_argument(
        "--budget",
        type=str,
        default="30m",
        help="Time of the search, as a number with its unit s, m, h or d; no trial is begun that would not end in it.",
    )
    parser.add_argument(
        "--trials",
        type=int | None,
        default=None,
        help="Largest number of trials of all jobs together; null for as many as the time allows.",
    )
    parser.add_argument(
        "--trial_steps",
        type=int | None,
        default=None,
        help="Optimiser steps of each trial; null for the length of the config.",
    )
    parser.add_argument(
        "--validations",
        type=int,
        default=4,
        help="Number of validations of a trial with trial_steps, after each of which it may be ended early.",
    )
    parser.add_argument(
        "--space",
        type=Path | None,
        default=None,
        help="YAML file with the settings to vary, as the parameters of a Weights & Biases sweep; null varies the "
        "learning rate, the weight of the tasks, the strength of colour augmentation and the input size.",
    )
    parser.add_argument(
        "--storage",
        type=str | None,
        default=None,
        help="Address of a database that several jobs share, such as sqlite:////shared/study.db; null for a file in "
        "the output folder, which jobs on one file system share as well.",
    )
    parser.add_argument(
        "--output",
        type=Path | None,
        default=None,
        help="Folder of the results and the runs; null for runs/NAME/tune. That of an earlier search continues it.",
    )


def tune(run: Run) -> int:
    """Search, print the best trials, and name the config to train.

    Raises:
        ValueError: An option is out of range, the space is wrong, or optuna is not installed.
        RunError: No trial could be finished.
    """
    from importlib.util import find_spec

    import yaml

    from ocrnet_pl.cli.auto_option import seconds_of
    from ocrnet_pl.cli.finders import Finders

    if find_spec("optuna") is None:
        raise ValueError("tune: optuna is not installed; run `pip install 'ocrnet-pl[tune]'`")
    from ocrnet_pl.report.search_space import default_space, space_in
    from ocrnet_pl.report.tuning import Search, run_search
    from ocrnet_pl.storage.secrets import in_environment

    config = run.config
    if Finders(config.clone()):
        raise ValueError(
            "trainer.callbacks: a finder would search in each trial again; take it out of what tune searches"
        )
    for name in ("trials", "trial_steps", "validations"):
        if config[name] is not None and config[name] < 1:
            raise ValueError(f"{name}: expected 1 or more, got {config[name]}")
    output = config["output"] or Path(config["trainer"]["default_root_dir"], config["name"], "tune")
    # The runs' configs are files: they find the credentials in the environment, and resolve the references themselves.
    shared, variables = in_environment(run.written)
    os.environ.update(variables)
    for key in ("output", "config", "budget", "trials", "trial_steps", "validations", "space", "storage"):
        shared.pop(key, None)
    plain: dict[str, Any] = yaml.safe_load(run.dump(shared))
    if config["trial_steps"] is not None:
        plain["trainer"] |= {
            "max_epochs": -1,
            "max_steps": config["trial_steps"],
            "check_val_every_n_epoch": None,
            "val_check_interval": max(1, config["trial_steps"] // config["validations"]),
        }
    space = default_space(plain) if config["space"] is None else space_in(config["space"], plain)
    search = Search(
        output=output,
        name=config["name"],
        seconds=seconds_of(config["budget"], "budget"),
        trials=config["trials"],
        storage=config["storage"],
        metric=config["checkpoint"]["monitor"],
        maximize=config["checkpoint"]["mode"] == "max",
        seed=config["seed_everything"] if type(config["seed_everything"]) is int else 0,
    )
    print(f"Search: {', '.join(space)}; in {output}", flush=True)
    study = run_search(search, plain, space, lambda content: yaml.safe_dump(content, sort_keys=False))
    _print_best(study, space, search.metric)
    print(f"Best config: {output / 'best.yaml'}")
    return 0


def _print_best(study: Any, space: Any, metric: str) -> None:
    from rich.console import Console
    from rich.table import Table

    finished = [each for each in study.trials if each.state.name == "COMPLETE"]
    finished.sort(key=lambda each: each.value, reverse=study.direction.name == "MAXIMIZE")
    counts = [sum(each.state.name == state for each in study.trials) for state in ("COMPLETE", "PRUNED", "FAIL")]
    title = f"{counts[0]} trials finished, {counts[1]} ended early, {counts[2]} failed"
    table = Table("trial", metric, *(name.replace(".init_args", "") for name in space), title=title)
    first = [each for each in finished[5:] if each.number == 0]
    for each in [*finished[:5], *first]:
        shown = [each.params[name] for name in space]
        values = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in shown)
        table.add_row(f"{each.number}{' (the config)' if each.number == 0 else ''}", f"{each.value:.4f}", *values)
    Console().print(table)


COMMAND = Command(
    name="tune",
    help="search for better settings in short trainings within a budget of time",
    run=tune,
    arguments=add_arguments,
    options=(("--budget 30m", "of tune: the time of the search"),),
)
