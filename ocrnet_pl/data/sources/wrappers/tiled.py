"""Tiles of another source's large images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.records import Blocks
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.errors import DataError, StoreError
from ocrnet_pl.imaging.geometry import Size, place
from ocrnet_pl.imaging.tile_grid import overlap_pixels, tile_counts, tile_starts
from ocrnet_pl.structures import Sample, Taxonomy

_MOST_TILES = 100_000_000


class Tiled(Source):
    """Overlapping tiles of another source's samples, at the images' own scale.

    The tiles of an image follow one another, row by row, and cover it exactly; the last ones of a row and of a column
    are moved back to end at the border. An image smaller than a tile is one tile of its own size. Boxes, instances and
    pixels are cut as :func:`~ocrnet_pl.imaging.geometry.place` does; the supervision does not change. The ids and paths
    of the samples name the tile by its top left pixel: ``name#y,x``.

    Only the images' sizes are read at the start. The last decoded image is kept, so tiles that are requested in order
    decode each image once; for shuffled training on few images, use ``Cached`` around the source, or ``data.cache``.

    Args:
        source: Source of the images.
        size: Size of the tiles in pixels, (height, width) or one side for both.
        overlap: Share of a tile's side, from 0 to below 1, that neighbours have in common; an object no larger than the
            overlap is whole in at least one tile.
        min_visible: Share of an object's area, 0 to 1, that has to be in a tile for it to be a target there; objects
            cut further become crowd rows, neither target nor background.
        keep_empty: Whether tiles without boxes are kept. If not, the boxes are read at the start, for which a format
            that does not provide them has to decode every image.

    Raises:
        ValueError: An option is out of range.
        DataError: No tile is left, or there are more than 100 million.
    """

    def __init__(
        self,
        source: Source,
        size: int | tuple[int, int],
        overlap: float = 0.25,
        min_visible: float = 0.3,
        keep_empty: bool = True,
    ) -> None:
        sides = (size, size) if isinstance(size, int) else tuple(size)
        if len(sides) != 2 or min(sides) < 1:
            raise ValueError(f"Tiled: size must be one side or (height, width), both at least 1, got {size}")
        if not 0 <= min_visible <= 1:
            raise ValueError(f"Tiled: min_visible must be from 0 to 1, got {min_visible}")
        self.source = source
        self.root = getattr(source, "root", ".")
        self.size: Size = (sides[0], sides[1])
        self.min_visible = min_visible
        self._shared = (overlap_pixels(sides[0], overlap), overlap_pixels(sides[1], overlap))
        self._sizes = np.array([self._size_of(index) for index in range(len(source))], dtype=np.int64).reshape(-1, 2)
        rows, self._columns = (tile_counts(self._sizes[:, i], self.size[i], self._shared[i]) for i in (0, 1))
        counts = rows.astype(np.float64) * self._columns
        if counts.sum() > _MOST_TILES:
            image = int(counts.argmax())
            height, width = self._sizes[image]
            raise DataError.at(
                source.identity(image)[1],
                f"an image of {width} x {height} makes {counts[image]:.3g} tiles, all together {counts.sum():.3g}",
                field="Tiled",
                advice="correct its size in the annotations, or use larger tiles",
            )
        self._starts = np.concatenate([[0], np.cumsum(rows * self._columns)])
        self._kept: NDArray[np.int64] | None = None
        if not keep_empty:
            self._kept = np.concatenate([np.zeros(0, dtype=np.int64), *map(self._occupied, range(len(source)))])
        if not len(self):
            raise DataError("Tiled: no tile has a box; set `keep_empty: true`, or check the annotations")
        self._last: tuple[int, Sample] | None = None

    @property
    def taxonomy(self) -> Taxonomy:
        """The categories of the source."""
        return self.source.taxonomy

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._kept is None else len(self._kept)

    def window(self, index: int) -> tuple[int, int, int, int, int]:
        """Return the place of a tile: the image's index, then top, left, height and width in its pixels."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = index if self._kept is None else int(self._kept[index])
        image = int(np.searchsorted(self._starts, number, side="right")) - 1
        cell = divmod(number - int(self._starts[image]), int(self._columns[image]))
        height, width = (int(side) for side in self._sizes[image])
        top, left = (
            min(at * (side - shared), max(0, length - side))
            for at, side, shared, length in zip(cell, self.size, self._shared, (height, width), strict=True)
        )
        return image, top, left, min(height, self.size[0]), min(width, self.size[1])

    def __getitem__(self, index: int) -> Sample:
        image, top, left, height, width = self.window(index)
        sample = self._read(image)
        part = (top, left, height, width)
        tile = place(sample, part, (height, width), (height, width), (0, 0), min_visible=self.min_visible)
        name = f"#{top},{left}"
        return tile.replace(image_id=f"{sample.image_id}{name}", path=f"{sample.path}{name}")

    def image_size(self, index: int) -> tuple[int, int]:
        """Return a tile's (height, width)."""
        _, _, _, height, width = self.window(index)
        return height, width

    def files(self, index: int) -> Sequence[str]:
        """Return the files from the source."""
        return self.source.files(self.window(index)[0])

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return the id and path of a tile's image, with the tile's top left pixel."""
        image, top, left, _, _ = self.window(index)
        image_id, path = self.source.identity(image)
        return f"{image_id}#{top},{left}", f"{path}#{top},{left}"

    @property
    def sizes(self) -> NDArray[np.int32]:
        """The sizes of the tiles: the tile's size, or the image's where that is smaller."""
        counts = np.diff(self._starts)
        every = np.minimum(self._sizes, self.size).astype(np.int32).repeat(counts, axis=0)
        return every if self._kept is None else every[self._kept]

    @property
    def blocks(self) -> Blocks | None:
        """The blocks of the source, counted in tiles."""
        blocks = self.source.blocks
        if blocks is None:
            return None
        bounds = self._starts[blocks.bounds]
        return Blocks(bounds if self._kept is None else np.searchsorted(self._kept, bounds), blocks.window)

    def expect(self, index: int) -> None:
        """Forward it to the source."""
        self.source.expect(self.window(index)[0])

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the decoded image."""
        return self.__dict__ | {"_last": None}

    def _read(self, image: int) -> Sample:
        if self._last is None or self._last[0] != image:
            self._last = None  # before the next is decoded, so that two are never in memory
            sample = self.source[image]
            noted = tuple(int(side) for side in self._sizes[image])
            if sample.size != noted:
                raise DataError.at(
                    sample.path,
                    f"the image is {sample.size[1]} x {sample.size[0]}, but was {noted[1]} x {noted[0]} at the start",
                    advice="do not change files during a run",
                )
            self._last = (image, sample)
        return self._last[1]

    def _size_of(self, image: int) -> Size:
        try:
            return self.source.image_size(image)
        except DataError:
            # One tile stands for a file that cannot be read: reading it raises an error, after which a run may
            # continue.
            return self.size

    def _occupied(self, image: int) -> NDArray[np.int64]:
        """Return the numbers of the image's tiles that a box meets."""
        try:
            boxes = self.source.image_boxes(image).astype(np.float64)
        except StoreError:
            raise
        except DataError:
            return np.array([self._starts[image]])
        meets = []
        for axis in (0, 1):
            starts = tile_starts(int(self._sizes[image, axis]), self.size[axis], self._shared[axis])
            low, high = boxes[:, 1 - axis, None], boxes[:, 3 - axis, None]
            meets.append((low < starts + self.size[axis]) & (high > starts) & (low < high))
        met = np.einsum("nr,nc->rc", *(m.astype(np.float32) for m in meets)) > 0
        return np.asarray(self._starts[image] + np.flatnonzero(met), dtype=np.int64)
