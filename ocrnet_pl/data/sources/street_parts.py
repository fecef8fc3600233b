"""What the parts of a drawn street share: classes, camera, light, measures, and how an object becomes pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.sources.scenes import Array, Sprite, rgb

STUFF = ("sky", "building", "road", "marking", "pavement", "tree", "pole")
THINGS = ("car", "pedestrian", "cyclist", "sign")
SKY, BUILDING, ROAD, MARKING, PAVEMENT, TREE, POLE = range(7)
CAR, PEDESTRIAN, CYCLIST, SIGN = range(4)

_LANE = 3.2
"""Width of a lane in meters."""
NEAR = 5.0
"""The nearest objects stand this far from the camera, in meters."""
FAR = 90.0
"""The street ends at this distance from the camera, in meters."""
_FINE = 2
"""Each pixel of an object is sampled at this many places down and across."""


@dataclass(frozen=True)
class View:
    """A camera that looks along the street. Places are meters: to the right of it, above the ground, ahead of it.

    Attributes:
        size: (height, width) of the image.
        horizon: Row of what is infinitely far.
        middle: Column of what is straight ahead.
        focal: Focal length in pixels.
        height: Height of the camera above the ground in meters.
    """

    size: tuple[int, int]
    horizon: float
    middle: float
    focal: float
    height: float

    @classmethod
    def drawn(cls, rng: np.random.Generator, size: tuple[int, int]) -> View:
        """Draw how the camera is mounted."""
        return cls(
            size,
            horizon=size[0] * rng.uniform(0.38, 0.5),
            middle=size[1] * rng.uniform(0.4, 0.6),
            focal=max(size) * rng.uniform(0.8, 1.0),
            height=rng.uniform(1.3, 1.7),
        )

    def column(self, right: float, ahead: float) -> float:
        """Return where a place lies across the image."""
        return self.middle + self.focal * right / ahead

    def row(self, up: float, ahead: float) -> float:
        """Return where a place lies down the image."""
        return self.horizon + self.focal * (self.height - up) / ahead

    def pixel(self, ahead: float) -> float:
        """Return how many meters a pixel is wide at a distance."""
        return ahead / self.focal

    def place(self, columns: Array, rows: Array, right: float, ahead: float) -> tuple[Array, Array]:
        """Return which places on a plane across the street pixels show: to the right of one in it, and up."""
        across = (columns - self.column(right, ahead)) * self.pixel(ahead)
        up = self.height - (rows - self.horizon) * self.pixel(ahead)
        return across.astype(np.float32), up.astype(np.float32)

    def centers(self) -> tuple[Array, Array]:
        """Return the centers of all pixels: rows [H, 1] and columns [1, W]."""
        rows, columns = (np.arange(side, dtype=np.float32) + np.float32(0.5) for side in self.size)
        return rows[:, None], columns[None, :]

    def ground(self) -> tuple[Array, Array]:
        """Return the places on the ground that pixels show: to the right [H, W] and ahead [H, 1], inf for the sky."""
        rows, columns = self.centers()
        below = rows - self.horizon
        ahead = np.where(below > 0, self.focal * self.height / np.maximum(below, 1e-3), np.inf).astype(np.float32)
        right = (columns - self.middle) * np.where(below > 0, ahead, 0) / self.focal
        return right.astype(np.float32), ahead


@dataclass(frozen=True)
class Light:
    """The light of a day.

    Attributes:
        tint: What all colors are multiplied with [3].
        sky: Color of the upper sky [3].
        haze: Color of the sky at the horizon, which far things take on [3].
        reach: Distance in meters over which they do.
        shadow: What the ground's brightness is multiplied with below and beside objects.
    """

    tint: Array
    sky: Array
    haze: Array
    reach: float
    shadow: float

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Light:
        """Draw a sunny, a grey or a late day."""
        day = int(rng.integers(3))
        if day == 0:
            sky, haze = rgb(rng.normal(0.58, 0.01), rng.uniform(0.35, 0.6), 235.0), rgb(0.57, 0.12, 245.0)
            warm, strength, reach, shadow = (1.04, 1.0, 0.95), rng.uniform(0.95, 1.15), 300.0, rng.uniform(0.4, 0.55)
        elif day == 1:
            sky, haze = rgb(0.6, rng.uniform(0.0, 0.1), rng.uniform(165, 220)), rgb(0.6, 0.03, 215.0)
            warm, strength, reach, shadow = (0.97, 1.0, 1.03), rng.uniform(0.7, 0.9), 140.0, rng.uniform(0.6, 0.75)
        else:
            sky, haze = rgb(0.62, 0.45, rng.uniform(90, 150)), rgb(rng.uniform(0.03, 0.09), 0.5, 225.0)
            warm, strength, reach, shadow = (1.1, 0.95, 0.88), rng.uniform(0.45, 0.7), 200.0, rng.uniform(0.5, 0.65)
        return cls((np.array(warm) * strength).astype(np.float32), sky, haze, reach, float(shadow))

    def on(self, color: Array, ahead: Array | float) -> Array:
        """Return colors [..., 3] as they are seen from a distance in meters."""
        clear = np.exp(-np.asarray(ahead, dtype=np.float32) / np.float32(self.reach))[..., None]
        return np.asarray(color * self.tint * clear + self.haze * (1 - clear), dtype=np.float32)


@dataclass(frozen=True)
class Street:
    """A straight street; all measures are meters, to the right of the camera.

    Attributes:
        edges: Left and right edge of the road.
        lanes: Where the lanes that cars drive on begin and end, from left to right; the camera is in the last one.
        parking: Whether cars may stand at the left and at the right edge.
        walls: Where the houses of the left and of the right side stand.
    """

    edges: tuple[float, float]
    lanes: tuple[float, ...]
    parking: tuple[bool, bool]
    walls: tuple[float, float]

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Street:
        """Draw how wide everything is."""
        count = int(rng.integers(2, 5))
        right = _LANE / 2 + rng.uniform(-0.5, 0.5)
        lanes = tuple(float(right - _LANE * number) for number in range(count, -1, -1))
        parking = (bool(rng.random() < 0.5), bool(rng.random() < 0.5))
        edges = (lanes[0] - 2.3 * parking[0], lanes[-1] + 2.3 * parking[1])
        return cls(edges, lanes, parking, (edges[0] - rng.uniform(2.5, 6.0), edges[1] + rng.uniform(2.5, 6.0)))


Drawn = tuple[int, int, Array, Array]
"""A sprite's first row, its first column, alpha [h, w] and color [h, w, 3]."""


class Standing(Sprite):
    """An object on the ground.

    Attributes:
        depth: Distance from the camera in meters.
        shadow: Where its shadow lies, (middle, half width, first, last) in meters; None without one.

    Args:
        label: Detection class; of a piece of stuff the segmentation class.
        drawn: What is seen of it, and where.
        view: The camera.
        depth: Distance from the camera in meters.
        is_stuff: Whether it is a piece of stuff.
        shadow: Where its shadow lies, in meters; None without one.
    """

    def __init__(
        self,
        label: int,
        drawn: Drawn,
        view: View,
        depth: float,
        is_stuff: bool = False,
        shadow: tuple[float, float, float, float] | None = None,
    ) -> None:
        super().__init__(label, *drawn, view.size, is_stuff)
        self.depth = depth
        self.shadow = shadow


class Picture:
    """An object while it is drawn, at the fine places of its pixels.

    Attributes:
        inside: The places that it covers.
        color: Their colors [..., 3].

    Args:
        shape: Number of places down and across.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.inside = np.zeros(shape, dtype=np.bool_)
        self.color = np.zeros((*shape, 3), dtype=np.float32)

    def fill(self, where: NDArray[np.bool_], color: Array | float) -> None:
        """Paint a part over those before."""
        self.inside |= where
        self.color[where] = color


Painter = Callable[[Picture, Array, Array], None]
"""Fills a picture at places: to the right and up in meters on a plane across the street, or columns and rows."""


def sampled(box: tuple[float, float, float, float], paint: Painter) -> Drawn:
    """Return a sprite's first row and column, alpha and color, from a painter that takes columns and rows.

    Args:
        box: Left, top, right and bottom of what is painted, in pixels.
        paint: Called with the fine places of all pixels of the box.
    """
    left, top = int(np.floor(box[0])), int(np.floor(box[1]))
    width, height = max(1, int(np.ceil(box[2])) - left), max(1, int(np.ceil(box[3])) - top)
    shape = (height * _FINE, width * _FINE)
    rows = np.broadcast_to((top + (np.arange(shape[0]) + 0.5) / _FINE).astype(np.float32)[:, None], shape)
    columns = np.broadcast_to((left + (np.arange(shape[1]) + 0.5) / _FINE).astype(np.float32)[None, :], shape)
    picture = Picture(shape)
    paint(picture, columns, rows)
    blocks = (height, _FINE, width, _FINE)
    alpha = picture.inside.reshape(blocks).mean((1, 3), dtype=np.float32)
    color = (picture.color * picture.inside[..., None]).reshape(*blocks, 3).mean((1, 3))
    return top, left, alpha, color / np.maximum(alpha, 1e-6)[..., None]


def upright(
    label: int,
    view: View,
    light: Light,
    place: tuple[float, float],
    extent: tuple[float, float, float],
    paint: Painter,
    is_stuff: bool = False,
    shadow: bool = True,
) -> Standing:
    """Return a flat object that stands across the street.

    Args:
        label: Its class.
        view: The camera.
        light: The light.
        place: To the right and ahead, in meters.
        extent: Half of the width, the lowest and the highest place of it, in meters.
        paint: Called with places in meters: to the right of the middle, and above the ground.
        is_stuff: Whether it is a piece of stuff.
        shadow: Whether the ground below is darker.
    """
    right, ahead = place
    half, low, high = extent
    left, top = view.column(right - half, ahead), view.row(high, ahead)
    box = (left, top, view.column(right + half, ahead), view.row(low, ahead))

    def at_pixels(picture: Picture, columns: Array, rows: Array) -> None:
        paint(picture, *view.place(columns, rows, right, ahead))

    row, column, alpha, color = sampled(box, at_pixels)
    below = (right, 0.8 * half, ahead - 0.25, ahead + 0.35) if shadow else None
    return Standing(label, (row, column, alpha, light.on(color, ahead)), view, ahead, is_stuff, below)


def near_line(
    x: Array, y: Array, start: tuple[float, float], end: tuple[float, float], half: float
) -> NDArray[np.bool_]:
    """Return which places lie at most this far from a line between two places."""
    along = np.array(end) - np.array(start)
    part = np.clip(((x - start[0]) * along[0] + (y - start[1]) * along[1]) / max(float(along @ along), 1e-9), 0, 1)
    return np.asarray(np.hypot(x - start[0] - part * along[0], y - start[1] - part * along[1]) <= half)


def drawn_distance(rng: np.random.Generator, near: float, far: float) -> float:
    """Draw a distance, as many between 5 and 10 meters as between 20 and 40."""
    return float(near * (far / near) ** rng.random())
