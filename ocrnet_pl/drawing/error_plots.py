"""Plots of where a network errs, each as one PNG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.drawing.panels import (
    ABOVE,
    INK,
    Key,
    LineStyle,
    Panel,
    Ticks,
    add_keys,
    key_height,
    new_sheet,
    text_width,
)
from ocrnet_pl.drawing.plots import plot_text, save_figure
from ocrnet_pl.metrics.errors.breakdown import Confusion, Group
from ocrnet_pl.metrics.errors.kinds import Kind
from ocrnet_pl.metrics.errors.objects import ERRORS, Curve, ObjectErrors
from ocrnet_pl.structures import Category

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
_BETWEEN = 0.25
"""Width in inches between panels side by side."""
_TITLE_WIDTH = 2.2
"""Width in inches that a panel has at least, for its title."""
_GRID = np.linspace(0, 1, 101)


def plot_costs(errors: Mapping[str, Mapping[str, ObjectErrors]], png: Path) -> None:
    """Plot what each kind of error costs.

    Args:
        errors: The errors of ``boxes`` and ``masks``, each raw and fused.
        png: Path of the file to write.
    """
    shown = {title: parts for title, parts in errors.items() if parts}
    up = Ticks.names([TITLES[kind] for kind in ERRORS], downwards=True)
    costs = {
        title: 100 * np.nan_to_num([[found.costs.by_kind[kind] for kind in ERRORS] for found in parts.values()])
        for title, parts in shown.items()
    }
    # One scale for all, as what costs more is to be longer.
    across = Ticks.numbers(0, 1.05 * max(0.1, *(float(own.max()) for own in costs.values())), "AP 50, in points")
    names = next(iter(shown.values()))
    colors = [_FUSED] if len(names) == 1 else [_RAW, _FUSED]
    keys = [Key(name, color) for name, color in zip(names, colors, strict=True)] if len(names) > 1 else []
    width, height = 3.7, 2.4
    whole = up.aside + (width + _BETWEEN) * len(shown)
    bottom = across.below + key_height(keys, whole)
    figure = new_sheet(whole, bottom + height + ABOVE)
    for place, title in enumerate(shown):
        left = up.aside + (width + _BETWEEN) * place
        heading = f"{title}: cost of each error"
        panel = Panel(figure, (left, bottom, width, height), heading, across, up.bare() if place else up)
        thick = 0.8 / len(colors)
        for row, (own, color) in enumerate(zip(costs[title], colors, strict=True)):
            places = np.arange(len(ERRORS)) + (row - (len(colors) - 1) / 2) * thick
            panel.bars(places, 0, own, thick, color)
    add_keys(figure, keys)
    save_figure(figure, png)


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
    width, height = 4.6, 2.9
    recall, score = (Ticks.numbers(0, 1, label) for label in ("recall", "smallest score that counts"))
    up = Ticks.numbers(0, 1)._replace(high=1.02)
    whole, row = up.aside + 2 * (width + _BETWEEN), recall.below + height + ABOVE
    lines, keys = _curve_lines(curves, classes)
    bottom = key_height(keys, whole)
    figure = new_sheet(whole, bottom + 2 * row)
    titles = {"precision over recall": recall, "F1": score, "precision": score, "recall": score}
    for place, ((title, across), own) in enumerate(zip(titles.items(), lines, strict=True)):
        left, lower = up.aside + (width + _BETWEEN) * (place % 2), bottom + row * (1 - place // 2) + across.below
        panel = Panel(figure, (left, lower, width, height), title, across, up.bare() if place % 2 else up)
        for line in own:
            panel.line(*line)
    add_keys(figure, keys)
    save_figure(figure, png)


class _Line(NamedTuple):
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    style: LineStyle
    color: Any
    width: float


def _curve_lines(
    curves: Mapping[str, Sequence[Curve]], classes: Sequence[Category]
) -> tuple[tuple[list[_Line], ...], list[Key]]:
    """Return the lines of the four panels of curves, and what their colors mean."""
    lines: tuple[list[_Line], ...] = ([], [], [], [])
    keys = []
    for name, own in curves.items():
        last = name == list(curves)[-1]
        style: LineStyle = "-" if last else "--"
        known = [number for number, curve in enumerate(own) if len(curve.scores) and np.isfinite(curve.recall).any()]
        grids = [
            [on_grid(own[number].f1, own[number]) for number in known],
            [on_grid(own[number].precision, own[number]) for number in known],
            [on_grid(own[number].recall, own[number]) for number in known],
        ]
        if len(known) <= _MOST_CURVES and (last or len(known) <= 2):
            for place, number in enumerate(known):
                color = tuple(value / 255 for value in classes[number].color)
                label = classes[number].name if last else f"{classes[number].name}, {name}"
                keys.append(Key(plot_text(label), color, style))
                lines[0].append(_Line(own[number].recall, own[number].precision, style, color, 1.2))
                for panel, grid in zip(lines[1:], grids, strict=True):
                    panel.append(_Line(_GRID, grid[place], style, color, 1.2))
        if len(known) > 1:
            f1, recall = (np.nan_to_num(np.array(grid)).mean(0) for grid in (grids[0], grids[2]))
            precision = np.array(grids[1])
            counted = np.isfinite(precision)
            mean = np.where(counted, precision, 0).sum(0) / np.maximum(counted.sum(0), 1)
            mean = np.where(counted.any(0), mean, np.nan)
            keys.append(Key(f"mean, {name}" if len(curves) > 1 else "mean", INK, style))
            for panel, x, y in zip(lines, (recall, *([_GRID] * 3)), (mean, f1, mean, recall), strict=True):
                panel.append(_Line(x, y, style, INK, 1.8))
    return lines, keys


def plot_groups(groups: Mapping[str, Sequence[Group]], png: Path) -> None:
    """Plot the shares of objects that are found and missed.

    Args:
        groups: Groups by the title of their panel.
        png: Path of the file to write.
    """
    up, height = Ticks.numbers(0, 1), 2.3
    own_ticks = [
        Ticks.names([f"{group.name}\n{group.objects:,}" for group in own], "with the number of objects")
        for own in groups.values()
    ]
    keys = [Key(state, color) for state, color in _STATES.items()]
    each = 0.1 + max(0.45, *(text_width(across.texts.values()) for across in own_ticks))
    widths = [max(_TITLE_WIDTH, each * len(own)) for own in groups.values()]
    whole = up.aside + sum(widths) + _BETWEEN * len(groups)
    bottom = own_ticks[0].below + key_height(keys, whole)
    figure = new_sheet(whole, bottom + height + ABOVE)
    left = up.aside
    for (title, own), across, width in zip(groups.items(), own_ticks, widths, strict=True):
        axis = up if left == up.aside else up.bare()
        panel = Panel(figure, (left, bottom, width, height), title, across, axis)
        left += width + _BETWEEN
        base = np.zeros(len(own))
        for color, counts in zip(_STATES.values(), zip(*(group[1:] for group in own), strict=True), strict=True):
            top = base + np.array(counts) / [group.objects for group in own]
            panel.bars(range(len(own)), base, top, 0.75, color, upright=True)
            base = top
    add_keys(figure, keys)
    save_figure(figure, png)


def plot_pixels(pairs: Sequence[Confusion], names: Sequence[str], labelled: int, png: Path) -> None:
    """Plot the largest confusions of pixels, near edges and away from them.

    Args:
        pairs: The largest confusions.
        names: Names of the segmentation classes.
        labelled: Number of labelled pixels.
        png: Path of the file to write.
    """
    shares = 100 * np.array([pair.count for pair in pairs]) / labelled
    edges = shares * [pair.edges for pair in pairs]
    labels = [plot_text(f"{names[pair.true]} taken for {names[pair.found]}") for pair in pairs]
    up = Ticks.names(labels, downwards=True)
    across = Ticks.numbers(0, 1.05 * float(shares.max()), "% of the labelled pixels")
    keys = [Key("near edges", _RAW), Key("inside of regions", _STATES["missed"])]
    width, height = 5.0, 0.32 * len(pairs)
    whole = up.aside + width + _BETWEEN
    bottom = across.below + key_height(keys, whole)
    figure = new_sheet(whole, bottom + height + ABOVE)
    title = "Wrong pixels: the largest confusions"
    panel = Panel(figure, (up.aside, bottom, width, height), title, across, up)
    panel.bars(range(len(pairs)), 0, edges, 0.8, keys[0].color)
    panel.bars(range(len(pairs)), edges, shares, 0.8, keys[1].color)
    add_keys(figure, keys)
    save_figure(figure, png)
