"""Histograms as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

COLORS = ("#3b82f6", "#f59e0b", "#10b981")
"""Colors, one per split."""

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 520, 190, 38, 34, 10


def histogram(labels: Sequence[str], counts: Mapping[str, NDArray[np.int64]], title: str, axis: str) -> str:
    """Draw histograms of several splits next to each other, each in percent of its own total.

    Args:
        labels: One label per bin.
        counts: Counts by split, one per bin.
        title: Title above the histogram.
        axis: Description of the bins.

    Returns:
        A figure as HTML; an empty text if there is nothing to count.
    """
    shares = {name: values / values.sum() for name, values in counts.items() if values.sum()}
    if not shares:
        return ""
    used = np.flatnonzero(np.sum(list(shares.values()), axis=0))
    low, high = int(used[0]), int(used[-1]) + 1
    top = max(float(values.max()) for values in shares.values())
    step = (_WIDTH - _LEFT - 8) / (high - low)
    scale = (_HEIGHT - _TOP - _BOTTOM) / top
    base = _HEIGHT - _BOTTOM
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}" font-size="10.5" fill="currentColor">'
    ]
    for part in (0.0, 0.5, 1.0):
        y = base - part * top * scale
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}" '
            'stroke="currentColor" stroke-opacity="0.15"/>'
        )
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{part * top:.0%}</text>')
    bar = min(step * 0.8, 60) / len(shares)
    for place, (name, values) in enumerate(shares.items()):
        color = COLORS[list(counts).index(name) % len(COLORS)]
        for i in range(low, high):
            height = values[i] * scale
            x = _LEFT + (i - low + 0.5) * step + (place - len(shares) / 2) * bar
            parts.append(
                f'<rect x="{x:.1f}" y="{base - height:.1f}" width="{bar:.1f}" height="{height:.1f}" fill="{color}">'
                f"<title>{escape(name)}, {escape(labels[i])}: {int(counts[name][i]):,}</title></rect>"
            )
    every = max(1, round((high - low) / 12))
    for i in range(low, high, every):
        x = _LEFT + (i - low + 0.5) * step
        parts.append(f'<text x="{x:.1f}" y="{base + 13}" text-anchor="middle">{escape(labels[i])}</text>')
    middle = (_LEFT + _WIDTH) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(axis)}</text></svg>')
    return f"<figure><figcaption>{escape(title)}</figcaption>{''.join(parts)}</figure>"


def bin_labels(edges: NDArray[np.float64]) -> list[str]:
    """Return the bins' names from their edges; whole numbers as ranges without overlap."""
    names = []
    for low, high in pairwise(edges.tolist()):
        if high >= 1e9:
            names.append(f"≥{low:g}")
        elif high - low == 1:
            names.append(f"{low:g}")
        else:
            names.append(f"{low:.0f}-{high - 1:.0f}" if high - low > 1 else f"{low:.1f}")
    return names
