"""Drawn shelves: goods in facings on boards, price tags below them, gaps where they are sold out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.sources.scenes import Array, Scene, SceneSource, Sprite, rgb, smooth_noise
from ocrnet_pl.structures import Taxonomy

STUFF = ("back", "board", "floor")
THINGS = ("carton", "can", "bottle", "bag", "price tag", "gap")
_BACK, _BOARD, _FLOOR = range(3)
_CARTON, _CAN, _BOTTLE, _BAG, _TAG, _GAP = range(6)

_COLORS = {
    "back": (70, 80, 95),
    "board": (200, 200, 190),
    "floor": (140, 105, 75),
    "carton": (230, 150, 40),
    "can": (60, 150, 230),
    "bottle": (60, 180, 75),
    "bag": (170, 90, 220),
    "price tag": (255, 240, 120),
    "gap": (230, 40, 60),
}


class Shelves(SceneSource):
    """Drawn shelves with exact truth: goods, price tags and gaps are things; back wall, boards and floor are stuff.

    Goods are cartons, cans, bottles and bags. Equal ones stand side by side in facings; a few have fallen over. A gap
    is a facing without goods, from board to board and from neighbour to neighbour.

    Splits are made with different seeds.

    Args:
        length: Number of scenes.
        seed: Seed of the scenes, at least 0.
        size: Size of the scenes in pixels, (height, width) or one side for both, at least 32.
        min_boards: Smallest number of boards in a scene.
        max_boards: Largest number of boards in a scene.
        gaps: Share of the facings, 0 to 1, that are sold out.
        fallen: Share of the goods, 0 to 1, that lie on their side, where there is room.
        min_visible: Share of an object, 0 to 1, that has to be inside the image and not hidden; others are left out.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(
        self,
        length: int = 512,
        seed: int = 0,
        size: int | tuple[int, int] = 160,
        min_boards: int = 2,
        max_boards: int = 4,
        gaps: float = 0.12,
        fallen: float = 0.04,
        min_visible: float = 0.3,
    ) -> None:
        super().__init__(length, seed, size, min_visible, Taxonomy.build(things=THINGS, stuff=STUFF, colors=_COLORS))
        self.boards = self.counts("boards", min_boards, max_boards)
        self.gaps = self.share("gaps", gaps)
        self.fallen = self.share("fallen", fallen)

    def draw(self, rng: np.random.Generator) -> Scene:
        """Return a part of a shelf, without the objects that are almost outside."""
        width = self.size[1]
        rack = _Rack(rng, self.size, int(rng.integers(self.boards[0], self.boards[1] + 1)))
        image, semantic = rack.paint(rng)
        things: list[Sprite] = []
        for top, bottom in rack.spaces:
            empty = False
            left = -int(rng.integers(max(4, width // 6)))
            while left < width:
                product = _product(rng, bottom - top, min(self.size))
                count = int(rng.integers(1, 5))
                end = left + count * product.width
                # Nobody could tell two gaps side by side from a wide one.
                empty = not empty and rng.random() < self.gaps
                if empty:
                    things.append(_gap(image, top, bottom, left, end, self.size))
                else:
                    things += self._facing(rng, product, left, bottom, count)
                if rng.random() < 0.85:
                    tag = _tag(rng, rack.thickness)
                    middle = (left + end) // 2 - tag[0].shape[1] // 2
                    row = bottom + max(0, (rack.thickness - tag[0].shape[0]) // 2)
                    things.append(Sprite(_TAG, row, middle, *tag, self.size))
                left = end + int(rng.integers(0, max(2, width // 60)))
        return Scene(image, semantic, self.visible(things))

    def _facing(self, rng: np.random.Generator, product: _Product, left: int, bottom: int, count: int) -> list[Sprite]:
        """Return equal goods side by side, of which one may have fallen."""
        goods = []
        room = count * product.width
        place = left
        while place + product.width <= left + room:
            light = np.float32(rng.uniform(0.88, 1.08))
            lies = rng.random() < self.fallen and product.width < product.height <= left + room - place
            alpha, color = product.alpha, product.color
            if lies:
                alpha, color = np.rot90(alpha), np.rot90(color)
            # The side of a bag does not fill its rectangle, and lies on the board nevertheless.
            row = bottom - 1 - int(np.flatnonzero((alpha >= 0.5).any(1))[-1])
            goods.append(Sprite(product.label, row, place, alpha, color * light, self.size))
            place += alpha.shape[1]
        return goods


class _Rack:
    """Boards, uprights, back wall and floor.

    Attributes:
        thickness: Height of a board's front, in pixels.
        spaces: The first row and the row below the last of each space between two boards.

    Args:
        rng: Generator of the measures.
        size: (height, width) of the image.
        count: Number of boards.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], count: int) -> None:
        self.size = size
        height = size[0]
        self.floor = height - int(height * rng.uniform(0.04, 0.12)) if rng.random() < 0.4 else height + 2
        self.thickness = max(5, round(min(size) * rng.uniform(0.05, 0.075)))
        bottom = self.floor - int(rng.integers(0, max(2, height // 20))) - self.thickness
        step = (bottom + self.thickness * rng.uniform(0.0, 1.0)) / count
        self.boards = [round(bottom - number * step) for number in range(count)]
        tops = [board + self.thickness for board in self.boards[1:]] + [0]
        spaces = [(max(top, 0), board) for top, board in zip(tops, self.boards, strict=True)]
        self.spaces = [space for space in spaces if space[1] - space[0] >= 8]

    def paint(self, rng: np.random.Generator) -> tuple[Array, NDArray[np.uint8]]:
        """Return the image and the classes of its pixels."""
        height, width = self.size
        tint = rgb(rng.random(), rng.uniform(0.0, 0.15), 255.0)
        back, board = tint * rng.uniform(0.2, 0.45), tint * rng.uniform(0.6, 0.9)
        rail = rgb(rng.random(), rng.uniform(0.0, 0.5), 255 * rng.uniform(0.45, 0.85))
        grain = smooth_noise(rng, self.size, max(self.size) // 4)
        wide = smooth_noise(rng, self.size, 3)
        light = np.ones((height, width), dtype=np.float32)
        colors = np.broadcast_to(back, (height, width, 3)).astype(np.float32)
        semantic = np.full(self.size, _BACK, dtype=np.uint8)
        for top, bottom in self.spaces:
            # Darker below the board above.
            light[top:bottom] *= (0.6 + 0.55 * np.linspace(0, 1, bottom - top, dtype=np.float32) ** 0.7)[:, None]
        slits = np.sin(np.arange(width, dtype=np.float32) * np.float32(rng.uniform(0.5, 1.2)))
        light *= 1 + 0.06 * np.sign(slits)[None, :] * rng.integers(2)
        for row in self.boards:
            first, last = max(row, 0), min(row + self.thickness, height)
            if last <= first:
                continue
            colors[first:last] = rail
            light[first:last] = np.linspace(1.05, 0.85, last - first, dtype=np.float32)[:, None]
            colors[first : min(first + max(1, self.thickness // 5), height)] = board
            semantic[first:last] = _BOARD
        # Below the lowest board there is a plinth, of the boards' metal.
        plinth = min(max(self.boards[0] + self.thickness, 0), height)
        colors[plinth:] = board * np.float32(0.5)
        light[plinth:] = 1
        semantic[plinth:] = _BOARD
        if self.floor < height:
            colors[self.floor :] = rgb(rng.uniform(0.05, 0.15), rng.uniform(0.0, 0.4), 255 * rng.uniform(0.4, 0.75))
            semantic[self.floor :] = _FLOOR
        light *= 1 + 0.02 * grain + 0.05 * wide
        return np.asarray(colors * light[..., None], dtype=np.float32), semantic


@dataclass
class _Product:
    """One article.

    Attributes:
        label: Detection class.
        alpha: Its outline, float32 [h, w].
        color: Its package, float32 [h, w, 3], 0 to 255.
    """

    label: int
    alpha: Array
    color: Array

    @property
    def height(self) -> int:
        return int(self.alpha.shape[0])

    @property
    def width(self) -> int:
        return int(self.alpha.shape[1])


def _product(rng: np.random.Generator, space: int, side: int) -> _Product:
    """Return an article that fits below the next board."""
    label = int(rng.integers(4))
    tallest, wide = {
        _CARTON: (rng.uniform(0.5, 0.92), rng.uniform(0.45, 1.1)),
        _CAN: (rng.uniform(0.35, 0.6), rng.uniform(0.55, 0.85)),
        _BOTTLE: (rng.uniform(0.65, 0.95), rng.uniform(0.28, 0.42)),
        _BAG: (rng.uniform(0.5, 0.85), rng.uniform(0.65, 1.0)),
    }[label]
    # Spaces between few boards are high; what stands there is not as wide in proportion.
    height = max(7, round(space * tallest))
    width = int(np.clip(round(min(height, 0.32 * side) * wide), 6, 0.22 * side))
    y: Array = ((np.arange(height) + 0.5) / height).astype(np.float32)[:, None]
    x: Array = ((np.arange(width) + 0.5) / width * 2 - 1).astype(np.float32)[None, :]
    alpha = np.clip(0.5 - (np.abs(x) - _OUTLINES[label](y)) * width / 2, 0, 1)
    alpha = np.where(y * height < 0.6, alpha * 0.6, alpha)
    color = _package(rng, label, y, x)
    return _Product(label, alpha.astype(np.float32), color.astype(np.float32))


def _carton_outline(y: Array) -> Array:
    return np.full_like(y, 0.94)


def _can_outline(y: Array) -> Array:
    # Narrower at both rims.
    rim = np.minimum(y, 1 - y)
    return np.asarray(0.94 - 0.14 * np.clip(1 - rim / 0.06, 0, 1), dtype=np.float32)


def _bottle_outline(y: Array) -> Array:
    # Cap, neck, shoulder, body.
    shoulder = np.clip((y - 0.2) / 0.18, 0, 1)
    shoulder = shoulder * shoulder * (3 - 2 * shoulder)
    return np.asarray(np.where(y < 0.1, 0.42, 0.34 + 0.58 * shoulder), dtype=np.float32)


def _bag_outline(y: Array) -> Array:
    # A filled pillow with flat seams above and below.
    seam = np.minimum(y, 1 - y)
    return np.asarray(0.84 + 0.1 * np.sin(np.pi * np.clip((seam - 0.07) / 0.5, 0, 1)), dtype=np.float32)


_OUTLINES: dict[int, Callable[[Array], Array]] = {
    _CARTON: _carton_outline,
    _CAN: _can_outline,
    _BOTTLE: _bottle_outline,
    _BAG: _bag_outline,
}
"""Half of the width at each height, 0 to 1 of the sprite's; 0 is the top."""


def _package(rng: np.random.Generator, label: int, y: Array, x: Array) -> Array:
    """Return what is printed on an article, and its shading."""
    y, x = np.broadcast_arrays(y, x)
    hue = rng.random()
    main = rgb(hue, rng.uniform(0.3, 0.9), 255 * rng.uniform(0.45, 0.95))
    second = rgb((hue + rng.uniform(0.2, 0.8)) % 1, rng.uniform(0.0, 0.8), 255 * rng.uniform(0.6, 1.0))
    color = np.broadcast_to(main, (*y.shape, 3)).astype(np.float32)
    low, high = np.sort(rng.uniform(0.3, 0.9, 2))
    high = max(high, low + 0.15)
    band = (y > low) & (y < high)
    pattern = int(rng.integers(4))
    if pattern == 1:
        band = band & (np.sin(9 * x + 12 * y) > 0)
    elif pattern == 2:
        band = np.hypot(x, (y - (low + high) / 2) * 2.2) < rng.uniform(0.45, 0.75)
    elif pattern == 3:
        band = band & (np.abs(x) < 0.65)
    color[band] = second
    # Lines of print.
    ink = rgb(hue, rng.uniform(0.0, 0.5), 255 * (0.1 if second.mean() > 110 else 0.95))
    lines = (np.sin(rng.uniform(35, 60) * y) > 0.3) & (y > low + 0.05) & (y < high - 0.03) & (np.abs(x) < 0.45)
    color[lines & band] = ink
    if label == _CARTON:
        # The side face in shadow.
        shade = np.where(x > 0.94 - rng.uniform(0.0, 0.35), 0.72, 1.0)
    elif label == _BAG:
        folds = np.sin(5 * x + 3 * np.sin(6 * y)) * 0.12
        shade = 1 - 0.25 * x * x + folds
        shade = np.where(np.minimum(y, 1 - y) < 0.07, 0.7 + 0.2 * np.sign(np.sin(14 * x)), shade)
    else:
        # Round: light from the left.
        shade = 1.05 - 0.55 * (x + 0.25) ** 2 + 0.45 * np.exp(-((x + 0.4) ** 2) / 0.02)
    color = color * shade[..., None]
    if label == _CAN:
        rims = np.minimum(y, 1 - y) < 0.07
        color[rims] = (195 * shade[rims])[:, None]
    elif label == _BOTTLE:
        cap = y < 0.1
        color[cap] = second * shade[cap][:, None]
    # The outline is a little darker, so that equal neighbours stay apart.
    edge = np.clip((np.abs(x) - (_OUTLINES[label](y) - 0.1)) / 0.1, 0, 1)
    return np.asarray(color * (1 - 0.35 * edge)[..., None])


def _tag(rng: np.random.Generator, thickness: int) -> tuple[Array, Array]:
    """Return a price tag: alpha and color."""
    height = max(4, round(thickness * rng.uniform(0.65, 0.85)))
    width = round(height * rng.uniform(1.4, 2.2))
    offer = rng.random() < 0.25
    paper = np.array([250, 215, 60] if offer else [245, 245, 240], dtype=np.float32)
    color = np.broadcast_to(paper, (height, width, 3)).copy()
    # Digits.
    columns = np.arange(width)
    digits = (columns % 3 != 0) & (columns > width * 0.15) & (columns < width * rng.uniform(0.6, 0.9))
    rows = slice(max(1, round(height * 0.3)), max(2, round(height * 0.8)))
    color[rows, digits] = np.array([190, 30, 30] if offer else [40, 40, 45], dtype=np.float32)
    return np.ones((height, width), dtype=np.float32), color


def _gap(image: Array, top: int, bottom: int, left: int, right: int, size: tuple[int, int]) -> Sprite:
    """Return an empty facing: the back wall is seen there, and a shadow deep in the shelf."""
    depth = np.linspace(0.75, 1.0, bottom - top, dtype=np.float32)[:, None]
    first = max(left, 0)
    last = max(first, min(right, size[1]))
    color = image[top:bottom, first:last] * depth[..., None]
    return Sprite(_GAP, top, first, np.ones(color.shape[:2], dtype=np.float32), color, size)
