"""Reliability diagrams: how often what has a probability is right."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from ocrnet_pl.drawing.plots import new_figure, save_figure, style_axes
from ocrnet_pl.metrics.reliability import Reliability

_MOST_PANELS = 12


def plot_reliability(
    panels: Mapping[str, tuple[Reliability, Reliability]], png: str | os.PathLike[str], images: int
) -> None:
    """Draw how often boxes or pixels of each probability were right, before and after calibration.

    Args:
        panels: What is known before and after, by title; the first 12 are drawn.
        png: Path of the file to write.
        images: Number of images that it is from.
    """
    shown = list(panels.items())[:_MOST_PANELS]
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(max(5.5, 3.6 * columns), 3.6 * rows + 0.6)
    figure.suptitle(
        f"Right at a given probability, on {images} images"
        if len(shown) == len(panels)
        else f"Right at a given probability, on {images} images; the first {len(shown)} of {len(panels)}"
    )
    for position, (title, pair) in enumerate(shown, 1):
        axes = figure.add_subplot(rows, columns, position)
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=1, zorder=0)
        for found, color, name in zip(pair, ("0.55", "tab:blue"), ("before", "after"), strict=True):
            some = np.flatnonzero(found.counts)
            label = f"{name}, error {found.error:.3f}"
            axes.plot(found.confidence[some], found.accuracy[some], color=color, linewidth=1, label=label)
            # Large points stand for many cases.
            area = 4 + 60 * found.counts[some] / max(int(found.counts.max()), 1)
            axes.scatter(found.confidence[some], found.accuracy[some], area, color=color, clip_on=False)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_ylabel("share that is right")
        style_axes(axes, title, "probability")
        axes.legend(loc="lower right", fontsize=8, frameon=False)
    save_figure(figure, png)
