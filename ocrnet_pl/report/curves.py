"""The curves of the report: joint network and twins over the steps."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ocrnet_pl.drawing.plots import Series, add_legend, new_figure, read_series, save_figure, style_axes
from ocrnet_pl.metrics.figures import BY_NAME, FUSED

_JOINT, _FUSED, _ALONE = "#2563eb", "#10b981", "#f59e0b"
_COLUMNS = 3
_ALONE_NAMES = ("detection", "segmentation")
_TWINS = {"map": "detection", "miou": "segmentation", "pq": "detection"}
"""The figures that are drawn, each with the twin that has it."""


class _Curve(NamedTuple):
    label: str
    color: str
    runs: list[Series]


def draw_curves(
    folders: Mapping[str, Sequence[Path]], png: Path, own_figures: Sequence[Mapping[str, Any]] = ()
) -> bool:
    """Draw figures and losses over the steps: the mean over the seeds, and each seed as a thin line.

    Args:
        folders: Run folders with a ``metrics.csv``, one per seed, of ``joint``, ``detection`` and ``segmentation``.
        png: Path of the file to write.
        own_figures: Figures of ``model.metrics``, as ``summary.json`` holds them.

    Returns:
        Whether there was anything to draw.
    """
    series = {name: [read_series(folder / "metrics.csv") for folder in runs] for name, runs in folders.items()}

    def runs_of(name: str, key: str) -> list[Series]:
        return [run[key] for run in series[name] if key in run]

    panels = [
        (
            title,
            [
                _Curve("joint", _JOINT, runs_of("joint", f"val/{key}")),
                _Curve("joint, fused", _FUSED, runs_of("joint", f"val/{FUSED}{key}")),
                _Curve(f"{twin} alone", _ALONE, runs_of(twin, f"val/{key}")),
            ],
        )
        for title, key, twin in (
            *((BY_NAME[name].panel, name, twin) for name, twin in _TWINS.items()),
            *((own["title"], own["name"], _one_that_has(series, own["name"])) for own in own_figures),
        )
    ]
    terms = dict.fromkeys(key for run in series["joint"] for key in sorted(run) if key.startswith("train/loss_"))
    for key in terms:
        twin = next((t for t in _ALONE_NAMES if any(_moves(s) for s in runs_of(t, key))), "detection")
        curves = [_Curve("joint", _JOINT, runs_of("joint", key)), _Curve(f"{twin} alone", _ALONE, runs_of(twin, key))]
        panels.append((f"Training loss: {key.removeprefix('train/loss_')}", curves))
    panels = [(title, [curve for curve in curves if curve.runs]) for title, curves in panels]
    panels = [(title, curves) for title, curves in panels if curves]
    if not panels:
        return False
    rows = -(-len(panels) // _COLUMNS)
    figure = new_figure(4.6 * _COLUMNS, 3.2 * rows)
    for position, (title, curves) in enumerate(panels, 1):
        axes = figure.add_subplot(rows, _COLUMNS, position)
        for label, color, runs in curves:
            if len(runs) > 1:
                for steps, values in runs:
                    axes.plot(steps, values, color=color, lw=0.7, alpha=0.4)
            steps, values = _mean(runs)
            axes.plot(steps, values, color=color, label=label, marker="o" if len(steps) < 20 else None, ms=3)
        style_axes(axes, title, "step")
        add_legend(axes)
    save_figure(figure, png)
    return True


def _one_that_has(series: Mapping[str, Sequence[Mapping[str, Series]]], name: str) -> str:
    """Return the twin that measured a figure."""
    return next((twin for twin in _ALONE_NAMES if any(f"val/{name}" in run for run in series[twin])), "detection")


def _moves(series: Series) -> bool:
    """Return whether the run trained a loss: losses of an absent decoder are zero throughout."""
    return any(series[1])


def _mean(runs: Sequence[Series]) -> Series:
    """Return the mean at the steps that all runs have."""
    tables = [dict(zip(*run, strict=True)) for run in runs]
    steps = [step for step in tables[0] if all(step in table for table in tables)]
    return steps, [statistics.fmean(table[step] for table in tables) for step in steps]
