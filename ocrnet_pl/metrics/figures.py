"""The names and titles of all figures of an evaluation: one table for everything that logs or shows them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Flag, auto
from typing import Any, SupportsFloat

FUSED = "fused_"
"""What the name of a figure begins with where it is measured after fusion."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Place(Flag):
    """Where a figure is shown; ``metrics.csv`` and ``summary.json`` hold all."""

    NOWHERE = 0
    TABLE = auto()
    """The tables at the end of a run."""
    CURVES = auto()
    """The pictures of the figures over the steps."""
    LOG = auto()
    """The lines of a run without a terminal."""
    BAR = auto()
    """The progress bar."""


@dataclass(frozen=True)
class Figure:
    """A figure of an evaluation.

    Attributes:
        name: What it is logged as, below ``val/`` or ``test/``: lower-case letters, digits and underscores.
        title: What people read.
        short: A shorter title where there is little room; by default the title.
        per_class: Whether there is one of each category, logged as ``<name>/<category>``.
        higher_is_better: Whether more of it is better, or less.
        places: Where it is shown.
        panel: The title of its plot, which figures may share; by default a plot of its own.
        same_as: The name of a figure beside which the tables leave it out if both are equal.

    Raises:
        ValueError: The name has other characters.
    """

    name: str
    title: str
    short: str = ""
    per_class: bool = False
    higher_is_better: bool = True
    places: Place = Place.TABLE | Place.CURVES | Place.LOG
    panel: str = ""
    same_as: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name.startswith(FUSED):
            raise ValueError(
                f"figure {self.name!r}: a name has lower-case letters, digits and underscores only, and does not begin "
                f"with {FUSED}"
            )
        object.__setattr__(self, "short", self.short or self.title)
        object.__setattr__(self, "panel", self.panel or self.title)

    def to_dict(self) -> dict[str, Any]:
        """Return what a reader of ``summary.json`` needs of it."""
        return {name: getattr(self, name) for name in ("name", "title", "per_class", "higher_is_better")}


_MAIN = Place.TABLE | Place.CURVES | Place.LOG | Place.BAR
_PLOTTED = Place.TABLE | Place.CURVES

BOXES = (
    Figure("map", "box mAP 50-95", "box mAP", places=_MAIN, panel="Box mAP"),
    Figure("map_50", "box mAP 50", places=_PLOTTED, panel="Box mAP"),
    Figure("map_75", "box mAP 75", places=_PLOTTED, panel="Box mAP"),
    Figure("map_small", "box mAP small", places=Place.TABLE),
    Figure("map_medium", "box mAP medium", places=Place.TABLE),
    Figure("map_large", "box mAP large", places=Place.TABLE),
    Figure("map_100", "box mAP 50-95, best 100", places=Place.TABLE, same_as="map"),
    Figure("mar", "box recall", places=Place.NOWHERE),
    Figure("mar_100", "box recall, best 100", places=Place.NOWHERE),
    Figure("map_per_class", "AP", per_class=True, places=Place.TABLE),
)
_PLACES_OF_MASKS = {
    "map": _MAIN ^ Place.BAR,
    "map_50": _PLOTTED,
    "map_75": Place.CURVES,
    "map_100": Place.TABLE,
}
MASKS = tuple(
    replace(
        figure,
        name=f"mask_{figure.name}",
        title="mask AP" if figure.per_class else figure.title.replace("box", "mask"),
        short=figure.short.replace("box", "mask"),
        places=_PLACES_OF_MASKS.get(figure.name, Place.NOWHERE),
        panel="Mask mAP",
        same_as=figure.same_as and f"mask_{figure.same_as}",
    )
    for figure in BOXES
)
PIXELS = (
    Figure("miou", "mIoU", places=_MAIN, panel="mIoU"),
    Figure("pixel_accuracy", "pixel accuracy", places=_PLOTTED, panel="mIoU"),
    Figure("iou_per_class", "IoU", per_class=True, places=Place.TABLE),
)
PANOPTIC = (
    Figure("pq", "panoptic quality", "PQ", places=_MAIN, panel="Panoptic quality"),
    Figure("sq", "segmentation quality", places=_PLOTTED, panel="Panoptic quality"),
    Figure("rq", "recognition quality", places=_PLOTTED, panel="Panoptic quality"),
    Figure("pq_things", "panoptic quality of things", places=Place.NOWHERE),
    Figure("pq_stuff", "panoptic quality of stuff", places=Place.NOWHERE),
    Figure("pq_per_class", "PQ", per_class=True, places=Place.TABLE),
)
SCORE = Figure("score", "score", places=Place.NOWHERE)
"""The mean of box mAP and mIoU; log lines begin with it."""

FIGURES = (*BOXES, *MASKS, *PIXELS, *PANOPTIC, SCORE)
"""All figures of the package's own evaluation, in the order of the tables."""
BY_NAME = {figure.name: figure for figure in FIGURES}


def shown_in(place: Place, figures: Iterable[Figure]) -> list[Figure]:
    """Return the figures that a place shows."""
    return [figure for figure in figures if place in figure.places]


def figures_of(module: object) -> tuple[Figure, ...]:
    """Return the figures that a LightningModule's evaluations may log: the package's own, where it does not say."""
    figures: tuple[Figure, ...] = getattr(module, "figures", FIGURES)
    return figures


def value_text(value: SupportsFloat | None) -> str:
    """Return the value of a figure as tables and log lines show it: a dash if it is not known, or nothing counted."""
    return "-" if value is None or math.isnan(float(value)) else f"{float(value):.4f}"
