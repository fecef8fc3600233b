"""The curves of the report: joint network and twins over the steps."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ocrnet_pl.drawing.plots import Series, new_figure, read_series, save_figure, style_axes

_JOINT, _FUSED, _ALONE = "#2563eb", "#10b981", "#f59e0b"
_COLUMNS = 3


class _Curve(NamedTuple):
    label: str
    color: str
    runs: list[Series]


def draw_curves(folders: Mapping[str, Sequence[Path]], png: Path) -> bool:
    """Draw figures and losses over the steps: the mean over the seeds, and each seed as a thin line.

    Args:
        folders: Run folders with a ``metrics.csv``, one per seed, of ``joint``, ``detection`` and ``segmentation``.
        png: Path of the file to write.

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
                _Curve("joint, fused", _FUSED, runs_of("joint", f"val/fused_{key}")),
                _Curve(f"{twin} alone", _ALONE, runs_of(twin, f"val/{key}")),
            ],
        )
        for title, key, twin in (
            ("Box mAP", "map", "detection"),
            ("mIoU", "miou", "segmentation"),
            ("Panoptic quality", "pq", "detection"),
        )
    ]
    terms = dict.fromkeys(key for run in series["joint"] for key in sorted(run) if key.startswith("train/loss_"))
    for key in terms:
        twin = next((t for t in ("detection", "segmentation") if any(_moves(s) for s in runs_of(t, key))), "detection")
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
        axes.legend(fontsize=8, frameon=False)
    save_figure(figure, png)
    return True


def _moves(series: Series) -> bool:
    """Return whether the run trained a loss: losses of an absent decoder are zero throughout."""
    return any(series[1])


def _mean(runs: Sequence[Series]) -> Series:
    """Return the mean at the steps that all runs have."""
    tables = [dict(zip(*run, strict=True)) for run in runs]
    steps = [step for step in tables[0] if all(step in table for table in tables)]
    return steps, [statistics.fmean(table[step] for table in tables) for step in steps]
