"""The runs in a folder side by side: how far each is, its best figures, and what its config changes."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocrnet_pl.data.readers import yaml_text
from ocrnet_pl.drawing.progress import duration
from ocrnet_pl.errors import one_line
from ocrnet_pl.metrics.figures import FUSED, SCORE
from ocrnet_pl.storage.checkpoints import flat_config

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = {SCORE.name: "score", f"{FUSED}map": "mAP", f"{FUSED}miou": "mIoU", f"{FUSED}pq": "PQ"}
"""Headings of the table's figures, by their names below ``val/`` or ``test/``."""

_RECORDS = ("config.yaml", "status.json", "summary.json")
_OF_ITSELF = ("name", "version", "seed_everything", "trainer.default_root_dir", "trainer.logger", "ckpt_path")
"""Keys in which any two runs differ, or that have a column of their own."""
_LARGEST = 64 << 20
_MOST_CHANGES = 12
_PLUMBING = re.compile(r"\.(?:init_args|class_path|dict_kwargs)\b")


@dataclass(frozen=True)
class RunRecord:
    """What a run's folder says of it.

    Attributes:
        name: Its folder, relative to that of all runs.
        state: ``running``, ``finished``, ``interrupted``, ``incomplete``, ``failed`` or ``unknown``.
        command: The subcommand.
        step: Number of optimiser steps; None if it is unknown.
        steps: Number of steps planned; None if there is no end, or it is unknown.
        seconds: Time that it took so far; None if it is unknown.
        seed: Its seed; None if it had none.
        figures: Its best figures, by their names without the stage.
        settings: Its config, flat, with the keys of its classes' arguments.
    """

    name: str
    state: str
    command: str
    step: int | None
    steps: int | None
    seconds: float | None
    seed: int | None
    figures: Mapping[str, float]
    settings: Mapping[str, Any]

    def changes(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that differ from those of another config, by their keys.

        A setting that the other does not know and that is off is no difference.
        """
        return {
            key: value
            for key, value in self.settings.items()
            if key not in _OF_ITSELF and (base[key] != value if key in base else value not in (None, False))
        }


def read_runs(root: Path) -> tuple[list[RunRecord], list[str]]:
    """Read the records of all runs in a folder.

    Args:
        root: Folder of the runs, at any depth below which a run's folder holds a ``summary.json`` or ``status.json``.

    Returns:
        The runs, that with the best score first, and one line for each file that could not be read.

    Raises:
        FileNotFoundError: There is no such folder, or no run in it.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"trainer.default_root_dir: there is no folder {str(root)!r}")
    folders = sorted({path.parent for name in _RECORDS[1:] for path in root.rglob(name)})
    if not folders:
        raise FileNotFoundError(f"trainer.default_root_dir: no run in {str(root)!r} has written anything yet")
    faults: list[str] = []
    runs = [_read(folder, str(folder.relative_to(root)), faults) for folder in folders]
    return sorted(runs, key=_rank), faults


def _rank(run: RunRecord) -> tuple[float, str]:
    score = run.figures.get(SCORE.name, math.nan)
    return (math.inf if math.isnan(score) else -score, run.name)


def _read(folder: Path, name: str, faults: list[str]) -> RunRecord:
    status, summary = (_mapping(folder / file, faults) for file in ("status.json", "summary.json"))
    config = _mapping(folder / "config.yaml", faults)
    figures = summary.get("best") or status.get("figures")
    seed = summary.get("seed", config.get("seed_everything"))
    # Only the status tells a failure from an interruption; and of a run that was killed, it is the last word.
    states = [status.get("state"), summary.get("status")]
    state = next((each for each in states if each and each != "running"), status.get("state") or "unknown")
    return RunRecord(
        name=name,
        state=str(state),
        command=str(summary.get("command") or status.get("command") or ""),
        step=_whole(summary.get("steps", status.get("step"))),
        steps=_whole(status.get("steps")),
        seconds=_number(summary.get("time_s")),
        seed=_whole(seed),
        figures={
            str(key).partition("/")[2]: number
            for key, value in (figures.items() if isinstance(figures, Mapping) else ())
            if (number := _number(value)) is not None
        },
        settings=dict(flat_config(config)) if config else {},
    )


def _mapping(path: Path, faults: list[str]) -> dict[str, Any]:
    """Return the content of a file; nothing if there is none, or it is damaged, which is then a fault."""
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST >> 20} MiB")
        text = path.read_text(encoding="utf-8")
        content = yaml_text.load(text) if path.suffix == ".yaml" else json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("expected keys with values")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        faults.append(f"{path}: {one_line(error)}")
        return {}
    return content


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def run_table(runs: Iterable[RunRecord]) -> Table:
    """Build a table of states and figures for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    # Without vertical lines, names of runs are whole at 80 columns.
    table = Table(title="Runs, with their best figures after fusion", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("run", overflow="fold")
    for heading in ("state", "step", "time", *COLUMNS.values()):
        table.add_column(heading, justify="left" if heading == "state" else "right", no_wrap=True)
    for run in runs:
        table.add_row(
            escape(run.name),
            run.state if run.command in ("fit", "") else f"{run.state} ({run.command})",
            _progress(run),
            "" if run.seconds is None else duration(run.seconds),
            *(_figure(run.figures.get(column)) for column in COLUMNS),
        )
    return table


def changes_text(run: RunRecord, base: Mapping[str, Any]) -> str:
    """Return in one line what a run changes, with the keys as a command line takes them.

    Args:
        run: The run.
        base: The settings that its config is compared with, flat.
    """
    parts = [] if run.seed is None else [f"seed {run.seed}"]
    for key, value in run.changes(base).items():
        if key.endswith(".class_path"):
            value = str(value).rpartition(".")[2]
        parts.append(f"{_PLUMBING.sub('', key)}={value}")
    more = len(parts) - _MOST_CHANGES
    listed = ", ".join(parts[:_MOST_CHANGES]) or "no changes"
    return f"{run.name}: {listed}{f', and {more} more' if more > 0 else ''}"


def _progress(run: RunRecord) -> str:
    if run.step is None:
        return ""
    return f"{run.step} of {run.steps}" if run.steps and run.steps != run.step else str(run.step)


def _figure(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4f}"


def write_runs(path: Path, runs: Sequence[RunRecord], base: Mapping[str, Any]) -> None:
    """Write the runs as CSV: one column per figure, and one per setting in which any of them differs.

    Args:
        path: The file.
        runs: The runs.
        base: The settings that their configs are compared with, flat.
    """
    from ocrnet_pl.storage.files import complete_file

    changes = [run.changes(base) for run in runs]
    keys = list(dict.fromkeys(key for each in changes for key in each))
    figures = sorted({name for run in runs for name in run.figures})
    with complete_file(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "state", "command", "step", "steps", "seconds", "seed", *figures, *keys])
        for run in runs:
            fixed = [run.name, run.state, run.command, run.step, run.steps, run.seconds, run.seed]
            measured = [run.figures.get(name) for name in figures]
            writer.writerow([*fixed, *measured, *(run.settings.get(key, base.get(key)) for key in keys)])
