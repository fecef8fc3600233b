"""The common part of the sources that draw their images: exact labels from objects painted one over another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ocrnet_pl.data.records import make_sample
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.imaging.images import MAX_PIXELS
from ocrnet_pl.structures import Sample, Supervision, Taxonomy

Array = NDArray[np.float32]
Window = tuple[slice, slice]

_MOST_SCENES = 1_000_000_000
"""Largest length: an order of the scenes still fits into memory."""

_MOST_THINGS = 1 << 16
"""Largest number of objects of a kind in a scene."""


class Thing(Protocol):
    """One object of a scene, or a piece of stuff that stands among the objects and hides those behind it.

    Attributes:
        label: Detection class; of a piece of stuff the segmentation class.
        is_stuff: Whether it is a piece of stuff.
        window: The part of the image that it touches.
        mask: Its pixels, in the window.
        area: Number of its pixels, including those outside the image.
    """

    label: int
    is_stuff: bool
    window: Window
    mask: NDArray[np.bool_]
    area: int

    def paint(self, image: Array) -> None:
        """Draw onto the image, float32 [H, W, 3], its border mixed with what is behind."""


ThingT = TypeVar("ThingT", bound=Thing)


@dataclass
class Scene:
    """What is drawn, before the camera's noise.

    Attributes:
        image: The background, float32 [H, W, 3], 0 to 255.
        semantic: The segmentation classes of the background, uint8 [H, W].
        things: The objects and the pieces of stuff among them, the one farthest back first.
    """

    image: Array
    semantic: NDArray[np.uint8]
    things: Sequence[Thing]


class Sprite:
    """A painted object that is put somewhere; what lies outside the image is cut off.

    Args:
        label: Detection class; of a piece of stuff the segmentation class.
        top: Row of its first pixels.
        left: Column of its first pixels.
        alpha: How much of each pixel it covers, float32 [h, w], 0 to 1; half and more makes the pixel its own.
        color: Its colors, float32 [h, w, 3], 0 to 255.
        size: (height, width) of the image.
        is_stuff: Whether it is a piece of stuff.
    """

    def __init__(
        self,
        label: int,
        top: int,
        left: int,
        alpha: Array,
        color: Array,
        size: tuple[int, int],
        is_stuff: bool = False,
    ) -> None:
        self.label = label
        self.is_stuff = is_stuff
        self.window, inside = clipped(top, left, alpha.shape, size)
        self.area = int(np.count_nonzero(alpha >= 0.5))
        self._alpha, self._color = alpha[inside], color[inside]
        self.mask = self._alpha >= 0.5

    def paint(self, image: Array) -> None:
        """Draw onto the image."""
        view = image[self.window]
        view += self._alpha[..., None] * (self._color - view)


class SceneSource(Source, ABC):
    """Drawn scenes with exact truth, the same for the same seed and index everywhere.

    A subclass draws one scene from a random generator.

    Args:
        length: Number of scenes, 1 to 1,000,000,000.
        seed: Seed of the scenes, at least 0.
        size: Size of the scenes in pixels, (height, width) or one side for both, at least 32.
        min_visible: Share of an object's pixels, above 0 and at most 1, that has to be visible for it to be drawn.
        taxonomy: The categories; those of ``Scene.semantic`` come first.
        noise: Standard deviation of the camera's noise, from the least to the most, in steps of 255.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        size: int | tuple[int, int],
        min_visible: float,
        taxonomy: Taxonomy,
        noise: tuple[float, float] = (1.0, 6.0),
    ) -> None:
        sides = (size, size) if isinstance(size, int) else tuple(size)
        name = type(self).__name__
        if not 1 <= length <= _MOST_SCENES:
            raise ValueError(f"{name}: length must be from 1 to {_MOST_SCENES}, got {length}")
        if seed < 0:
            raise ValueError(f"{name}: seed must not be negative, got {seed}")
        if len(sides) != 2 or min(sides) < 32:
            raise ValueError(f"{name}: size must be one side or (height, width) of at least 32, got {size}")
        if sides[0] * sides[1] > MAX_PIXELS:
            raise ValueError(f"{name}: size must be of at most {MAX_PIXELS} pixels, got {size}")
        if not 0 < min_visible <= 1:
            raise ValueError(f"{name}: min_visible must be above 0 and at most 1, got {min_visible}")
        self.length = length
        self.seed = seed
        self.size = (sides[0], sides[1])
        self.min_visible = min_visible
        self._noise = noise
        self._taxonomy = taxonomy

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Scene:
        """Return a scene, of which everything that varies comes from the generator."""

    def counts(self, what: str, smallest: int, largest: int, least: int = 1) -> tuple[int, int]:
        """Return the bounds of a count, as two options give them.

        Args:
            what: What is counted; the options are called ``min_`` and ``max_`` this.
            smallest: The smallest count.
            largest: The largest count.
            least: What the smallest count must be at least.

        Raises:
            ValueError: They are out of order, the smallest one is too small, or the largest one too large.
        """
        if not least <= smallest <= largest <= _MOST_THINGS:
            raise ValueError(
                f"{type(self).__name__}: expected {least} <= min_{what} <= max_{what} <= {_MOST_THINGS}, "
                f"got {smallest} and {largest}"
            )
        return smallest, largest

    def share(self, name: str, value: float) -> float:
        """Return an option that is a share.

        Raises:
            ValueError: It is not from 0 to 1.
        """
        if not 0 <= value <= 1:
            raise ValueError(f"{type(self).__name__}: {name} must be from 0 to 1, got {value}")
        return value

    def count(self, name: str, value: int) -> int:
        """Return an option that bounds a count whose smallest value is 0.

        Raises:
            ValueError: It is negative, or too large.
        """
        if not 0 <= value <= _MOST_THINGS:
            raise ValueError(f"{type(self).__name__}: {name} must be from 0 to {_MOST_THINGS}, got {value}")
        return value

    def visible(self, things: Sequence[ThingT]) -> list[ThingT]:
        """Return the objects of a scene, the one farthest back first, without those that are seen too little.

        Pieces of stuff hide what is behind them, and stay however little of them is seen.
        """
        covered = np.zeros(self.size, dtype=np.bool_)
        kept: list[ThingT] = []
        for thing in reversed(things):
            seen = thing.mask & ~covered[thing.window]
            if not thing.is_stuff and np.count_nonzero(seen) < max(4, self.min_visible * thing.area):
                continue
            covered[thing.window] |= thing.mask
            kept.append(thing)
        return kept[::-1]

    @property
    def taxonomy(self) -> Taxonomy:
        """The kinds of stuff, then the kinds of things."""
        return self._taxonomy

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng((self.seed, index))
        scene = self.draw(rng)
        image, semantic = scene.image, scene.semantic
        instances = np.zeros(self.size, dtype=np.int32)
        of_detection = self._taxonomy.detection_to_semantic
        things: list[Thing] = []
        for thing in scene.things:
            thing.paint(image)
            if not thing.is_stuff:
                things.append(thing)
            instances[thing.window][thing.mask] = 0 if thing.is_stuff else len(things)
            semantic[thing.window][thing.mask] = thing.label if thing.is_stuff else of_detection[thing.label]
        boxes = [_bounds(thing.window, instances[thing.window] == number) for number, thing in enumerate(things, 1)]
        image += rng.standard_normal((*self.size, 1), dtype=np.float32) * np.float32(rng.uniform(*self._noise))
        pixels = torch.from_numpy(np.clip(image, 0, 255).astype(np.uint8)).permute(2, 0, 1).contiguous()
        return make_sample(
            pixels,
            boxes=boxes,
            labels=[thing.label for thing in things],
            crowd=[False] * len(things),
            semantic=semantic,
            instances=instances,
            supervision=Supervision.full(self._taxonomy),
            image_id=index,
            path=self._path(index),
        )

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the size of all scenes."""
        return self.size

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return the scene's number and its description."""
        return index, self._path(index)

    @property
    def sizes(self) -> NDArray[np.int32]:
        """All scenes have the same size."""
        return np.broadcast_to(np.array(self.size, dtype=np.int32), (self.length, 2))

    def _path(self, index: int) -> str:
        return f"synthetic-{self.seed}-{index}"


def clipped(top: int, left: int, shape: tuple[int, ...], size: tuple[int, ...]) -> tuple[Window, Window]:
    """Return the part of an image that a rectangle covers, and that part in the rectangle's own coordinates.

    Args:
        top: The rectangle's first row in the image.
        left: The rectangle's first column in the image.
        shape: (height, width) of the rectangle.
        size: (height, width) of the image.
    """
    rows = [min(max(row, 0), size[0]) for row in (top, top + shape[0])]
    columns = [min(max(column, 0), size[1]) for column in (left, left + shape[1])]
    inside = (slice(rows[0] - top, rows[1] - top), slice(columns[0] - left, columns[1] - left))
    return (slice(*rows), slice(*columns)), inside


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], cells: int) -> Array:
    """Return smooth noise of about unit strength, [H, W], with this many cells along each axis."""
    rows, columns = _spread(size[0], cells), _spread(size[1], cells)
    corners = torch.from_numpy(rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32))
    # By torch, because loading workers run it on one thread, while NumPy's library would start one per core in each.
    field: Array = (rows @ corners @ columns.T).numpy()
    return field


def rgb(hue: float, saturation: float, value: float) -> Array:
    """Return a color [3], from 0 to ``value``; hue, saturation and value are from 0 to 1."""
    sectors = (hue * 6 + np.array([0.0, 4.0, 2.0])) % 6
    pure = np.clip(np.abs(sectors - 3) - 1, 0, 1)
    return np.asarray(value * (1 + saturation * (pure - 1)), dtype=np.float32)


@lru_cache(maxsize=64)
def _spread(length: int, cells: int) -> torch.Tensor:
    """Return the matrix that spreads values at the corners of cells smoothly over a line of pixels."""
    cells = min(cells, length)
    position = (np.arange(length) + 0.5) / length * cells
    cell = np.minimum(position.astype(int), cells - 1)
    part = position - cell
    part = part * part * (3 - 2 * part)
    matrix = np.zeros((length, cells + 1), dtype=np.float32)
    matrix[np.arange(length), cell] = 1 - part
    matrix[np.arange(length), cell + 1] = part
    return torch.from_numpy(matrix)


def _bounds(window: Window, mask: NDArray[np.bool_]) -> list[int]:
    """Return the box, in the image, of some pixels of a window."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = window[0].start, window[1].start
    return [left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1]
