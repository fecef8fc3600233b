"""Drawn streets: cars, people and signs between two rows of houses, as the camera of a car sees them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.sources.road_users import cars, people
from ocrnet_pl.data.sources.scenes import Array, Scene, SceneSource, rgb, smooth_noise
from ocrnet_pl.data.sources.street_parts import (
    BUILDING,
    FAR,
    MARKING,
    PAVEMENT,
    POLE,
    ROAD,
    SIGN,
    SKY,
    STUFF,
    THINGS,
    TREE,
    Light,
    Picture,
    Standing,
    Street,
    View,
    drawn_distance,
    upright,
)
from ocrnet_pl.structures import Taxonomy

_COLORS = {
    "sky": (110, 180, 235),
    "building": (115, 90, 90),
    "road": (125, 80, 150),
    "marking": (255, 255, 255),
    "pavement": (235, 130, 215),
    "tree": (60, 150, 60),
    "pole": (175, 175, 165),
    "car": (40, 70, 200),
    "pedestrian": (230, 40, 60),
    "cyclist": (245, 150, 35),
    "sign": (250, 225, 50),
}


class Streets(SceneSource):
    """Drawn streets with exact truth, in perspective: cars, pedestrians, cyclists and signs are things.

    Sky, buildings, road, lane markings, pavement, trees and poles are stuff. Poles bear signs and lamps, and are one or
    two pixels wide at a width of 256 pixels. Cars drive, come towards the camera, cross or stand at the kerb. Light is
    that of a sunny, a grey or a late day. Splits are made with different seeds.

    Args:
        length: Number of scenes.
        seed: Seed of the scenes, at least 0.
        size: Size of the scenes in pixels, (height, width) or one side for both, at least 32.
        max_cars: Largest number of cars drawn into a scene; the smallest is 0.
        max_people: Largest number of pedestrians and cyclists drawn into a scene; the smallest is 0.
        max_poles: Largest number of poles drawn into a scene, two thirds of which bear a sign; the smallest is 0.
        min_visible: Share of an object, above 0 and at most 1, that has to be inside the image and not hidden; others
            are left out.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(
        self,
        length: int = 512,
        seed: int = 0,
        size: int | tuple[int, int] = (128, 256),
        max_cars: int = 7,
        max_people: int = 7,
        max_poles: int = 6,
        min_visible: float = 0.3,
    ) -> None:
        super().__init__(length, seed, size, min_visible, Taxonomy.build(things=THINGS, stuff=STUFF, colors=_COLORS))
        self.max_cars = self.count("max_cars", max_cars)
        self.max_people = self.count("max_people", max_people)
        self.max_poles = self.count("max_poles", max_poles)

    def draw(self, rng: np.random.Generator) -> Scene:
        """Return a street, without the objects that are almost hidden or outside."""
        view = View.drawn(rng, self.size)
        light = Light.drawn(rng)
        street = Street.drawn(rng)
        image, semantic = _empty_street(rng, view, light, street)
        things = _trees(rng, view, light, street)
        things += _poles(rng, view, light, street, int(rng.integers(self.max_poles + 1)))
        things += cars(rng, view, light, street, int(rng.integers(self.max_cars + 1)))
        things += people(rng, view, light, street, int(rng.integers(self.max_people + 1)))
        things = self.visible(sorted(things, key=lambda thing: -thing.depth))
        _shade(image, semantic, view, things, light.shadow)
        return Scene(image, semantic, things)


def _empty_street(
    rng: np.random.Generator, view: View, light: Light, street: Street
) -> tuple[Array, NDArray[np.uint8]]:
    """Return the empty street: the image and the classes of its pixels."""
    height, width = view.size
    rows, _ = view.centers()
    image = np.empty((height, width, 3), dtype=np.float32)
    semantic = np.full(view.size, SKY, dtype=np.uint8)
    low = np.clip(rows / view.horizon, 0, 1)[..., None] ** 1.5
    clouds = np.clip(smooth_noise(rng, view.size, 6) + 0.5 * smooth_noise(rng, view.size, 14) - 0.4, 0, 1)
    image[:] = light.sky + low * (light.haze - light.sky)
    image += (clouds * rng.uniform(0.0, 0.6))[..., None] * (light.haze - image)
    _ground(rng, image, semantic, view, light, street)
    _skyline(rng, image, semantic, view, light)
    for wall in street.walls:
        _houses(rng, image, semantic, view, light, wall)
    return image, semantic


def _ground(
    rng: np.random.Generator, image: Array, semantic: NDArray[np.uint8], view: View, light: Light, street: Street
) -> None:
    """Paint road, markings and pavement below the horizon."""
    right, ahead = view.ground()
    below = np.broadcast_to(np.isfinite(ahead), semantic.shape)
    depth = np.where(np.isfinite(ahead), ahead, FAR).astype(np.float32)
    on_road = below & (right > street.edges[0]) & (right < street.edges[1])
    asphalt = rgb(rng.random(), rng.uniform(0.0, 0.08), 255 * rng.uniform(0.28, 0.48))
    slabs = rgb(rng.uniform(0.05, 0.12), rng.uniform(0.0, 0.2), 255 * rng.uniform(0.45, 0.68))
    # Slabs of a meter and a half, whose joints are seen nearby.
    joint = np.minimum(np.abs((depth % 1.5) - 0.75), np.abs((right % 1.5) - 0.75)) < 0.04
    paving = slabs * np.where(joint & (depth < 20), 0.85, 1.0)[..., None]
    kerb = np.minimum(np.abs(right - street.edges[0]), np.abs(right - street.edges[1])) < 0.15
    paving = np.where(kerb[..., None], slabs * 1.2, paving)
    color = np.where(on_road[..., None], asphalt, paving)
    paint = rgb(0.13, rng.choice([0.0, 0.05]), 255 * rng.uniform(0.75, 0.95))
    cover = np.where(on_road & (depth < FAR), _markings(rng, view, street, right, depth), 0)
    color = color + cover[..., None] * (paint - color)
    stains = 1 + 0.05 * smooth_noise(rng, view.size, 12) + 0.04 * smooth_noise(rng, view.size, max(view.size) // 2)
    # The houses of one side often throw a shadow onto the street.
    if rng.random() < 0.5:
        side = int(rng.integers(2))
        reach = street.walls[side] + (1 - 2 * side) * rng.uniform(2.0, 8.0)
        shaded = right > reach if side else right < reach
        stains = stains * np.where(shaded, (1 + light.shadow) / 2, 1.0)
    lit = light.on((color * stains[..., None]).astype(np.float32), np.broadcast_to(depth, semantic.shape))
    image[below] = lit[below]
    semantic[below] = PAVEMENT
    semantic[on_road] = ROAD
    semantic[cover >= 0.5] = MARKING


def _markings(rng: np.random.Generator, view: View, street: Street, right: Array, depth: Array) -> Array:
    """Return how much of each pixel's width is painted [H, W], 0 to 1, from the places on the ground."""
    pixel = depth / view.focal
    cover = np.zeros(right.shape, dtype=np.float32)
    phase = rng.uniform(0, 9)
    for number, line in enumerate(street.lanes):
        solid = number in (0, len(street.lanes) - 1)
        if solid and street.parking[0 if number == 0 else 1] and rng.random() < 0.5:
            continue
        half = rng.uniform(0.06, 0.1)
        # The part of a pixel between both edges of the line.
        share = np.minimum(right + pixel / 2, line + half) - np.maximum(right - pixel / 2, line - half)
        painted = np.clip(share / pixel, 0, 1)
        cover = np.maximum(cover, painted if solid else painted * ((depth + phase) % 9 < 4))
    if rng.random() < 0.35:
        first = rng.uniform(7, 25)
        crossing = (depth > first) & (depth < first + 3) & ((right - street.edges[0]) % 1.0 < 0.5)
        cover = np.maximum(cover, crossing.astype(np.float32))
    return cover


def _skyline(rng: np.random.Generator, image: Array, semantic: NDArray[np.uint8], view: View, light: Light) -> None:
    """Paint what closes the street far away: houses and trees."""
    rows, columns = view.centers()
    right = (columns[0] - view.middle) * view.pixel(FAR)
    edges = np.cumsum(rng.uniform(6, 16, 60)) - 300
    block = np.clip(np.searchsorted(edges, right), 0, len(edges))
    tall = rng.uniform(3, 16, len(edges) + 1)
    trees = rng.random(len(edges) + 1) < 0.4
    top = tall[block] + np.where(trees[block], 0.7 * np.sin(right * 1.3) + 0.5 * np.sin(right * 3.1), 0)
    up = view.height - (rows - view.horizon) * view.pixel(FAR)
    inside = (up >= 0) & (up < top)
    walls = np.stack([_wall(rng) for _ in range(len(edges) + 1)])
    leaves = np.stack([_green(rng) for _ in range(len(edges) + 1)])
    color = light.on(np.where(trees[block][:, None], leaves[block], walls[block]).astype(np.float32), FAR)
    image[inside] = np.broadcast_to(color, image.shape)[inside]
    semantic[inside] = np.broadcast_to(np.where(trees[block], TREE, BUILDING), semantic.shape)[inside]


def _houses(
    rng: np.random.Generator, image: Array, semantic: NDArray[np.uint8], view: View, light: Light, wall: float
) -> None:
    """Paint the houses and hedges of one side of the street."""
    rows, columns = view.centers()
    across = columns[0] - view.middle
    seen = across * np.sign(wall) > 0.5
    ahead = np.where(seen, view.focal * abs(wall) / np.maximum(np.abs(across), 0.5), np.inf).astype(np.float32)
    seen &= ahead < FAR
    depth = np.where(seen, ahead, FAR).astype(np.float32)
    edges = np.cumsum(rng.uniform(7, 20, 16))
    house = np.clip(np.searchsorted(edges, depth), 0, len(edges))
    count = len(edges) + 1
    hedge = rng.random(count) < 0.25
    tall = np.where(hedge, rng.uniform(1.0, 3.0, count), rng.uniform(5, 18, count))
    top = tall[house] + np.where(hedge[house], 0.15 * np.sin(3 * depth) + 0.1 * np.sin(7 * depth), 0)
    up = (view.height - (rows - view.horizon) * depth / view.focal).astype(np.float32)
    inside = seen & (up >= 0) & (up < top)

    color = np.stack([_green(rng) if each else _wall(rng) for each in hedge])[house]
    color = np.broadcast_to(color, image.shape).copy()
    # Windows, which fade where they are narrower than pixels.
    storey, bay = rng.uniform(2.8, 3.4, count)[house], rng.uniform(1.8, 3.2, count)[house]
    glass = rgb(0.58, rng.uniform(0.1, 0.5), 1.0) * (255 * rng.uniform(0.15, 0.6, count))[:, None]
    opening = (np.abs(depth % bay / bay - 0.5) < 0.28) & (np.abs(up % storey / storey - 0.55) < 0.25)
    narrow = bay * view.focal * abs(wall) / depth**2
    strength = np.where(opening & ~hedge[house], np.clip(narrow / 4 - 0.25, 0, 1), 0)
    color += strength[..., None] * (glass[house] - color)
    shade = np.where(up < 0.5, 0.8, 1.0) * np.where(np.abs(up - top) < 0.35, 0.75, 1.0)
    rustle = smooth_noise(rng, view.size, max(view.size) // 3)
    shade = shade * (1 + np.where(hedge[house], 0.16, 0.025) * rustle) * rng.uniform(0.75, 1.1)
    lit = light.on((color * shade[..., None]).astype(np.float32), np.broadcast_to(depth, semantic.shape))
    image[inside] = lit[inside]
    semantic[inside] = np.broadcast_to(np.where(hedge[house], TREE, BUILDING), semantic.shape)[inside]


def _wall(rng: np.random.Generator) -> Array:
    return rgb(rng.uniform(0.02, 0.14), rng.uniform(0.05, 0.5), 255 * rng.uniform(0.4, 0.85))


def _green(rng: np.random.Generator) -> Array:
    return rgb(rng.normal(0.28, 0.03), rng.uniform(0.35, 0.65), 255 * rng.uniform(0.25, 0.5))


def _shade(image: Array, semantic: NDArray[np.uint8], view: View, things: list[Standing], strength: float) -> None:
    """Darken the ground below objects."""
    right, ahead = view.ground()
    on_ground = np.isin(semantic, (ROAD, MARKING, PAVEMENT))
    for middle, half, first, last in (thing.shadow for thing in things if thing.shadow is not None):
        # Rows from the far to the near end of the shadow.
        rows = slice(*np.clip(np.round([view.row(0, last), view.row(0, max(first, 0.1))]), 0, view.size[0]).astype(int))
        along = (ahead[rows] - (first + last) / 2) / ((last - first) / 2)
        inside = ((right[rows] - middle) / half) ** 2 + along**2 < 1
        image[rows][inside & on_ground[rows]] *= np.float32(strength)


def _trees(rng: np.random.Generator, view: View, light: Light, street: Street) -> list[Standing]:
    """Return the trees of both pavements."""
    trees = []
    for edge, wall in zip(street.edges, street.walls, strict=True):
        if rng.random() < 0.45:
            continue
        step = rng.uniform(8, 16)
        for ahead in np.arange(rng.uniform(9, 20), 60, step):
            right = edge + (wall - edge) * rng.uniform(0.3, 0.6)
            trees.append(_tree(rng, view, light, (right, float(ahead + rng.normal(0, 0.5)))))
    return trees


def _tree(rng: np.random.Generator, view: View, light: Light, place: tuple[float, float]) -> Standing:
    radius, middle = rng.uniform(1.3, 2.3), rng.uniform(3.6, 5.0)
    phases, green = rng.uniform(0, 6, 4), _green(rng)
    bark = rgb(0.08, 0.4, 255 * rng.uniform(0.2, 0.35))
    trunk = max(0.12, 0.6 * view.pixel(place[1]))

    def paint(picture: Picture, x: Array, y: Array) -> None:
        picture.fill((np.abs(x) < trunk) & (y >= 0) & (y < middle), bark)
        angle = np.arctan2(y - middle, x)
        rough = 1 + 0.09 * np.sin(5 * angle + phases[0]) + 0.06 * np.sin(11 * angle + phases[1])
        crown = np.hypot(x, (y - middle) * 0.9) < radius * rough * 0.87
        leaves = 1 + 0.2 * np.sin(6 * x + phases[2]) * np.sin(7 * y + phases[3]) + 0.25 * (y - middle) / radius
        picture.fill(crown, (green * leaves[..., None])[crown])

    extent = (radius, 0.0, middle + 1.2 * radius)
    return upright(TREE, view, light, place, extent, paint, is_stuff=True)


def _poles(rng: np.random.Generator, view: View, light: Light, street: Street, count: int) -> list[Standing]:
    """Return poles at the kerbs, most of them with a sign."""
    found = []
    for _ in range(count):
        side = int(rng.integers(2))
        right = street.edges[side] + (2 * side - 1) * rng.uniform(0.3, 0.8)
        ahead = drawn_distance(rng, 7.0, 45.0)
        bears = rng.random() < 2 / 3
        tall = rng.uniform(2.3, 3.0) if bears else rng.uniform(4.5, 7.0)
        found.append(_pole(rng, view, light, (right, ahead), tall))
        if bears:
            found.append(_sign(rng, view, light, (right, ahead - 0.05), tall))
    return found


def _pole(rng: np.random.Generator, view: View, light: Light, place: tuple[float, float], tall: float) -> Standing:
    """Return a pole of whole pixels: one or two where images are 256 pixels wide, whatever the distance."""
    right, ahead = place
    widest = max(1, view.size[1] // 128)
    width = int(np.clip(round(0.1 / view.pixel(ahead)), 1, widest))
    top, bottom = round(view.row(tall, ahead)), round(view.row(0, ahead))
    gray = rgb(rng.random(), rng.uniform(0.0, 0.15), 255 * rng.uniform(0.3, 0.75))
    shape = (max(1, bottom - top), width)
    color = np.broadcast_to(light.on(gray, ahead), (*shape, 3)).astype(np.float32)
    left = round(view.column(right, ahead) - width / 2)
    return Standing(POLE, (top, left, np.ones(shape, dtype=np.float32), color), view, ahead, is_stuff=True)


def _sign(rng: np.random.Generator, view: View, light: Light, place: tuple[float, float], tall: float) -> Standing:
    """Return the plate at the top of a pole: a ban, a warning, a blue order or a stop sign."""
    kind = int(rng.integers(4))
    radius = rng.uniform(0.35, 0.5)
    middle = tall - 0.75 * radius
    red, blue, white = rgb(0.99, 0.85, 205.0), rgb(0.6, 0.85, 190.0), rgb(0.0, 0.0, 245.0)

    def paint(picture: Picture, x: Array, y: Array) -> None:
        v = y - middle
        if kind == 0:
            distance = np.hypot(x, v)
        elif kind == 1:
            distance = 1.6 * np.maximum(-v, np.abs(x) * 0.866 + v * 0.5) + 0.2 * radius
        elif kind == 2:
            distance = np.maximum(np.abs(x), np.abs(v)) * 1.1
        else:
            distance = np.maximum(np.maximum(np.abs(x), np.abs(v)), (np.abs(x) + np.abs(v)) * 0.707)
        picture.fill(distance < radius, blue if kind == 2 else red)
        if kind == 3:
            picture.fill((np.abs(x) < 0.6 * radius) & (np.abs(v) < 0.18 * radius), white)
        elif kind == 2:
            picture.fill((np.abs(x) < 0.15 * radius) & (np.abs(v) < 0.55 * radius), white)
        else:
            picture.fill(distance < 0.7 * radius, white)
            picture.fill((np.abs(x) < 0.12 * radius) & (np.abs(v) < 0.35 * radius), 40.0)

    extent = (1.3 * radius, middle - 1.1 * radius, middle + 1.3 * radius)
    return upright(SIGN, view, light, place, extent, paint, shadow=False)
