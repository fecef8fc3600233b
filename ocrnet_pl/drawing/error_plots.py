"""Plots of where a network errs, each as one PNG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.drawing.plots import new_figure, plot_text, save_figure, style_axes
from ocrnet_pl.metrics.errors.breakdown import Confusion, Group
from ocrnet_pl.metrics.errors.kinds import Kind
from ocrnet_pl.metrics.errors.objects import ERRORS, Curve, ObjectErrors
from ocrnet_pl.structures import Category

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    Kind.CLASS: "wrong class",
    Kind.LOCATION: "wrong place",
    Kind.BOTH: "wrong class and place",
    Kind.DUPLICATE: "duplicate",
    Kind.BACKGROUND: "nothing there",
    Kind.MISSED: "missed",
}
"""What people call the kinds of errors."""

_RAW, _FUSED = "#9ca3af", "#2563eb"
_STATES = {"found": "#10b981", "found below the score": "#f59e0b", "missed": "#d92d3a"}
_MOST_CURVES = 8
_GRID = np.linspace(0, 1, 101)


def plot_costs(errors: Mapping[str, Mapping[str, ObjectErrors]], png: Path) -> None:
    """Plot what each kind of error costs.

    Args:
        errors: The errors of ``boxes`` and ``masks``, each raw and fused.
        png: Path of the file to write.
    """
    shown = {title: parts for title, parts in errors.items() if parts}
    figure = new_figure(5.2 * len(shown), 3.4)
    for place, (title, parts) in enumerate(shown.items(), 1):
        axes = figure.add_subplot(1, len(shown), place)
        height = 0.8 / len(parts)
        for row, (name, found) in enumerate(parts.items()):
            costs = [100 * found.costs.by_kind[kind] for kind in ERRORS]
            places = np.arange(len(ERRORS)) + (row - (len(parts) - 1) / 2) * height
            color = _FUSED if row == len(parts) - 1 else _RAW
            axes.barh(places, np.nan_to_num(costs), height, color=color, label=name)
        axes.set_yticks(range(len(ERRORS)), [TITLES[kind] for kind in ERRORS])
        axes.invert_yaxis()
        style_axes(axes, f"{title}: cost of each error", "AP 50, in points")
        if len(parts) > 1:
            axes.legend(fontsize=8, frameon=False)
    _fixed_layout(figure, 1.5, 0.15, 0.35, 0.6, wspace=0.5)
    save_figure(figure, png)


def _fixed_layout(figure: Figure, left: float, right: float, top: float, bottom: float, **spaces: float) -> None:
    """Place the axes where the sizes of all labels are known, as to find room for them takes as long as to draw.

    Args:
        figure: The figure.
        left: Width to the left of the axes, in inches.
        right: Width to the right.
        top: Height above.
        bottom: Height below.
        spaces: Widths between the axes, as shares of theirs.
    """
    width, height = figure.get_size_inches()
    figure.set_layout_engine(None)
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height, **spaces)


def on_grid(values: NDArray[np.float64], curve: Curve) -> NDArray[np.float64]:
    """Return the values of a curve at 101 scores from 0 to 1; NaN above its highest score."""
    place = np.searchsorted(-curve.scores, -_GRID, "right") - 1
    return np.where(place >= 0, np.append(values, np.nan)[place], np.nan)


def plot_box_curves(curves: Mapping[str, Sequence[Curve]], classes: Sequence[Category], png: Path) -> None:
    """Plot precision over recall, and F1, precision and recall over the score.

    Args:
        curves: One per class, of the raw and of the fused boxes; those of the last are drawn as solid lines.
        classes: The detection classes.
        png: Path of the file to write.
    """
    figure = new_figure(10.5, 7.6)
    panels = ("precision over recall", "F1", "precision", "recall")
    axes = [figure.add_subplot(2, 2, place) for place in range(1, 5)]
    for name, own in curves.items():
        last = name == list(curves)[-1]
        style = "-" if last else "--"
        known = [number for number, curve in enumerate(own) if len(curve.scores) and np.isfinite(curve.recall).any()]
        grids = [
            [on_grid(own[number].f1, own[number]) for number in known],
            [on_grid(own[number].precision, own[number]) for number in known],
            [on_grid(own[number].recall, own[number]) for number in known],
        ]
        if len(known) <= _MOST_CURVES and (last or len(known) <= 2):
            for place, number in enumerate(known):
                color = np.array(classes[number].color) / 255
                label = classes[number].name if last else f"{classes[number].name}, {name}"
                axes[0].plot(
                    own[number].recall, own[number].precision, style, color=color, label=plot_text(label), lw=1.2
                )
                for panel, grid in zip(axes[1:], grids, strict=True):
                    panel.plot(_GRID, grid[place], style, color=color, lw=1.2)
        if len(known) > 1:
            means = [np.nan_to_num(np.array(grid)).mean(0) for grid in (grids[0], grids[2])]
            label = f"mean, {name}" if len(curves) > 1 else "mean"
            axes[1].plot(_GRID, means[0], style, color="#202124", lw=1.8)
            axes[3].plot(_GRID, means[1], style, color="#202124", lw=1.8)
            precision = np.array(grids[1])
            counted = np.isfinite(precision)
            mean = np.where(counted, precision, 0).sum(0) / np.maximum(counted.sum(0), 1)
            axes[2].plot(_GRID, np.where(counted.any(0), mean, np.nan), style, color="#202124", lw=1.8)
            axes[0].plot(means[1], np.where(counted.any(0), mean, np.nan), style, color="#202124", lw=1.8, label=label)
    for panel, title in zip(axes, panels, strict=True):
        style_axes(panel, title, "recall" if panel is axes[0] else "smallest score that counts")
        panel.set_xlim(0, 1)
        panel.set_ylim(0, 1.02)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=5, fontsize=8, frameon=False)
    _fixed_layout(figure, 0.5, 0.15, 0.35, 0.65 + 0.2 * (-(-len(labels) // 5)), wspace=0.15, hspace=0.35)
    save_figure(figure, png)


def plot_groups(groups: Mapping[str, Sequence[Group]], png: Path) -> None:
    """Plot the shares of objects that are found and missed.

    Args:
        groups: Groups by the title of their panel.
        png: Path of the file to write.
    """
    figure = new_figure(3.9 * len(groups), 3.6)
    for place, (title, own) in enumerate(groups.items(), 1):
        axes = figure.add_subplot(1, len(groups), place)
        base = np.zeros(len(own))
        for state, counts in zip(_STATES, zip(*(group[1:] for group in own), strict=True), strict=True):
            shares = np.array(counts) / [group.objects for group in own]
            axes.bar(range(len(own)), shares, 0.75, bottom=base, color=_STATES[state], label=state)
            base += shares
        labels = [f"{group.name}\n{group.objects:,}" for group in own]
        axes.set_xticks(range(len(own)), labels)
        style_axes(axes, title, "with the number of objects")
        axes.set_ylim(0, 1)
    states = axes.get_legend_handles_labels()
    figure.legend(*states, loc="lower center", ncols=len(_STATES), fontsize=8, frameon=False)
    _fixed_layout(figure, 0.5, 0.15, 0.35, 0.95, wspace=0.18)
    save_figure(figure, png)


def plot_pixels(pairs: Sequence[Confusion], names: Sequence[str], labelled: int, png: Path) -> None:
    """Plot the largest confusions of pixels, near edges and away from them.

    Args:
        pairs: The largest confusions.
        names: Names of the segmentation classes.
        labelled: Number of labelled pixels.
        png: Path of the file to write.
    """
    figure = new_figure(8, 1.3 + 0.32 * len(pairs))
    axes = figure.add_subplot()
    shares = 100 * np.array([pair.count for pair in pairs]) / labelled
    edges = shares * [pair.edges for pair in pairs]
    axes.barh(range(len(pairs)), edges, color=_RAW, label="near edges")
    axes.barh(range(len(pairs)), shares - edges, left=edges, color=_STATES["missed"], label="inside of regions")
    labels = [plot_text(f"{names[pair.true]} taken for {names[pair.found]}") for pair in pairs]
    axes.set_yticks(range(len(pairs)), labels)
    axes.invert_yaxis()
    style_axes(axes, "Wrong pixels: the largest confusions", "% of the labelled pixels")
    axes.legend(fontsize=8, frameon=False)
    # A letter of size 8 is at most so wide on average.
    _fixed_layout(figure, 0.2 + 0.07 * max(map(len, labels)), 0.15, 0.35, 0.55)
    save_figure(figure, png)
