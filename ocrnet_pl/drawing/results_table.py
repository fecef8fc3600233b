"""The final table of results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ocrnet_pl.drawing.figures_table import figures_table
from ocrnet_pl.metrics.figures import FIGURES, FUSED, Figure, Place, shown_in, value_text

if TYPE_CHECKING:
    from rich.table import Table

_MOST_CLASSES = 40


def results_tables(values: Mapping[str, float], stage: str, figures: Iterable[Figure] = FIGURES) -> list[Table]:
    """Build the tables of a stage's figures, with those before and after fusion next to each other.

    Args:
        values: Figures by logged key.
        stage: The stage, "val" or "test".
        figures: Names and titles of the figures that were measured.

    Returns:
        One table for the whole set and, for up to 40 classes, one per class; none without figures.
    """
    own = {key.removeprefix(f"{stage}/"): value for key, value in values.items() if key.startswith(f"{stage}/")}
    shown = shown_in(Place.TABLE, figures)
    tables = []
    rows = []
    for figure in shown:
        raw, fused = own.get(figure.name), own.get(FUSED + figure.name)
        other = figure.same_as
        if (raw, fused) == (None, None):
            continue
        others = own.get(other), own.get(FUSED + other)
        if other and [*map(value_text, (raw, fused))] == [*map(value_text, others)]:
            continue
        rows.append((figure.title, raw, fused))
    if rows:
        texts = [(title, value_text(raw), value_text(fused)) for title, raw, fused in rows]
        tables.append(figures_table(("", "raw", "fused"), texts, f"Results ({stage})"))
    groups = {prefix + each.name: (each, prefix) for each in shown if each.per_class for prefix in ("", FUSED)}
    names = list(dict.fromkeys(key.partition("/")[2] for key in own if key.partition("/")[0] in groups))
    columns = [
        (group, f"{figure.title} {'fused' if prefix else 'raw'}")
        for group, (figure, prefix) in groups.items()
        if any(key.startswith(f"{group}/") for key in own)
    ]
    if columns and 1 < len(names) <= _MOST_CLASSES:
        header = ("class", *(title for _, title in columns))
        per_class = [(name, *(value_text(own.get(f"{group}/{name}")) for group, _ in columns)) for name in names]
        tables.append(figures_table(header, per_class, f"Per class ({stage})"))
    return tables
