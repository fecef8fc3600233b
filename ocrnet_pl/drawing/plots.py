"""Plots of a run: loss and metric curves, confusion matrices, each as one PNG file."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.drawing.panels import ABOVE, DOTS_PER_INCH, INK, Panel, Ticks, new_sheet
from ocrnet_pl.metrics.figures import FIGURES, FUSED, Figure, Place, shown_in
from ocrnet_pl.storage.files import complete_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

Series = tuple[list[float], list[float]]

_NUMBERED_CLASSES = 12
"""Largest number of classes for which a confusion matrix shows its numbers."""
_NAMED_CLASSES = 60
_SHORT_LABEL = 26
"""Largest number of letters of labels that stand side by side in a legend."""
_LONGEST_NAME = 40
"""Largest number of letters of a name."""
_LABELS_POINTS = 30
"""Height of the ticks and the label of a horizontal axis, in points."""


def read_series(path: str | os.PathLike[str]) -> dict[str, Series]:
    """Read a run's ``metrics.csv``.

    Args:
        path: Path of the file; a missing one has no series.

    Returns:
        The steps and values of each logged key, only finite ones.
    """
    series: dict[str, Series] = {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return series
    for row in rows:
        for key, text in row.items():
            if key in ("step", "epoch") or not text:
                continue
            value = float(text)
            if math.isfinite(value):
                steps, values = series.setdefault(key, ([], []))
                steps.append(float(row["step"]))
                values.append(value)
    return series


def plot_curves(
    metrics_csv: str | os.PathLike[str], png: str | os.PathLike[str], figures: Iterable[Figure] = FIGURES
) -> bool:
    """Plot losses, metrics (raw dashed, fused solid), learning rates and speed over the steps.

    Args:
        metrics_csv: Path of a run's ``metrics.csv``.
        png: Path of the file to write.
        figures: Names and titles of the figures that were measured.

    Returns:
        Whether there was anything to plot.
    """
    series = read_series(metrics_csv)
    panels: list[tuple[str, dict[str, tuple[Series, str]]]] = []
    losses = {key: (series[key], "-") for key in sorted(series) if key.startswith("train/loss")}
    panels.append(("Training loss", {key.removeprefix("train/"): curve for key, curve in losses.items()}))
    measured: dict[str, dict[str, tuple[Series, str]]] = {}
    for each in shown_in(Place.CURVES, figures):
        curves = measured.setdefault(each.panel, {})
        for prefix, before, style in ((FUSED, "fused ", "-"), ("", "", "--")):
            if (key := f"val/{prefix}{each.name}") in series:
                curves[before + each.title] = (series[key], style)
    panels += measured.items()
    rates = {key.partition("/")[2] or key: series[key] for key in sorted(series) if key.startswith("lr-")}
    panels.append(("Learning rate", {label: (curve, "-") for label, curve in _of_parts(rates).items()}))
    if "train/images_per_s" in series:
        panels.append(("Training images per second", {"": (series["train/images_per_s"], "-")}))
    panels = [(title, curves) for title, curves in panels if curves]
    if not panels:
        return False

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(4.6 * columns, 3.8 * rows)
    for position, (title, curves) in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, position)
        _draw_curves(axes, title, curves)
    save_figure(figure, png)
    return True


def plot_confusion(confusion: Tensor, names: Sequence[str], png: str | os.PathLike[str]) -> None:
    """Plot a confusion matrix, each row in shares of its true class.

    Args:
        confusion: Counts [S, S], rows true, columns predicted.
        names: Names of the S classes.
        png: Path of the file to write.
    """
    counts = confusion.double().cpu()
    shares = (counts / counts.sum(1, keepdim=True).clamp(min=1)).numpy()
    labels = [plot_text(name) if len(names) <= _NAMED_CLASSES else "" for name in names]
    across = Ticks.names(labels, "predicted", slanted=True)
    up = Ticks.names(labels, "true", downwards=True)
    side = min(10.0, max(2.4, 0.5 * len(names)))
    numbered = len(names) <= _NUMBERED_CLASSES
    # Where there are numbers, no scale of the colors is needed.
    scale = 0.0 if numbered else 0.85
    left, bottom = up.aside, across.below
    figure = new_sheet(left + side + scale + 0.15, bottom + side + ABOVE)
    panel = Panel(figure, (left, bottom, side, side), "shares of the true class", across, up)
    rows, columns = np.indices(shares.shape).reshape(2, -1)
    corners = np.stack((columns - 0.5, rows - 0.5, columns + 0.5, rows + 0.5), 1)
    panel.boxes(corners, _shades(shares.reshape(-1)))
    if numbered:
        for (row, column), share in np.ndenumerate(shares):
            # What never happens is seen best without a number.
            panel.write(column, row, f"{share:.2f}" if share else "", "white" if share > 0.6 else INK)
    else:
        levels = np.linspace(0, 1, 101)
        place = (left + side + scale - 0.25, bottom, 0.2, side)
        beside = Panel(figure, place, "", Ticks(0, 1, {}), Ticks.numbers(0, 1)._replace(grid=False))
        beside.bars((levels[:-1] + levels[1:]) / 2, 0, np.ones(100), 0.01, _shades(levels[1:]))
    save_figure(figure, png)


def _shades(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a color for each share, [N, 4]."""
    from matplotlib import colormaps

    colors: NDArray[np.float64] = colormaps["Blues"](shares)
    return colors


def plot_rate_search(
    rates: Sequence[float], losses: Sequence[float], chosen: float, png: str | os.PathLike[str]
) -> None:
    """Plot the loss over the learning rates that a search tried.

    Args:
        rates: The rates.
        losses: The smoothed loss at each.
        chosen: The rate that was chosen, which is marked.
        png: Path of the file to write.
    """
    figure = new_figure(5.5, 3.8)
    axes = figure.add_subplot()
    # The last step may have been cut off.
    axes.plot(rates[: len(losses)], losses[: len(rates)])
    axes.axvline(chosen, color="tab:red", linewidth=1, label=f"chosen: {chosen:g}")
    axes.set_xscale("log")
    style_axes(axes, "Smoothed training loss", "learning rate")
    add_legend(axes)
    save_figure(figure, png)


def _draw_curves(axes: Axes, title: str, curves: dict[str, tuple[Series, str]]) -> None:
    colors: dict[str, Any] = {}
    for label, ((steps, values), style) in curves.items():
        # The same figure before and after fusion has the same color.
        name = label.removeprefix("fused ")
        (line,) = axes.plot(
            steps, values, style, label=label, color=colors.get(name), marker="o" if len(steps) < 20 else None, ms=3
        )
        colors.setdefault(name, line.get_color())
    style_axes(axes, title, "step")
    if any(curves):
        add_legend(axes)


def _of_parts(rates: Mapping[str, Series]) -> dict[str, Series]:
    """Return the learning rates of the parts of a network; those that are the same get one label.

    Args:
        rates: Learning rates of the optimiser's groups, in which each part has one or two.
    """
    joined: dict[str, Series] = {}
    for curve in rates.values():
        same = [name for name in rates if rates[name] == curve]
        others = {_part(name) for name in rates if name not in same}
        # A part whose groups differ is named by its groups.
        names = [name if _part(name) in others else _part(name) for name in same]
        joined[", ".join(dict.fromkeys(names))] = curve
    return joined


def _part(group: str) -> str:
    return group.removesuffix("_no_decay")


def plot_text(name: str) -> str:
    """Return a name so that matplotlib shows it as it is, and not too long of it.

    Dollar signs would begin a formula, and an underscore at the start would hide it from a legend.
    """
    short = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
    # What is no text, as in names of files, cannot be drawn.
    return short.encode(errors="replace").decode().replace("$", r"\$").lstrip("_") or "-"


def add_legend(axes: Axes) -> None:
    """Add a legend below the axes, where it covers no line."""
    from matplotlib.transforms import ScaledTranslation

    labels = axes.get_legend_handles_labels()[1]
    two = len(labels) > 1 and max(map(len, labels)) <= _SHORT_LABEL
    below = ScaledTranslation(0, -_LABELS_POINTS / 72, axes.figure.dpi_scale_trans)
    axes.legend(
        fontsize=8,
        frameon=False,
        ncols=2 if two else 1,
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=axes.transAxes + below,
        borderaxespad=0,
    )


def style_axes(axes: Axes, title: str, x_label: str) -> None:
    """Give axes the style of all plots: a title on the left, a light grid, no frame."""
    # At a place that is given: to look for one takes a quarter of the time of drawing.
    axes.set_title(title, fontsize=11, loc="left", y=1.0)
    axes.set_xlabel(x_label, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def new_figure(width: float, height: float) -> Picture:
    """Return an empty figure of the given size in inches, in which all texts find room."""
    figure = new_sheet(width, height)
    figure.set_layout_engine("constrained")
    return figure


def save_figure(figure: Picture, png: str | os.PathLike[str]) -> None:
    """Write a figure as a PNG, which appears under its name only when complete."""
    with complete_file(png) as unfinished:
        # The last tenths of size would take as long as all of the drawing.
        figure.savefig(unfinished, format="png", dpi=DOTS_PER_INCH, pil_kwargs={"compress_level": 1})
