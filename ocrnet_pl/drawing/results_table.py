"""The final table of results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

_ROWS = {
    "map": "box mAP 50-95",
    "map_50": "box mAP 50",
    "map_75": "box mAP 75",
    "map_small": "box mAP small",
    "map_medium": "box mAP medium",
    "map_large": "box mAP large",
    "map_100": "box mAP 50-95, best 100",
    "mask_map": "mask mAP 50-95",
    "mask_map_50": "mask mAP 50",
    "mask_map_100": "mask mAP 50-95, best 100",
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "pq": "panoptic quality",
    "sq": "segmentation quality",
    "rq": "recognition quality",
}
_SAME_AS = {"map_100": "map", "mask_map_100": "mask_map"}
"""Rows that are left out if they equal another row: no image has more than a hundred predictions."""
_PER_CLASS = {"map_per_class": "AP", "iou_per_class": "IoU", "pq_per_class": "PQ"}
_MOST_CLASSES = 40


def results_tables(figures: Mapping[str, float], stage: str) -> list[Table]:
    """Build the tables of a stage's figures, with those before and after fusion next to each other.

    Args:
        figures: Figures by logged key.
        stage: The stage, "val" or "test".

    Returns:
        One table for the whole set and, for up to 40 classes, one per class; none without figures.
    """
    from rich.table import Table

    own = {key.removeprefix(f"{stage}/"): value for key, value in figures.items() if key.startswith(f"{stage}/")}
    tables = []
    rows = []
    for key, title in _ROWS.items():
        raw, fused = own.get(key), own.get(f"fused_{key}")
        other = _SAME_AS.get(key)
        if (raw, fused) == (None, None):
            continue
        if other and (_text(raw), _text(fused)) == (_text(own.get(other)), _text(own.get(f"fused_{other}"))):
            continue
        rows.append((title, raw, fused))
    if rows:
        table = Table("", "raw", "fused", title=f"Results ({stage})")
        for title, raw, fused in rows:
            table.add_row(title, _text(raw), _text(fused))
        tables.append(table)
    names = list(dict.fromkeys(key.partition("/")[2] for key in own if "_per_class/" in key))
    columns = [
        (f"{prefix}{group}", f"{title} {'fused' if prefix else 'raw'}")
        for group, title in _PER_CLASS.items()
        for prefix in ("", "fused_")
        if any(key.startswith(f"{prefix}{group}/") for key in own)
    ]
    if columns and 1 < len(names) <= _MOST_CLASSES:
        table = Table("class", *(title for _, title in columns), title=f"Per class ({stage})")
        for name in names:
            table.add_row(name, *(_text(own.get(f"{group}/{name}")) for group, _ in columns))
        tables.append(table)
    for table in tables:
        for column in table.columns[1:]:
            column.justify = "right"
    return tables


def _text(value: float | None) -> str:
    # NaN: a class that is not in the set.
    return "-" if value is None or value != value else f"{value:.4f}"
