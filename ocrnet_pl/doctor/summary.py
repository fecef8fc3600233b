"""Counts, image sizes and class rows of a check, as the terminal and the page both show them."""

from __future__ import annotations

from ocrnet_pl.doctor.findings import Level
from ocrnet_pl.doctor.result import Examined


def count_text(count: int, level: Level) -> str:
    """Return a text such as ``1 error`` or ``no warnings``."""
    word = level.name.lower()
    return f"{f'{count:,}' if count else 'no'} {word}{'' if count == 1 else 's'}"


def image_sizes(entry: Examined) -> str:
    """Return the smallest and the largest image size as width x height."""
    small, large = (f"{width}x{height}" for height, width in (entry.statistics.smallest, entry.statistics.largest))
    return small if small == large else f"{small} to {large}"


Cell = tuple[int | None, int | None, float | None]
"""Images, boxes, and share of the labelled pixels; None for what the class does not have."""


def class_rows(examined: list[Examined]) -> list[tuple[str, list[Cell]]]:
    """Return each class with its figures in each split, the most frequent first."""
    names = dict.fromkeys(c.name for entry in examined for c in entry.statistics.taxonomy.categories)
    rows = [(name, [_cell(entry, name) for entry in examined]) for name in names]
    return sorted(rows, key=lambda row: (-sum(c[1] or 0 for c in row[1]), -sum(c[2] or 0 for c in row[1])))


def _cell(entry: Examined, name: str) -> Cell:
    own = entry.statistics
    category = next((c for c in own.taxonomy.categories if c.name == name), None)
    if category is None:
        return None, None, None
    boxes = share = images = None
    if category.semantic is not None and own.maps:
        share = float(own.pixels[category.semantic] / max(1, own.pixels[:-1].sum()))
        images = int(own.pixel_images[category.semantic])
    if category.detection is not None and own.boxed:
        boxes = int(own.boxes[category.detection])
        images = max(images or 0, int(own.box_images[category.detection]))
    return images, boxes, share
