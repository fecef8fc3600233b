"""Cars, pedestrians and cyclists of a drawn street."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.sources.scenes import Array, rgb
from ocrnet_pl.data.sources.street_parts import (
    CAR,
    CYCLIST,
    NEAR,
    PEDESTRIAN,
    Light,
    Picture,
    Standing,
    Street,
    View,
    drawn_distance,
    near_line,
    sampled,
    upright,
)


def cars(rng: np.random.Generator, view: View, light: Light, street: Street, count: int) -> list[Standing]:
    """Return cars that drive, come, cross or stand, none inside of another."""
    lanes = len(street.lanes) - 1
    taken: list[tuple[int, float]] = []
    found = []
    for _ in range(count):
        car = _Car.drawn(rng)
        ahead = drawn_distance(rng, NEAR, 60.0)
        choice = int(rng.integers(lanes + 2))
        # Cars cross where nobody drives; they keep clear of all lanes.
        crosses = rng.random() < 0.12
        if any((crosses or lane == choice) and abs(ahead - other) < 7.5 for lane, other in taken):
            continue
        if crosses:
            taken += [(lane, ahead) for lane in range(lanes + 2)]
            right = rng.uniform(street.edges[0], street.edges[1])
            found.append(_crossing_car(rng, view, light, car, (right, ahead)))
            continue
        comes = choice < lanes / 2 if choice < lanes else bool(rng.random() < 0.5)
        if choice < lanes:
            right = (street.lanes[choice] + street.lanes[choice + 1]) / 2 + rng.normal(0, 0.2)
        else:
            side = choice - lanes
            if not street.parking[side]:
                continue
            right = street.edges[side] + (1 - 2 * side) * 1.1
        taken.append((choice, ahead))
        found.append(_car(view, light, car, (float(right), ahead), comes))
    return found


def people(rng: np.random.Generator, view: View, light: Light, street: Street, count: int) -> list[Standing]:
    """Return pedestrians on the pavements and on the road, and cyclists at the edges of the road."""
    found = []
    for _ in range(count):
        ahead = drawn_distance(rng, NEAR + 1, 40.0)
        side = int(rng.integers(2))
        if rng.random() < 0.4:
            right = street.edges[side] + (1 - 2 * side) * rng.uniform(0.5, 1.4 + 2.3 * street.parking[side])
            found.append(_cyclist(rng, view, light, (right, ahead)))
            continue
        near, far = sorted((street.edges[side], street.walls[side]))
        right = rng.uniform(near, far)
        if rng.random() < 0.2:
            right = rng.uniform(*street.edges)
        found.append(_pedestrian(rng, view, light, (right, ahead)))
    return found


@dataclass(frozen=True)
class _Car:
    """A car; all measures are meters.

    Attributes:
        half: Half of its width.
        tall: Height.
        long: Length.
        cabin: Where the cabin begins and ends, from the rear, as shares of the length.
        color: Color of the paint [3].
    """

    half: float
    tall: float
    long: float
    cabin: tuple[float, float]
    color: Array

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> _Car:
        """Draw a saloon, a hatchback or a van."""
        kind = int(rng.integers(3))
        color = rgb(rng.random(), rng.choice([0.0, 0.1, 0.7, 0.85]), 255 * rng.uniform(0.15, 0.95))
        tall = (rng.uniform(1.4, 1.5), rng.uniform(1.45, 1.65), rng.uniform(1.8, 2.2))[kind]
        long = (rng.uniform(4.3, 4.8), rng.uniform(3.6, 4.2), rng.uniform(4.5, 5.2))[kind]
        return cls(rng.uniform(0.85, 0.95), tall, long, ((0.15, 0.75), (0.0, 0.72), (0.0, 0.85))[kind], color)

    @property
    def waist(self) -> float:
        """Height of the windows' lower edge."""
        return 0.62 * self.tall

    def cabin_across(self, picture: Picture, x: Array, y: Array) -> None:
        """Paint the windscreen or the rear window, and the body below; ``x`` is 0 in its middle."""
        x = np.abs(x)
        rise = np.clip((y - self.waist) / (self.tall - self.waist), 0, 1)
        outline = self.half * (0.98 - 0.2 * rise)
        picture.fill((x < outline) & (y >= 0.3) & (y < self.tall), self.color * np.float32(1.08))
        glass = (x < outline - 0.1) & (y >= self.waist + 0.03) & (y < self.tall - 0.12)
        picture.fill(glass, rgb(0.58, 0.3, 75.0))

    def body_across(self, picture: Picture, x: Array, y: Array, comes: bool) -> None:
        """Paint the front or the rear up to the windows; ``x`` is 0 in its middle."""
        x = np.abs(x)
        picture.fill((x > self.half - 0.28) & (x < self.half - 0.04) & (y >= 0) & (y < 0.4), 25.0)
        picture.fill((x < self.half - 0.1) & (y >= 0.17) & (y < 0.5), 35.0)
        picture.fill((x < self.half) & (y >= 0.3) & (y < self.waist), self.color)
        picture.fill((x < self.half) & (y >= 0.3) & (y < 0.42), self.color * np.float32(0.6))
        lamps = (x > self.half - 0.36) & (x < self.half - 0.06) & (y > self.waist - 0.27) & (y < self.waist - 0.1)
        picture.fill(lamps, rgb(0.14, 0.1, 250.0) if comes else rgb(0.99, 0.85, 190.0))
        if comes:
            picture.fill((x < 0.45) & (y > self.waist - 0.28) & (y < self.waist - 0.12), 40.0)
        picture.fill((x < 0.26) & (y > 0.44) & (y < 0.56), 235.0)

    def along(self, picture: Picture, s: Array, y: Array, where: NDArray[np.bool_], shade: float) -> None:
        """Paint the side; ``s`` is 0 at the rear and the length at the front, and places outside are left out."""
        part = s / self.long
        rise = np.clip((y - self.waist) / (self.tall - self.waist), 0, 1)
        where = where & (part >= 0) & (part <= 1) & (y >= 0) & (y < self.tall)
        color = self.color * np.float32(shade)
        picture.fill(where & (y > 0.17) & (y < 0.45) & (part > 0.1) & (part < 0.9), 35.0)
        picture.fill(where & (y > 0.3) & (y < self.waist), color)
        first, last = self.cabin[0] + 0.08 * rise, self.cabin[1] - 0.14 * rise
        cabin = where & (y >= self.waist) & (part > first) & (part < last)
        picture.fill(cabin, color)
        glass = cabin & (part > first + 0.03) & (part < last - 0.03) & (y < self.tall - 0.12)
        picture.fill(glass & (np.abs(part - (first + last) / 2) > 0.012), rgb(0.58, 0.3, 60.0))
        for wheel in (0.8, self.long - 0.8):
            distance = np.hypot(s - wheel, y - 0.33)
            picture.fill(where & (distance < 0.33), 22.0)
            picture.fill(where & (distance < 0.17), 150.0)


def _car(view: View, light: Light, car: _Car, place: tuple[float, float], comes: bool) -> Standing:
    """Return a car along the street: its front or rear, and the side that the camera sees."""
    right, ahead = place
    side = min(max(0.0, right - car.half), right + car.half)
    ends = [view.column(right - car.half, ahead), view.column(right + car.half, ahead)]
    ends.append(view.column(side, ahead + car.long))
    box = (min(ends), min(view.row(car.tall, ahead), view.row(car.tall, ahead + car.long)))

    def paint(picture: Picture, columns: Array, rows: Array) -> None:
        if side:
            # Where the ray through each place meets the side.
            off = (columns - view.middle) * np.sign(side)
            depth = np.where(off > 0, view.focal * abs(side) / np.maximum(off, 1e-3), np.inf).astype(np.float32)
            meets = np.isfinite(depth)
            depth = np.where(meets, depth, 0)
            up = view.height - (rows - view.horizon) * depth / view.focal
            behind = depth - ahead
            car.along(picture, car.long - behind if comes else behind, up, meets & (behind >= 0), 0.8)
        # The cabin begins behind the bonnet or the boot.
        back = ahead + car.long * ((1 - car.cabin[1]) if comes else car.cabin[0])
        car.cabin_across(picture, *view.place(columns, rows, right, back))
        car.body_across(picture, *view.place(columns, rows, right, ahead), comes)
        # The pillars between the window across the street and those of the side.
        ends = picture.inside, picture.inside[:, ::-1]
        left_of, right_of = (np.logical_or.accumulate(end, axis=1) for end in ends)
        between = left_of & right_of[:, ::-1] & ~picture.inside & (rows < view.row(car.waist, ahead))
        picture.fill(between, car.color * np.float32(0.9))

    top, left, alpha, color = sampled((*box, max(ends), view.row(0, ahead)), paint)
    below = (right, car.half + 0.25, ahead - 0.3, ahead + car.long + 0.3)
    return Standing(CAR, (top, left, alpha, light.on(color, ahead)), view, ahead, shadow=below)


def _crossing_car(
    rng: np.random.Generator, view: View, light: Light, car: _Car, place: tuple[float, float]
) -> Standing:
    """Return a car across the street."""
    way = rng.choice([-1.0, 1.0])

    def paint(picture: Picture, x: Array, y: Array) -> None:
        car.along(picture, way * x + car.long / 2, y, np.ones(x.shape, dtype=np.bool_), 1.0)

    return upright(CAR, view, light, place, (car.long / 2, 0.0, car.tall), paint)


@dataclass(frozen=True)
class _Clothes:
    """What somebody wears: the colors [3] of skin, head, upper and lower body."""

    skin: Array
    head: Array
    top: Array
    trousers: Array

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> _Clothes:
        """Draw them."""
        return cls(
            rgb(rng.uniform(0.05, 0.08), rng.uniform(0.25, 0.6), 255 * rng.uniform(0.35, 0.95)),
            rgb(rng.uniform(0.05, 0.13), rng.uniform(0.2, 0.7), 255 * rng.uniform(0.08, 0.7)),
            rgb(rng.random(), rng.uniform(0.0, 0.9), 255 * rng.uniform(0.15, 0.95)),
            rgb(rng.choice([0.08, 0.6]), rng.uniform(0.0, 0.6), 255 * rng.uniform(0.1, 0.5)),
        )


def _pedestrian(rng: np.random.Generator, view: View, light: Light, place: tuple[float, float]) -> Standing:
    tall, stride, swing = rng.uniform(1.2, 1.9), rng.uniform(0.03, 0.16), rng.uniform(0.02, 0.14)
    clothes = _Clothes.drawn(rng)
    # Limbs are at least a pixel wide, or far people would fall to pieces.
    limb = max(0.045, 0.6 * view.pixel(place[1]) / tall)

    def paint(picture: Picture, x: Array, y: Array) -> None:
        x, y = x / tall, y / tall
        for way in (-1, 1):
            picture.fill(near_line(x, y, (0.04 * way, 0.48), (way * stride, limb), limb), clothes.trousers)
        for way in (-1, 1):
            picture.fill(
                near_line(x, y, (0.1 * way, 0.79), (way * (0.1 + swing), 0.47), 0.75 * limb), clothes.top * 0.85
            )
        torso = (np.abs(x) < 0.12 - 0.03 * np.clip((0.8 - y) / 0.3, 0, 1)) & (y > 0.45) & (y < 0.83)
        picture.fill(torso, clothes.top)
        head = np.hypot(x, (y - 0.915) * 0.8) < 0.065
        picture.fill(head | ((np.abs(x) < 0.03) & (y > 0.8) & (y < 0.9)), clothes.skin)
        picture.fill(head & (y > 0.93), clothes.head)

    return upright(PEDESTRIAN, view, light, place, (0.32 * tall, 0.0, tall), paint)


def _cyclist(rng: np.random.Generator, view: View, light: Light, place: tuple[float, float]) -> Standing:
    """Return somebody on a bicycle, from the side or from behind."""
    clothes, frame = _Clothes.drawn(rng), rgb(rng.random(), rng.uniform(0.0, 0.9), 255 * rng.uniform(0.15, 0.9))
    aside, way = rng.random() < 0.5, rng.choice([-1.0, 1.0])
    turn = rng.uniform(-0.15, 0.15)
    thin = max(0.025, 0.5 * view.pixel(place[1]))

    def from_aside(picture: Picture, x: Array, y: Array) -> None:
        x = x * way
        for hub in (-0.52, 0.52):
            picture.fill(np.abs(np.hypot(x - hub, y - 0.34) - 0.31) < thin * 1.1, 25.0)
        joints = [(-0.52, 0.34), (0.0, 0.3), (0.38, 0.85), (-0.18, 0.85), (0.0, 0.3)]
        for start, end in [*pairwise(joints), ((0.36, 1.0), (0.52, 0.34))]:
            picture.fill(near_line(x, y, start, end, thin), frame)
        knee = (0.16, 0.72 + turn)
        picture.fill(near_line(x, y, (-0.18, 0.98), knee, 0.085), clothes.trousers)
        picture.fill(near_line(x, y, knee, (0.02, 0.25 + turn), 0.07), clothes.trousers)
        picture.fill(near_line(x, y, (-0.16, 1.0), (0.14, 1.45), 0.14), clothes.top)
        picture.fill(near_line(x, y, (0.14, 1.42), (0.4, 1.02), 0.055), clothes.top * np.float32(0.85))
        head = np.hypot(x - 0.26, y - 1.68) < 0.13
        picture.fill(head, clothes.skin)
        picture.fill(head & (y > 1.7), frame)

    def from_behind(picture: Picture, x: Array, y: Array) -> None:
        picture.fill((np.abs(x) < max(0.035, thin)) & (y >= 0) & (y < 0.7), 25.0)
        picture.fill(near_line(x, y, (-0.28, 1.02), (0.28, 1.02), thin), frame)
        for side in (-1, 1):
            foot = 0.25 + side * turn
            picture.fill(near_line(x, y, (0.1 * side, 0.95), (0.13 * side, foot), 0.075), clothes.trousers)
            picture.fill(near_line(x, y, (0.18 * side, 1.4), (0.26 * side, 1.03), 0.05), clothes.top * np.float32(0.85))
        picture.fill((np.abs(x) < 0.2) & (y > 0.9) & (y < 1.48), clothes.top)
        head = np.hypot(x, y - 1.63) < 0.13
        picture.fill(head, clothes.skin)
        picture.fill(head & (y > 1.62), frame)

    extent = (0.95 if aside else 0.38, 0.0, 1.85)
    return upright(CYCLIST, view, light, place, extent, from_aside if aside else from_behind)
