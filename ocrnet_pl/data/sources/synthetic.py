"""Procedurally drawn scenes: a labelled data set that needs no download.

A scene is a landscape of sky, water and grass with flat objects scattered over it. Colors overlap between classes,
so texture and shape have to be learnt; sizes range over 20:1; objects turn, overlap and leave the frame. Boxes,
instances and classes are exact, because the drawing knows them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.sources.scenes import Array, Scene, SceneSource, rgb, smooth_noise
from ocrnet_pl.structures import Taxonomy

STUFF = ("sky", "water", "grass")
_SKY, _WATER, _GRASS = range(3)

_INNER = 0.45
"""The inner radius of a star, as a fraction of the outer one."""


def _disc(u: Array, v: Array) -> Array:
    return np.asarray(np.hypot(u, v * np.float32(1.2)) - 1)


def _square(u: Array, v: Array) -> Array:
    # A little smaller than would fit, so that its area is not far above the others'.
    return np.asarray(np.maximum(np.abs(u), np.abs(v)) - np.float32(0.7))


def _triangle(u: Array, v: Array) -> Array:
    # Three half-planes; the inner radius of a triangle in the unit circle is one half.
    side = np.float32(0.75**0.5)
    return np.asarray(np.maximum(np.maximum(v, -v / 2 + side * u), -v / 2 - side * u) - np.float32(0.5))


def _star(u: Array, v: Array) -> Array:
    # Folded onto one tenth of the circle, the outline is one straight edge from a tip to an inner corner.
    sector = np.float32(2 * np.pi / 5)
    angle = np.arctan2(v, u)
    angle = np.abs(angle - sector * np.round(angle / sector))
    radius = np.hypot(u, v)
    corner = np.array([_INNER * np.cos(np.pi / 5), _INNER * np.sin(np.pi / 5)])
    edge = corner - [1, 0]
    normal = (np.array([-edge[1], edge[0]]) / -np.hypot(*edge)).astype(np.float32)
    return np.asarray((radius * np.cos(angle) - 1) * normal[0] + radius * np.sin(angle) * normal[1])


def _ring(u: Array, v: Array) -> Array:
    return np.asarray(np.abs(np.hypot(u, v) - np.float32(0.75)) - np.float32(0.25))


def _cross(u: Array, v: Array) -> Array:
    u, v = np.abs(u), np.abs(v)
    # Two bars, whose corners lie just inside the unit circle.
    long, short = np.float32(0.93), np.float32(0.32)
    return np.asarray(np.maximum(np.maximum(u, v) - long, np.minimum(u, v) - short))


def _crescent(u: Array, v: Array) -> Array:
    return np.asarray(np.maximum(np.hypot(u, v) - 1, np.float32(0.8) - np.hypot(u - np.float32(0.55), v)))


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "crescent": _crescent,
}
"""The distance to each shape's outline, negative inside, for a shape that fits into the unit circle."""

DEFAULT_SHAPES = ("disc", "square", "triangle", "star", "ring")

_HUES = {"disc": 0.0, "square": 0.2, "triangle": 0.4, "star": 0.6, "ring": 0.8, "cross": 0.1, "crescent": 0.5}
"""The mean hue of each shape's objects, from 0 to 1 around the color circle."""

_COLORS = {
    "sky": (150, 200, 240),
    "water": (20, 60, 130),
    "grass": (110, 170, 60),
    # Chosen as those of ``ocrnet_pl.colors`` were, beside the three above: any two differ by 15.
    "disc": (195, 105, 135),
    "square": (255, 255, 180),
    "triangle": (135, 90, 255),
    "star": (255, 165, 180),
    "ring": (180, 225, 15),
    "cross": (105, 60, 15),
    "crescent": (0, 120, 90),
}


class SyntheticSource(SceneSource):
    """Drawn scenes with exact truth, the same for the same seed and index everywhere.

    Splits are made with different seeds.

    Args:
        length: Number of scenes.
        seed: Seed of the scenes, at least 0.
        size: Size of the scenes in pixels, (height, width) or one side for both, at least 32.
        min_objects: Smallest number of objects drawn into a scene; hidden ones are then left out.
        max_objects: Largest number of objects drawn into a scene.
        min_size: Side of the smallest objects, as a fraction of the shorter side, above 0.
        max_size: Side of the largest objects, as a fraction of the shorter side, at most 1.
        min_visible: Share of an object, 0 to 1, that has to be visible; objects hidden further are left out of the
            scene.
        shapes: Shapes of the objects, in the order of their classes: any of ``disc``, ``square``, ``triangle``,
            ``star``, ``ring``, ``cross`` and ``crescent``; null for the first five.
        hue_shift: How far the colors of all objects are turned around the color circle, as a share of it from 0 to 1;
            0 leaves them as they are.
        same_class_overlap: Share of the objects after the first one, 0 to 1, that are drawn over the edge of another
            object of their own class, or inside it, where pixels' classes do not show which of the two a pixel
            belongs to; 0 places all objects independently.

    Raises:
        ValueError: An option is out of range, or a shape is unknown or named twice.
    """

    def __init__(
        self,
        length: int = 512,
        seed: int = 0,
        size: int | tuple[int, int] = 160,
        min_objects: int = 3,
        max_objects: int = 8,
        min_size: float = 0.035,
        max_size: float = 0.7,
        min_visible: float = 0.5,
        shapes: list[str] | None = None,
        hue_shift: float = 0.0,
        same_class_overlap: float = 0.0,
    ) -> None:
        if not 0 < min_size <= max_size <= 1:
            raise ValueError(f"SyntheticSource: expected 0 < min_size <= max_size <= 1, got {min_size} and {max_size}")
        names = tuple(DEFAULT_SHAPES if shapes is None else shapes)
        for name in names:
            if name not in SHAPES:
                raise ValueError(f"SyntheticSource: there is no shape {name!r}; choose from {', '.join(SHAPES)}")
        if not names or len(set(names)) < len(names):
            raise ValueError(f"SyntheticSource: shapes must be different and at least one, got {list(names)}")
        super().__init__(length, seed, size, min_visible, Taxonomy.build(things=names, stuff=STUFF, colors=_COLORS))
        self.objects = self.counts("objects", min_objects, max_objects, least=0)
        self.range = (min_size, max_size)
        self.shapes = names
        self.hue_shift = self.share("hue_shift", hue_shift)
        self.same_class_overlap = self.share("same_class_overlap", same_class_overlap)

    def draw(self, rng: np.random.Generator) -> Scene:
        """Return a landscape with objects on it, without those that objects in front would hide."""
        image, semantic = _landscape(rng, self.size)
        count = int(rng.integers(self.objects[0], self.objects[1] + 1))
        things: list[_Thing] = []
        for _ in range(count):
            things.append(_Thing(rng, self, self._overlapped(rng, things)))
        return Scene(image, semantic, self.visible(things))

    def _overlapped(self, rng: np.random.Generator, things: list[_Thing]) -> _Thing | None:
        """Choose the object behind, whose class the next one has too; None for one placed independently."""
        # Without overlaps nothing is drawn from the generator, so that the scenes are what they were.
        if self.same_class_overlap == 0 or not things or rng.random() >= self.same_class_overlap:
            return None
        return things[int(rng.integers(len(things)))]


class _Thing:
    """One object: where it is, and how it is painted.

    Attributes:
        label: Detection class.
        is_stuff: Nothing here is a piece of stuff.
        window: The part of the image that it touches.
        mask: Its pixels, in the window.
        area: Number of its pixels, including those outside the image.
        center: (y, x) in pixels.
        radius: Radius in pixels of the circle that it fits into.

    Args:
        rng: Generator of its properties.
        source: Options of the scenes.
        behind: An object of its class that it is drawn over; None for a class and a place of its own.
    """

    is_stuff = False

    def __init__(self, rng: np.random.Generator, source: SyntheticSource, behind: _Thing | None = None) -> None:
        size, sizes = source.size, source.range
        if behind is None:
            self.label = int(rng.integers(len(source.shapes)))
            # Uniform in the logarithm, bent so that the smallest objects, which have only a few pixels, stay rare.
            share = sizes[0] * (sizes[1] / sizes[0]) ** (rng.random() ** 0.4)
            self.radius = max(3.0, share * min(size) / 2)
            self.center = rng.random(2) * size
        else:
            self.label = behind.label
            self.radius = max(3.0, behind.radius * rng.uniform(0.4, 0.9))
            # From well inside the other one to across its edge.
            direction, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1.0) * behind.radius
            center = behind.center + distance * np.array([np.sin(direction), np.cos(direction)])
            self.center = np.clip(center, 0, size)
        shape, radius, center = source.shapes[self.label], self.radius, self.center
        angle = rng.random() * 2 * np.pi
        low = np.floor(center - radius - 1).astype(int)
        high = np.ceil(center + radius + 1).astype(int)
        y, x = np.ogrid[low[0] : high[0], low[1] : high[1]]
        y = (y + 0.5 - center[0]).astype(np.float32)
        x = (x + 0.5 - center[1]).astype(np.float32)
        cos, sin = np.float32(np.cos(angle) / radius), np.float32(np.sin(angle) / radius)
        u, v = x * cos + y * sin, y * cos - x * sin
        distance = SHAPES[shape](u, v) * np.float32(radius)
        self.area = int(np.count_nonzero(distance <= 0))
        first, last = np.maximum(-low, 0), np.minimum(size - low, high - low)
        inner = (slice(first[0], last[0]), slice(first[1], last[1]))
        self.window = (slice(low[0] + first[0], low[0] + last[0]), slice(low[1] + first[1], low[1] + last[1]))
        self._distance = distance[inner]
        self._u, self._v = u[inner], v[inner]
        self.mask = self._distance <= 0
        self._hue = (_HUES[shape] + source.hue_shift + rng.normal(0, 0.04)) % 1
        self._saturation, self._value = rng.uniform(0.55, 1.0), rng.uniform(0.6, 1.0)
        self._pattern, self._frequency = int(rng.integers(4)), rng.uniform(5, 9)
        self._edge = rng.uniform(0.25, 0.7) if rng.random() < 0.7 else rng.uniform(1.2, 1.5)

    def paint(self, image: Array) -> None:
        """Draw onto the image, its border mixed with what is behind."""
        shade = 1 + 0.25 * self._v
        if self._pattern == 1:
            shade = shade * (1 + 0.25 * np.sign(np.sin(self._frequency * self._u)))
        elif self._pattern == 2:
            shade = shade * (1 + 0.25 * np.sign(np.sin(self._frequency * self._u) * np.sin(self._frequency * self._v)))
        elif self._pattern == 3:
            shade = shade * (1 + 0.25 * self._u)
        border = np.clip(self._distance + max(1.0, 0.08 * self.radius) + 0.5, 0, 1)
        shade = shade + (self._edge - shade) * border
        color = 255 * rgb(self._hue, self._saturation, self._value)
        alpha = np.clip(0.5 - self._distance, 0, 1)[..., None]
        view = image[self.window]
        view += alpha * (shade[..., None].astype(np.float32) * color - view)


def _landscape(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Array, NDArray[np.uint8]]:
    """Return sky over water and grass: float32 [H, W, 3], 0 to 255, and the classes of the pixels."""
    height, width = size
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(0, 1, width, dtype=np.float32)[None, :]
    rough = smooth_noise(rng, size, 5)
    horizon = rng.uniform(0.15, 0.5) if rng.random() < 0.85 else -1.0
    sky = y + 0.08 * smooth_noise(rng, (1, width), 5) < horizon
    angle = rng.random() * np.pi
    slope = (x - rng.uniform(0.25, 0.75)) * np.cos(angle) + (y - rng.uniform(0.4, 0.9)) * np.sin(angle)
    water = (slope * rng.choice([-1, 1]) + 0.15 * rough).astype(np.float32) > 0
    semantic = np.where(sky, _SKY, np.where(water, _WATER, _GRASS)).astype(np.uint8)

    # Sky: a gradient with soft clouds. Water: long, flat ripples. Grass: fine, rough grain.
    ripples = np.sin((y * rng.uniform(50, 90) + 1.5 * smooth_noise(rng, size, 8)) * 2)
    grain = smooth_noise(rng, size, max(size) // 3)
    value = np.where(sky, 0.8 - 0.25 * y + 0.12 * rough, np.where(water, 0.55 + 0.1 * ripples, 0.5 + 0.14 * grain))
    hues = rng.normal([0.58, 0.55, 0.29], [0.03, 0.05, 0.05])
    saturations = rng.uniform([0.15, 0.25, 0.3], [0.5, 0.6, 0.65])
    palette = np.stack([rgb(hue % 1, saturation, 1.0) for hue, saturation in zip(hues, saturations, strict=True)])
    light = 255 * rng.uniform(0.8, 1.25) * rng.uniform(0.92, 1.08, 3)
    image = (palette * light).astype(np.float32)[semantic] * value[..., None].astype(np.float32)
    return image, semantic
