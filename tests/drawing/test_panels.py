"""Panels against matplotlib's own axes, and their texts against each other."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from ocrnet_pl.drawing import error_plots, plots
from ocrnet_pl.drawing.error_plots import plot_box_curves, plot_groups, plot_pixels
from ocrnet_pl.drawing.panels import Panel, Ticks, new_sheet
from ocrnet_pl.drawing.plots import plot_confusion, plot_text
from ocrnet_pl.metrics.errors.breakdown import Confusion, Group
from ocrnet_pl.metrics.errors.objects import Curve
from ocrnet_pl.structures import Taxonomy


def pixels(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)  # type: ignore[attr-defined]


def test_values_are_where_axes_of_matplotlib_have_them() -> None:
    across, up = Ticks.numbers(-2, 6), Ticks.names(["a", "b", "c"], downwards=True)
    figure = new_sheet(5, 4)
    panel = Panel(figure, (1, 0.5, 3, 2.5), "", across._replace(texts={}), up._replace(texts={}))
    panel.bars([0, 2], [0, -1], [5, 3], 0.8, "#ff0000")
    panel.line([-1, np.nan, 4], [1, 1, 1], "-", "#0000ff", 3)
    panel.line([1, 4], [0.9, 0.9], "-", "#0000ff", 3)
    other = new_sheet(5, 4)
    axes = other.add_axes((1 / 5, 0.5 / 4, 3 / 5, 2.5 / 4))
    axes.barh([0, 2], [5, 4], 0.8, [0, -1], color="#ff0000")
    axes.plot([1, 4], [0.9, 0.9], color="#0000ff", lw=3, solid_capstyle="butt")
    axes.set_xlim(-2, 6)
    axes.set_ylim(2.5, -0.5)
    axes.set_axis_off()
    own, theirs = pixels(figure), pixels(other)
    for color in ([255, 0, 0], [0, 0, 255]):
        found, wanted = ((image == color).all(-1) for image in (own, theirs))
        assert wanted.sum() > 500
        for axis in (0, 1):
            ends, right = (np.flatnonzero(each.any(axis)) for each in (found, wanted))
            # Edges are drawn on whole pixels, the ends of lines reach half their width farther.
            assert np.abs(ends[[0, -1]] - right[[0, -1]]).max() <= 3


def curve() -> Curve:
    return Curve(np.array([0.9, 0.5], np.float32), np.array([1, 0.5]), np.array([0.4, 0.8]))


@pytest.mark.parametrize("plot", ["confusion", "many", "curves", "groups", "pixels"])
def test_no_text_is_cut_off_or_lies_on_another(monkeypatch: pytest.MonkeyPatch, plot: str) -> None:
    drawn: list[Figure] = []
    for module in (plots, error_plots):
        monkeypatch.setattr(module, "save_figure", lambda figure, png: drawn.append(figure))
    names = ["$x_{", "", "W" * 300, *(f"class number {number}" for number in range(6))]
    png = Path("unused.png")
    if plot in ("confusion", "many"):
        names = names if plot == "confusion" else [f"class {number}" for number in range(40)]
        plot_confusion(torch.ones(len(names), len(names)), names, png)
    elif plot == "curves":
        classes = Taxonomy.build([f"{name} {place}" for place, name in enumerate(names[:8])]).detection_categories
        plot_box_curves({name: [curve()] * 8 for name in ("raw", "fused")}, classes, png)
    elif plot == "groups":
        own = [Group(f"{place}00-{place}99", 10**6, 0, 10**6) for place in range(1, 8)]
        plot_groups({"size": own, "overlap with a neighbour": own[:5], "objects in the image": own}, png)
    else:
        plot_pixels([Confusion(place, 2, 10, 0.5, 0.5) for place in range(9)], names, 10**6, png)
    (figure,) = drawn
    figure.canvas.draw()
    width, height = figure.bbox.size
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert len(texts) > 15
    # Upright boxes around slanted texts overlap where the texts do not.
    places = [text.get_window_extent() for text in texts if text.get_rotation() != 45]
    for place in (text.get_window_extent() for text in texts):
        assert place.x0 >= 0 and place.y0 >= 0 and place.x1 <= width and place.y1 <= height
    for one, other in combinations(places, 2):
        assert not (one.x0 < other.x1 and other.x0 < one.x1 and one.y0 < other.y1 and other.y0 < one.y1)
    slanted = [text.get_window_extent() for text in texts if text.get_rotation() == 45]
    labels = [text.get_window_extent() for text in texts if text.get_text() in ("predicted", plot_text("background"))]
    assert all(label.y1 <= min(place.y0 for place in slanted) + 1 for label in labels if slanted)


def test_a_neighbour_has_the_lines_but_not_the_texts() -> None:
    ticks = Ticks.numbers(0, 1, "recall")
    assert list(ticks.texts.values()) == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert ticks.bare().texts.keys() == ticks.texts.keys() and not any(ticks.bare().texts.values())
    assert ticks.bare().aside < ticks.aside
