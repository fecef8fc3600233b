"""Plots whose layout is known before they are drawn, from few parts of matplotlib.

Axes of matplotlib consist of hundreds of parts with styles of their own, most of which stay invisible, and a figure is
mostly the time to make them. A panel here is its lines, bars and texts, placed by one transform; a figure takes a third
of the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

LineStyle = Literal["-", "--"]

DOTS_PER_INCH = 120
"""Resolution of all plots."""
INK = "#202124"
"""Color of texts and edges."""
ABOVE = 0.35
"""Height in inches that the title takes above a panel."""
_GRID = "#e5e5e5"
_TITLE, _LABEL, _TICK = 11, 9, 8
"""Sizes of the texts in points."""
_LINE = 0.15
"""Height in inches of a line of a tick's text."""
_GAP = 0.06
"""Distance in inches of texts from what they belong to."""
_KEY_ROW = 0.18
"""Height in inches of a row of a key."""


class Ticks(NamedTuple):
    """What stands along one axis of a panel.

    Attributes:
        low: Value at the axis's start.
        high: Value at its end.
        texts: Texts by their values; an empty one is a line without text.
        label: What the axis shows; empty for no label.
        grid: Whether a line is drawn across the panel at each value.
        slanted: Whether the texts below a panel are slanted, to have room for long ones.
    """

    low: float
    high: float
    texts: dict[float, str]
    label: str = ""
    grid: bool = True
    slanted: bool = False

    @classmethod
    def numbers(cls, low: float, high: float, label: str = "", steps: int = 5) -> Ticks:
        """Return round numbers.

        Args:
            low: Value at the axis's start.
            high: Value at its end, above ``low``.
            label: What the axis shows.
            steps: Largest number of steps between them.
        """
        from matplotlib.ticker import MaxNLocator

        values = MaxNLocator(steps, steps=[1, 2, 5, 10]).tick_values(low, high)
        texts = {float(value): f"{value:g}" for value in values if low <= value <= high}
        return cls(low, high, texts, label)

    @classmethod
    def names(cls, names: Sequence[str], label: str = "", slanted: bool = False, downwards: bool = False) -> Ticks:
        """Return names at 0, 1, 2 and so on, with half a step before the first and after the last.

        Args:
            names: The names, as matplotlib shows them.
            label: What the axis shows.
            slanted: Whether they are slanted.
            downwards: Whether the first one is at the axis's end, as in a table.
        """
        ends = (len(names) - 0.5, -0.5) if downwards else (-0.5, len(names) - 0.5)
        return cls(*ends, {float(place): name for place, name in enumerate(names)}, label, False, slanted)

    def bare(self) -> Ticks:
        """Return the same without texts, for a panel whose neighbour has them."""
        return self._replace(texts=dict.fromkeys(self.texts, ""), label="")

    @property
    def below(self) -> float:
        """The height in inches that texts and label take below a panel."""
        return self.texts_below + (_LABEL / 72 + 2 * _GAP if self.label else _GAP)

    @property
    def aside(self) -> float:
        """The width in inches that texts and label take to the left of a panel."""
        return self.texts_aside + (_LABEL / 72 + 2 * _GAP if self.label else _GAP)

    @property
    def texts_below(self) -> float:
        """The height in inches that the texts alone take below a panel."""
        if self.slanted:
            return _GAP + math.sqrt(0.5) * (text_width(self.texts.values()) + _LINE)
        return _GAP + _LINE * max((text.count("\n") + 1 for text in self.texts.values() if text), default=0)

    @property
    def texts_aside(self) -> float:
        """The width in inches that the texts alone take to the left of a panel."""
        return _GAP + text_width(self.texts.values())


def text_width(texts: Iterable[str], size: float = _TICK) -> float:
    """Return the width of the longest line in inches.

    Args:
        texts: Texts of one line or more; none have no width.
        size: Their size in points.
    """
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    renderer, font = RendererAgg(1, 1, DOTS_PER_INCH), FontProperties(size=size)
    lines = [line for text in texts for line in text.splitlines()]
    widths = [renderer.get_text_width_height_descent(line, font, ismath=False)[0] for line in lines]
    return float(max(widths, default=0.0)) / DOTS_PER_INCH


def new_sheet(width: float, height: float) -> Figure:
    """Return an empty figure of the given size in inches."""
    # Not pyplot: it would keep figures alive and look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    return figure


class Panel:
    """A part of a figure in which values are drawn, with a title, edges on the left and below, and a light grid.

    Args:
        figure: The figure.
        place: Left side, lower side, width and height of the panel in inches, without the texts around it.
        title: Its title.
        across: The horizontal axis.
        up: The vertical axis.
    """

    def __init__(
        self, figure: Figure, place: tuple[float, float, float, float], title: str, across: Ticks, up: Ticks
    ) -> None:
        from matplotlib.collections import LineCollection
        from matplotlib.transforms import Affine2D

        self._figure = figure
        left, bottom, width, height = place
        x_scale, y_scale = width / (across.high - across.low), height / (up.high - up.low)
        inches = Affine2D.from_values(x_scale, 0, 0, y_scale, left - across.low * x_scale, bottom - up.low * y_scale)
        self._values = inches + figure.dpi_scale_trans
        grid = [((x, up.low), (x, up.high)) for x in across.texts if across.grid]
        grid += [((across.low, y), (across.high, y)) for y in up.texts if up.grid]
        edges = ((across.low, up.high), (across.low, up.low), (across.high, up.low))
        self._add(LineCollection(grid, colors=_GRID, linewidths=0.8, zorder=0))
        self._add(LineCollection([edges], colors=INK, linewidths=0.8, zorder=3))
        for x, text in across.texts.items():
            where = left + (x - across.low) * x_scale, bottom - _GAP
            slant = {"rotation": 45, "rotation_mode": "anchor", "ha": "right"} if across.slanted else {"ha": "center"}
            _write(figure, where, text, _TICK, va="top", **slant)
        for y, text in up.texts.items():
            where = left - _GAP, bottom + (y - up.low) * y_scale
            _write(figure, where, text, _TICK, ha="right", va="center_baseline")
        _write(figure, (left, bottom + height + 1.3 * _GAP), title, _TITLE)
        if across.label:
            where = left + width / 2, bottom - across.texts_below - _GAP / 2
            _write(figure, where, across.label, _LABEL, ha="center", va="top")
        if up.label:
            where = left - up.texts_aside - _GAP / 2, bottom + height / 2
            _write(figure, where, up.label, _LABEL, ha="right", va="center", rotation=90)

    def line(self, x: ArrayLike, y: ArrayLike, style: LineStyle, color: Any, width: float) -> None:
        """Draw a line, with a gap wherever a value is NaN.

        Args:
            x: Values along the horizontal axis, [N].
            y: Values along the vertical axis, [N].
            style: Whether it is solid or dashed.
            color: matplotlib's color.
            width: Width in points.
        """
        from matplotlib.lines import Line2D

        self._add(Line2D(x, y, linestyle=style, color=color, linewidth=width))

    def boxes(self, corners: ArrayLike, colors: Any) -> None:
        """Fill rectangles.

        Args:
            corners: Two opposite corners of each, x1, y1, x2, y2, [N, 4].
            colors: One color of matplotlib for all, or one for each.
        """
        from matplotlib.collections import PolyCollection

        x1, y1, x2, y2 = np.asarray(corners, dtype=np.float64).reshape(-1, 4).T
        around = np.stack((x1, y1, x2, y1, x2, y2, x1, y2), 1).reshape(-1, 4, 2)
        # Whole pixels, so that there is no seam between neighbours.
        self._add(PolyCollection(list(around), facecolors=colors, antialiased=False))

    def bars(
        self, places: ArrayLike, starts: ArrayLike, ends: ArrayLike, thick: float, color: Any, upright: bool = False
    ) -> None:
        """Draw bars.

        Args:
            places: Their middles along the axis of their names, [N].
            starts: Where they start along the other axis, [N] or a number.
            ends: Where they end, [N].
            thick: Their thickness, in the unit of ``places``.
            color: matplotlib's color.
            upright: Whether they go upwards, not to the right.
        """
        places, starts, ends = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (places, starts, ends)))
        sides = (places - thick / 2, starts, places + thick / 2, ends)
        x1, y1, x2, y2 = sides if upright else (sides[1], sides[0], sides[3], sides[2])
        self.boxes(np.stack((x1, y1, x2, y2), 1), color)

    def write(self, x: float, y: float, text: str, color: Any) -> None:
        """Write a short text whose middle is at a place."""
        from matplotlib.text import Text

        self._add(Text(x, y, text, fontsize=_LABEL, color=color, ha="center", va="center"))

    def _add(self, artist: Artist) -> None:
        artist.set_transform(self._values)
        self._figure.add_artist(artist)


class Key(NamedTuple):
    """What a color of the panels means.

    Attributes:
        text: What it means.
        color: matplotlib's color.
        style: Whether the lines are solid or dashed; None for bars.
    """

    text: str
    color: Any
    style: LineStyle | None = None


def key_height(keys: Sequence[Key], width: float) -> float:
    """Return the height in inches that :func:`add_keys` takes at the lower edge of a figure of a width."""
    return _KEY_ROW * len(_key_rows(keys, width)) + (_GAP if keys else 0.0)


def add_keys(figure: Figure, keys: Sequence[Key]) -> None:
    """Say at the lower edge of a figure what its colors mean."""
    from matplotlib.lines import Line2D

    rows = _key_rows(keys, figure.get_size_inches()[0])
    for number, row in enumerate(rows):
        left = (figure.get_size_inches()[0] - sum(width for _, width in row)) / 2
        middle = _GAP + _KEY_ROW * (len(rows) - number - 0.5)
        for key, width in row:
            ends = [left + 0.1, left + 0.35]
            look = {"linestyle": key.style, "linewidth": 1.8} if key.style else {"linewidth": 7}
            line = Line2D(ends, [middle] * 2, color=key.color, solid_capstyle="butt", **look)
            line.set_transform(figure.dpi_scale_trans)
            figure.add_artist(line)
            _write(figure, (left + 0.42, middle), key.text, _TICK, va="center_baseline")
            left += width


def _key_rows(keys: Sequence[Key], width: float) -> list[list[tuple[Key, float]]]:
    """Return the keys row by row, each with its width in inches."""
    rows: list[list[tuple[Key, float]]] = []
    for key in keys:
        taken = text_width([key.text]) + 0.55
        if not rows or sum(width for _, width in rows[-1]) + taken > width:
            rows.append([])
        rows[-1].append((key, taken))
    return rows


def _write(figure: Figure, where: tuple[float, float], text: str, size: float, **how: Any) -> None:
    """Write a text at a place in inches."""
    if text:
        figure.text(*where, text, fontsize=size, color=INK, transform=figure.dpi_scale_trans, **how)
