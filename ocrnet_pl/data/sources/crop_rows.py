"""Drawn fields: rows of crop plants seen from above, weeds between them, residue and stones on the soil."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.sources.scenes import Array, Scene, SceneSource, Sprite, clipped, rgb, smooth_noise
from ocrnet_pl.structures import Taxonomy

STUFF = ("soil", "residue", "stone")
THINGS = ("crop", "weed")
_SOIL, _RESIDUE, _STONE = range(3)
_CROP, _WEED = range(2)

_COLORS = {
    "soil": (120, 85, 60),
    "residue": (235, 205, 110),
    "stone": (165, 165, 175),
    "crop": (60, 180, 75),
    "weed": (230, 60, 110),
}


class CropRows(SceneSource):
    """Drawn fields with exact truth: crop and weed are things; soil, residue and stones are stuff.

    A crop is a rosette of broad leaves. A weed is a tuft of blades, a trefoil or a rosette of toothed leaves, of about
    the same green; most weeds stand between the rows. Splits are made with different seeds.

    Args:
        length: Number of scenes.
        seed: Seed of the scenes, at least 0.
        size: Size of the scenes in pixels, (height, width) or one side for both, at least 32.
        min_rows: Smallest number of crop rows across the shorter side.
        max_rows: Largest number of crop rows across the shorter side.
        max_weeds: Largest number of weeds drawn into a scene; the smallest is 0.
        min_visible: Share of a plant, 0 to 1, that has to be visible; plants hidden further, or cut off further by the
            border, are left out of the scene.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(
        self,
        length: int = 512,
        seed: int = 0,
        size: int | tuple[int, int] = 160,
        min_rows: int = 2,
        max_rows: int = 4,
        max_weeds: int = 12,
        min_visible: float = 0.3,
    ) -> None:
        super().__init__(length, seed, size, min_visible, Taxonomy.build(things=THINGS, stuff=STUFF, colors=_COLORS))
        self.rows = self.counts("rows", min_rows, max_rows)
        self.max_weeds = self.count("max_weeds", max_weeds)

    def draw(self, rng: np.random.Generator) -> Scene:
        """Return a field, without the plants that others hide."""
        rows = _Rows(rng, self.size, int(rng.integers(self.rows[0], self.rows[1] + 1)))
        image, semantic = _ground(rng, self.size, rows)
        plants = [_crop(rng, center, radius, self.size) for center, radius in rows.plants(rng)]
        weeds = int(rng.integers(self.max_weeds + 1))
        plants += [_weed(rng, rows.weed_place(rng), rows.spacing, self.size) for _ in range(weeds)]
        # Large plants are tall, and stand in front.
        plants.sort(key=lambda plant: plant.area)
        plants = self.visible(plants)
        sun = rng.uniform(0, 2 * np.pi)
        reach = rng.uniform(0.03, 0.1) * rows.spacing
        _shade(image, plants, round(reach * np.sin(sun)), round(reach * np.cos(sun)), rng.uniform(0.35, 0.75))
        return Scene(image, semantic, plants)


class _Rows:
    """Where the rows of a field run.

    Args:
        rng: Generator of their direction.
        size: (height, width) of the image.
        count: Number of rows across the shorter side.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], count: int) -> None:
        self.size = size
        self.spacing = min(size) / count
        angle = rng.normal(0, 0.12) + np.pi / 2 * rng.integers(2)
        self.along = np.array([np.sin(angle), np.cos(angle)])
        self.across = np.array([np.cos(angle), -np.sin(angle)])
        self.start = rng.random()

    def position(self, y: Array, x: Array) -> Array:
        """Return where between two rows pixels lie: whole numbers are rows."""
        distance = (y - self.size[0] / 2) * self.across[0] + (x - self.size[1] / 2) * self.across[1]
        return np.asarray(distance / self.spacing - self.start, dtype=np.float32)

    def plants(self, rng: np.random.Generator) -> list[tuple[NDArray[np.float64], float]]:
        """Return the centers and the radii of the crop plants, of which some did not come up."""
        step = self.spacing * rng.uniform(0.6, 0.95)
        radius = self.spacing * rng.uniform(0.25, 0.5)
        reach = np.hypot(*self.size) / 2
        places = []
        for row in np.arange(-np.ceil(reach / self.spacing) - 1, np.ceil(reach / self.spacing) + 2):
            for along in np.arange(-reach, reach + step, step) + rng.random() * step:
                jitter = rng.normal(0, 0.05 * self.spacing, 2)
                grown = radius * rng.uniform(0.7, 1.15)
                center = np.array(self.size) / 2 + (row + self.start) * self.spacing * self.across
                center = center + along * self.along + jitter
                if rng.random() > 0.1 and (center > -grown).all() and (center < np.array(self.size) + grown).all():
                    places.append((center, grown))
        return places

    def weed_place(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return a place inside the image, most often between two rows."""
        place = rng.random(2) * self.size
        between = float(self.position(place[:1].astype(np.float32), place[1:].astype(np.float32))[0]) % 1
        if rng.random() < 0.8:
            place = place + (rng.uniform(0.3, 0.7) - between) * self.spacing * self.across
        return np.clip(place, 1, np.array(self.size) - 1)


def _ground(rng: np.random.Generator, size: tuple[int, int], rows: _Rows) -> tuple[Array, NDArray[np.uint8]]:
    """Return the soil, with furrows along the rows, stones and residue: the image and the classes of the pixels."""
    y, x = np.arange(size[0], dtype=np.float32)[:, None], np.arange(size[1], dtype=np.float32)[None, :]
    clods = smooth_noise(rng, size, max(size) // 3)
    lumps = smooth_noise(rng, size, max(size) // 9)
    wet = smooth_noise(rng, size, 3)
    furrow = np.cos(2 * np.pi * (rows.position(y, x) + 0.05 * lumps)) * rng.uniform(0.0, 0.1)
    light = 1 + 0.11 * clods + 0.1 * lumps + 0.07 * wet + furrow
    soil = rgb(rng.normal(0.075, 0.012), rng.uniform(0.25, 0.55), 255 * rng.uniform(0.3, 0.62))
    image = np.asarray(soil * light[..., None], dtype=np.float32)
    semantic = np.full(size, _SOIL, dtype=np.uint8)
    side = min(size)
    for _ in range(int(rng.integers(0, 7))):
        radius = max(2.0, side * rng.uniform(0.012, 0.04))
        _lay(image, semantic, _STONE, *_stone(rng, rng.random(2) * size, radius))
    # Straw lies the way the machine left it.
    direction = rng.uniform(0, np.pi)
    for _ in range(int(rng.integers(0, 14) * rng.integers(2))):
        length = max(6.0, side * rng.uniform(0.06, 0.2))
        width = max(1.5, side * rng.uniform(0.01, 0.018))
        straw = _straw(rng, rng.random(2) * size, length, width, direction + rng.normal(0, 0.5))
        _lay(image, semantic, _RESIDUE, *straw)
    return image, semantic


def _lay(
    image: Array, semantic: NDArray[np.uint8], value: int, top: int, left: int, alpha: Array, color: Array
) -> None:
    """Paint a piece of stuff."""
    window, inside = clipped(top, left, alpha.shape, semantic.shape)
    view = image[window]
    view += alpha[inside][..., None] * (color[inside] - view)
    semantic[window][alpha[inside] >= 0.5] = value


def _shade(image: Array, plants: list[Sprite], down: int, right: int, strength: float) -> None:
    """Darken the ground beside the plants."""
    shadow = np.ones(image.shape[:2], dtype=np.float32)
    for plant in plants:
        top, left = plant.window[0].start + down, plant.window[1].start + right
        window, inside = clipped(top, left, plant.mask.shape, shadow.shape)
        shadow[window][plant.mask[inside]] = strength
    # Soft edges: the mean of a pixel and its neighbours.
    padded = np.pad(shadow, 1, mode="edge")
    image *= ((padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] + shadow) / 5)[..., None]


def _grid(center: NDArray[np.float64], radius: float) -> tuple[int, int, Array, Array]:
    """Return the first row and column of the pixels around a place, and their offsets from it in pixels."""
    top, left = (int(value) for value in np.floor(center - radius - 2))
    count = int(np.ceil(2 * radius)) + 5
    steps = np.arange(count, dtype=np.float32) + np.float32(0.5)
    y = np.broadcast_to((steps + np.float32(top - center[0]))[:, None], (count, count))
    x = np.broadcast_to((steps + np.float32(left - center[1]))[None, :], (count, count))
    return top, left, y, x


def _stone(rng: np.random.Generator, center: NDArray[np.float64], radius: float) -> tuple[int, int, Array, Array]:
    top, left, y, x = _grid(center, radius)
    angle, flat = rng.uniform(0, np.pi), rng.uniform(1.0, 1.6)
    u, v = x * np.cos(angle) + y * np.sin(angle), (y * np.cos(angle) - x * np.sin(angle)) * flat
    bumps = 1 + 0.12 * np.sin(3 * np.arctan2(v, u) + rng.uniform(0, 6))
    alpha = np.clip(0.5 - (np.hypot(u, v) * bumps - radius * 0.95), 0, 1)
    gray = rgb(rng.uniform(0.05, 0.12), rng.uniform(0.0, 0.2), 255 * rng.uniform(0.5, 0.75))
    color = gray * (1 - 0.3 * (x + y) / (2 * radius))[..., None]
    return top, left, alpha.astype(np.float32), color.astype(np.float32)


def _straw(
    rng: np.random.Generator, center: NDArray[np.float64], length: float, width: float, angle: float
) -> tuple[int, int, Array, Array]:
    top, left, y, x = _grid(center, length / 2)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    bend = rng.normal(0, 0.08) / length
    v = v + bend * u * u
    distance = np.maximum(np.abs(u) - length / 2, np.abs(v) - width / 2)
    tone = rgb(rng.normal(0.12, 0.01), rng.uniform(0.25, 0.5), 255 * rng.uniform(0.7, 0.95))
    color = tone * (1 - 0.25 * v / width)[..., None]
    return top, left, np.clip(0.5 - distance, 0, 1).astype(np.float32), color.astype(np.float32)


@dataclass(frozen=True)
class _Leaf:
    """The outline of a plant's leaves.

    Attributes:
        width: Half of a leaf's width, as a share of its length.
        widest: Where along a leaf it is widest, 0 to 1.
        teeth: How deep the edge is toothed, 0 to 1.
        stalk: Share of the length that is bare stalk.
        bend: How far a leaf's tip bends to the side, as a share of its length.
    """

    width: float
    widest: float
    teeth: float = 0.0
    stalk: float = 0.0
    bend: float = 0.0


_BROAD = _Leaf(width=0.27, widest=0.62, stalk=0.12, bend=0.08)
_BLADE = _Leaf(width=0.06, widest=0.3, bend=0.3)
_LEAFLET = _Leaf(width=0.3, widest=0.6, stalk=0.35)
_TOOTHED = _Leaf(width=0.17, widest=0.7, teeth=0.75, bend=0.1)


def _leaves(
    rng: np.random.Generator,
    center: NDArray[np.float64],
    angles: NDArray[np.float64],
    lengths: NDArray[np.float64],
    leaf: _Leaf,
) -> tuple[int, int, Array, Array, Array]:
    """Draw leaves from the middle of a plant outwards, one over the other.

    Args:
        rng: Generator of what differs between leaves.
        center: (y, x) of the middle.
        angles: Direction of each leaf [L].
        lengths: Length of each leaf [L] in pixels.
        leaf: Their outline.

    Returns:
        The first row and column, alpha [h, w], the relative lightness [h, w] and how far inside the leaf's edge a pixel
        lies, 0 to 1.
    """
    top, left, y, x = _grid(center, float(lengths.max()))
    parts = (np.cos(angles), np.sin(angles), lengths)
    cos, sin, length = (np.asarray(values, dtype=np.float32)[:, None, None] for values in parts)
    along, aside = (x * cos + y * sin) / length, (y * cos - x * sin) / length
    aside = aside + (leaf.bend * rng.choice([-1.0, 1.0], len(angles))).astype(np.float32)[:, None, None] * along * along
    t = np.clip((along - leaf.stalk) / (1 - leaf.stalk), 0, 1)
    # The outline is t^a (1 - t)^b, whose maximum lies at a / (a + b).
    rise, fall = 1.2 * leaf.widest, 1.2 * (1 - leaf.widest)
    peak = leaf.widest**rise * (1 - leaf.widest) ** fall
    half = leaf.width * t**rise * (1 - t) ** fall / peak
    if leaf.teeth:
        half = half * (1 - leaf.teeth * (0.5 + 0.5 * np.sin(2 * np.pi * 4.5 * t + 1.5)))
    half = np.maximum(half, np.where((along > 0) & (along < 1), 0.7 / length, -1.0))
    distance = np.maximum(np.abs(aside) - half, np.maximum(-along, along - 1)) * length
    covers = np.clip(0.5 - distance, 0, 1)
    # Pixels take the lightness of the last leaf over them.
    shades = rng.uniform(0.75, 1.2, len(angles)).astype(np.float32)[:, None, None]
    rib = np.exp(-((aside * length) ** 2) / 1.2)
    lightness = shades * (1 + 0.25 * rib) * (0.8 + 0.3 * t)
    light = np.zeros(y.shape, dtype=np.float32)
    edge = np.zeros(y.shape, dtype=np.float32)
    inner = np.clip(-distance / (0.12 * length), 0, 1)
    for cover, own, inside in zip(covers, lightness, inner, strict=True):
        light += cover * (own - light)
        edge += cover * (inside - edge)
    return top, left, covers.max(0).astype(np.float32), light, edge


def _plant(label: int, drawn: tuple[int, int, Array, Array, Array], green: Array, size: tuple[int, int]) -> Sprite:
    """Color the leaves."""
    top, left, alpha, light, edge = drawn
    # Light from behind the pixel's own leaf is divided out again, or edges would darken twice.
    bright = light / np.maximum(alpha, 0.05) * (0.72 + 0.28 * edge)
    color = green * bright[..., None]
    return Sprite(label, top, left, alpha, color.astype(np.float32), size)


def _green(rng: np.random.Generator, hue: float) -> Array:
    return rgb(rng.normal(hue, 0.018), rng.uniform(0.35, 0.62), 255 * rng.uniform(0.38, 0.68))


def _crop(rng: np.random.Generator, center: NDArray[np.float64], radius: float, size: tuple[int, int]) -> Sprite:
    """Return a rosette of broad leaves."""
    count = int(rng.integers(5, 9))
    angles = 2 * np.pi * (np.arange(count) + rng.uniform(-0.25, 0.25, count)) / count + rng.uniform(0, 6)
    lengths = np.maximum(radius, 4.0) * rng.uniform(0.65, 1.0, count)
    order = rng.permutation(count)
    drawn = _leaves(rng, center, angles[order], lengths[order], _BROAD)
    return _plant(_CROP, drawn, _green(rng, 0.3), size)


def _weed(rng: np.random.Generator, center: NDArray[np.float64], spacing: float, size: tuple[int, int]) -> Sprite:
    """Return one of three kinds of weed."""
    radius = max(4.0, spacing * rng.uniform(0.12, 0.36))
    kind = int(rng.integers(3))
    if kind == 0:
        # Blades of grass.
        count = int(rng.integers(6, 12))
        angles, lengths = rng.uniform(0, 2 * np.pi, count), radius * 1.15 * rng.uniform(0.6, 1.0, count)
        drawn = _leaves(rng, center, angles, lengths, _BLADE)
    elif kind == 1:
        # Three round leaflets on short stalks, one or two times.
        count = 3 * int(rng.integers(1, 3))
        angles = 2 * np.pi * np.arange(count) / count + rng.uniform(0, 6)
        drawn = _leaves(rng, center, angles, radius * rng.uniform(0.8, 0.95, count), _LEAFLET)
    else:
        # Long toothed leaves.
        count = int(rng.integers(5, 9))
        angles = 2 * np.pi * (np.arange(count) + rng.uniform(-0.2, 0.2, count)) / count
        drawn = _leaves(rng, center, angles, radius * 1.1 * rng.uniform(0.75, 1.0, count), _TOOTHED)
    return _plant(_WEED, drawn, _green(rng, 0.27), size)
