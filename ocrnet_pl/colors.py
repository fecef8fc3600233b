"""Colours of categories, which stay apart for people with a colour vision deficiency as well."""

from __future__ import annotations

import colorsys

RGB = tuple[int, int, int]

PALETTE: tuple[RGB, ...] = (
    *((0, 120, 225), (240, 165, 0), (90, 75, 30), (0, 255, 240), (180, 30, 120), (150, 120, 30)),
    *((210, 240, 180), (195, 165, 255), (120, 180, 135), (60, 0, 240), (210, 90, 150), (60, 120, 90)),
    *((225, 240, 105), (210, 150, 195), (30, 150, 90), (210, 195, 120), (75, 210, 180), (165, 75, 165)),
    *((195, 0, 60), (135, 135, 195), (120, 0, 180), (165, 165, 90), (120, 60, 75), (165, 135, 255)),
)
"""Each colour is as far as possible from those before it, by the smallest CIEDE2000 difference over four kinds of
vision: normal, and without one kind of cones each (the matrices of Machado et al., IEEE TVCG 2009). The first 12 differ
by 13, all by 8."""


def distinct_color(index: int) -> RGB:
    """Return the RGB colour of the ``index``-th category, 0 to 255 each.

    The first are those of ``PALETTE``. Then hues follow a golden angle apart, of which many look alike to some.
    """
    if index < len(PALETTE):
        return PALETTE[index]
    hue = (index * 0.618033988749895) % 1.0
    value = 0.95 if index % 2 == 0 else 0.75
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
    return round(red * 255), round(green * 255), round(blue * 255)
