"""The colours of categories, as people with a colour vision deficiency see them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from ocrnet_pl.colors import PALETTE, RGB, distinct_color
from ocrnet_pl.data.sources.synthetic import SyntheticSource

# What is left of linear RGB without one kind of cones: Machado, Oliveira and Fernandes, IEEE TVCG 2009, severity 1.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab(color: RGB, vision: str) -> tuple[float, float, float]:
    share = np.asarray(color) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(VISION[vision] @ linear, 0, 1)
    ratio = XYZ @ seen / (0.95047, 1.0, 1.08883)
    x, y, z = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def ciede2000(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """The difference of two colours after Sharma, Wu and Dalal, Color Research and Application 2005."""
    mean_chroma = (math.hypot(*one[1:]) + math.hypot(*other[1:])) / 2
    stretch = 1.5 - 0.5 * math.sqrt(mean_chroma**7 / (mean_chroma**7 + 25**7))
    chroma, hue = [], []
    for _, a, b in (one, other):
        chroma.append(math.hypot(a * stretch, b))
        hue.append(math.degrees(math.atan2(b, a * stretch)) % 360)
    turn = (hue[1] - hue[0] + 180) % 360 - 180
    middle = hue[0] + turn / 2
    if not all(chroma):
        turn, middle = 0.0, sum(hue)
    lightness, width = (one[0] + other[0]) / 2, sum(chroma) / 2
    cosines = ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.20, 4, -63))
    shape = 1 + sum(factor * math.cos(math.radians(times * middle + at)) for factor, times, at in cosines)
    bend = math.exp(-((((middle % 360) - 275) / 25) ** 2))
    rotation = -2 * math.sqrt(width**7 / (width**7 + 25**7)) * math.sin(math.radians(60 * bend))
    off = (lightness - 50) ** 2
    light = (other[0] - one[0]) / (1 + 0.015 * off / math.sqrt(20 + off))
    strong = (chroma[1] - chroma[0]) / (1 + 0.045 * width)
    turned = 2 * math.sqrt(chroma[0] * chroma[1]) * math.sin(math.radians(turn / 2)) / (1 + 0.015 * width * shape)
    return math.sqrt(light**2 + strong**2 + turned**2 + rotation * strong * turned)


def closest(colors: list[RGB]) -> float:
    return min(
        ciede2000(lab(one, vision), lab(other, vision))
        for one, other in itertools.combinations(colors, 2)
        for vision in VISION
    )


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, 2.5, 0.0), (58.0, 24.0, 15.0), 19.4535),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_measure_gives_the_papers_examples(
    one: tuple[float, float, float], other: tuple[float, float, float], difference: float
) -> None:
    assert ciede2000(one, other) == pytest.approx(difference, abs=1e-4)


def test_colors_differ_with_common_color_blindness() -> None:
    # A difference of 2 is just seen side by side; of 10, at a glance.
    assert closest(list(PALETTE[:12])) > 13
    assert closest(list(PALETTE)) > 8
    assert closest([category.color for category in SyntheticSource(length=1).taxonomy.categories]) > 13


def test_there_is_a_color_for_any_number_of_categories() -> None:
    colors = [distinct_color(index) for index in range(133)]
    assert len(set(colors)) == 133
    assert all(0 <= side <= 255 for color in colors for side in color)
