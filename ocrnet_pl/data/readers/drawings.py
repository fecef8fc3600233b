"""The shapes that annotation tools draw, collected image by image into flat arrays that worker processes share."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.coco_arrays import NO_MASK, RLE, Masks, by_image, pack_polygons
from ocrnet_pl.data.readers.folder_index import pack_names
from ocrnet_pl.data.readers.packed_masks import encode_polygons
from ocrnet_pl.data.readers.values import as_number, shown
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.images import MAX_PIXELS

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels."""

_LEAST_CORNERS = 16
_SAGITTA = 0.05
"""Largest distance of a drawn circle from the polygon in its place, in pixels."""


class Bitmap(NamedTuple):
    """A mask in a part of an image.

    Attributes:
        left: First column in the image.
        top: First row in the image.
        pixels: bool [h, w].
    """

    left: int
    top: int
    pixels: NDArray[np.bool_]


class Shape(NamedTuple):
    """One drawn shape.

    Attributes:
        label: Name that the tool gives it.
        number: Its position in the file, for messages.
        box: Its box; None for that of its mask.
        polygons: Outlines, each a flat list of x and y.
        bitmap: Mask, instead of outlines; None for none.
        crowd: Whether it stands for objects that are not marked one by one.
        group: What the parts of one object share; None for a shape of its own.
    """

    label: str
    number: int
    box: Box | None = None
    polygons: tuple[list[float], ...] = ()
    bitmap: Bitmap | None = None
    crowd: bool = False
    group: int | str | None = None


@dataclass
class Labels:
    """The labels that shapes may have.

    Attributes:
        classes: Names of the detection classes, in order; None for all that are found, in alphabetical order.
        stuff: Names of regions that have pixels, but are no objects.
        ignored: Names of regions whose pixels are ignored.
        others: Whether any other label is an error, or its shapes are left out.
    """

    classes: Sequence[str] | None
    stuff: Sequence[str]
    ignored: Sequence[str]
    others: Literal["refuse", "ignore"]

    def check(self, source: str) -> None:
        """Check that the options fit each other.

        Raises:
            DataError: A name is given twice.
            ValueError: ``others`` is something else.
        """
        if self.others not in ("refuse", "ignore"):
            raise ValueError(f"{source}: others must be 'refuse' or 'ignore', got {self.others!r}")
        names = [*(self.classes or ()), *self.stuff, *self.ignored]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DataError.at(source, f"{twice!r} is given twice", field="classes", advice="remove it")


class DrawingArrays:
    """The shapes of a data set, as :class:`Drawings` packs them.

    Attributes:
        names: The images' files relative to their folder, packed.
        files: The annotation file of each image, packed.
        places: Position of each image in its annotation file, packed; empty for a file of one image.
        sizes: int32 [images, 2], height and width; zeros where the file does not say.
        labels: int64 [N], detection classes; for regions, minus one minus the position among the names of regions.
        boxes: float32 [N, 4], xyxy in pixels.
        crowd: bool [N].
        numbers: int64 [N], positions in the file.
        kinds, ends, masks: The masks, see :class:`~ocrnet_pl.data.readers.packed_masks.PackedMasks`.
        order, starts, empty, empty_starts: The objects of each image, with and without area, see
            :func:`~ocrnet_pl.data.readers.coco_arrays.by_image`.
        regions, region_starts: The regions of each image.
        known: bool [images, classes], the classes that each image was labelled for; None for all.
    """

    names: NDArray[np.bytes_]
    files: NDArray[np.bytes_]
    places: NDArray[np.bytes_]
    sizes: NDArray[np.int32]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float32]
    crowd: NDArray[np.bool_]
    numbers: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    ends: NDArray[np.int64]
    masks: NDArray[np.uint8]
    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    empty: NDArray[np.int64]
    empty_starts: NDArray[np.int64]
    regions: NDArray[np.int64]
    region_starts: NDArray[np.int64]
    known: NDArray[np.bool_] | None = None


class Drawings:
    """Collects the shapes of images.

    Args:
        labels: The labels that shapes may have.
        field: Position of a shape in the file, with ``{}`` for its number.
    """

    def __init__(self, labels: Labels, field: str) -> None:
        self.field = field
        self._labels = labels
        given = None if labels.classes is None else list(labels.classes)
        self._apart = {name: -1 - place for place, name in enumerate([*labels.stuff, *labels.ignored])}
        # Objects are numbered as they are found, and renumbered at the end if the classes were not given.
        self._of: dict[str, int] = {} if given is None else {name: number for number, name in enumerate(given)}
        self._images: list[tuple[str, str, str, tuple[int, int]]] = []
        self._known: list[Iterable[str] | None] = []
        self._rows: list[tuple[int, int, int, bool]] = []
        self._boxes: list[Box] = []
        self._masks = Masks()

    def add(
        self,
        name: str,
        size: tuple[int, int] | None,
        shapes: Sequence[Shape],
        file: str,
        place: str = "",
        known: Iterable[str] | None = None,
    ) -> None:
        """Add an image.

        Args:
            name: Its file, relative to the folder of the images.
            size: (height, width); None if the file does not say.
            shapes: What is drawn on it.
            file: Path of the annotation file.
            place: Position of the image in the file, for messages.
            known: Names of the classes that it was labelled for; None for all.

        Raises:
            DataError: A label is unknown, or an outline is not one.
        """
        image = len(self._images)
        self._images.append((name, file, place, size or (0, 0)))
        self._known.append(known)
        groups: dict[tuple[str, int | str], list[Shape]] = {}
        for shape in shapes:
            key: int | str = shape.number if shape.group is None else f"group {shape.group}"
            groups.setdefault((shape.label, key), []).append(shape)
        for parts in groups.values():
            first = parts[0]

            def fail(problem: str, advice: str, number: int = first.number) -> DataError:
                return DataError.at(file, problem, field=self.where(place, number), advice=advice)

            label = self._find(first.label, fail)
            if label is None:
                continue
            if label < 0:
                # All of a region is known, also if it was drawn as a rectangle.
                parts = [_outlined(part) for part in parts]
            kind, packed, box = _pack(parts, size, fail)
            self._masks.add(kind, packed)
            self._boxes.append(box)
            self._rows.append((image, label, first.number, any(part.crowd for part in parts)))

    def where(self, place: str, number: int) -> str:
        """Return the position of a shape."""
        field = self.field.format(number)
        return f"{place}: {field}" if place else field

    def finish(self) -> tuple[list[str], DrawingArrays]:
        """Return the names of the detection classes, and the arrays."""
        names = list(self._of)
        if self._labels.classes is None:
            names.sort()
        renumbered = np.array([names.index(name) for name in self._of], dtype=np.int64)
        found = DrawingArrays()
        found.names = np.array(pack_names([image[0] for image in self._images]))
        found.files = np.array(pack_names([image[1] for image in self._images]))
        found.places = np.array(pack_names([image[2] for image in self._images]))
        found.sizes = np.array([image[3] for image in self._images], dtype=np.int32).reshape(-1, 2)
        rows = np.array([row[:3] for row in self._rows], dtype=np.int64).reshape(-1, 3)
        of, labels, found.numbers = rows.T.copy()
        objects = np.flatnonzero(labels >= 0)
        labels[objects] = renumbered[labels[objects]]
        found.labels = labels
        found.boxes = np.array(self._boxes, dtype=np.float32).reshape(-1, 4)
        found.crowd = np.array([row[3] for row in self._rows], dtype=np.bool_)
        found.kinds, found.ends, found.masks = self._masks.arrays()
        count = len(self._images)
        order, found.starts, empty, found.empty_starts = by_image(of[objects], found.boxes[objects], count)
        found.order, found.empty = objects[order], objects[empty]
        regions = np.flatnonzero(labels < 0)
        found.regions = regions[np.argsort(of[regions], kind="stable")]
        found.region_starts = np.append(0, np.cumsum(np.bincount(of[regions], minlength=count))).astype(np.int64)
        if any(known is not None for known in self._known):
            chosen = [set(names if known is None else known) for known in self._known]
            found.known = np.array([[name in own for name in names] for own in chosen], dtype=np.bool_)
        return names, found

    def _find(self, label: str, fail: Any) -> int | None:
        if label in self._apart:
            return self._apart[label]
        if label not in self._of:
            if self._labels.classes is not None:
                if self._labels.others == "ignore":
                    return None
                near = difflib.get_close_matches(label, [*self._of, *self._apart], 1)
                hint = f"; the nearest is {near[0]!r}" if near else ""
                raise fail(
                    f"there is no class {shown(label)}{hint}",
                    "add it to `classes`, `stuff` or `ignored`, or set `others: ignore`",
                )
            self._of[label] = len(self._of)
        return self._of[label]


def _pack(parts: Sequence[Shape], size: tuple[int, int] | None, fail: Any) -> tuple[int, bytes, Box]:
    """Return the kind, the bytes and the box of an object's mask."""
    from faster_coco_eval import mask as mask_api

    polygons = [polygon for part in parts for polygon in part.polygons if len(polygon) >= 6]
    bitmaps = [part.bitmap for part in parts if part.bitmap is not None]
    boxes = [part.box for part in parts if part.box is not None]
    # The corners of what is no outline, such as two points, still say where it is.
    boxes += [_extent(polygon) for part in parts if part.box is None for polygon in part.polygons if polygon]
    boxes += [extent for part in parts if part.box is None and (extent := _bitmap_extent(part.bitmap)) is not None]
    box: Box = (0.0, 0.0, 0.0, 0.0)
    if boxes:
        corners = np.array(boxes)
        x1, y1 = corners[:, :2].min(0).tolist()
        x2, y2 = corners[:, 2:].max(0).tolist()
        box = (x1, y1, x2, y2)
    if not bitmaps:
        return *(pack_polygons(polygons) if box[2] > box[0] and box[3] > box[1] else (NO_MASK, b"")), box
    if size is None:
        raise fail("a mask needs the size of its image", "export the sizes as well")
    if size[0] * size[1] > MAX_PIXELS:
        raise fail(f"no image of {size[1]} x {size[0]} can be read", "correct the size")
    whole = np.zeros(size, dtype=np.uint8, order="F")
    for left, top, pixels in bitmaps:
        inside = pixels[max(0, -top) : size[0] - top, max(0, -left) : size[1] - left]
        rows = slice(max(0, top), max(0, top) + inside.shape[0])
        whole[rows, max(0, left) : max(0, left) + inside.shape[1]] |= inside
    encoding = mask_api.encode(whole)
    if polygons:
        outlines = encode_polygons([np.array(polygon).reshape(-1, 2) for polygon in polygons], size)
        encoding = mask_api.merge([encoding, outlines])
    return RLE, encoding["counts"], box


def _outlined(shape: Shape) -> Shape:
    if shape.box is None or shape.polygons or shape.bitmap is not None:
        return shape
    x1, y1, x2, y2 = shape.box
    return shape._replace(polygons=([x1, y1, x2, y1, x2, y2, x1, y2],))


def flat_points(points: Any, fail: Any) -> list[float]:
    """Return a list of [x, y] as a flat list of numbers.

    Args:
        points: The list, as it is in a file.
        fail: Function that makes an error of a problem and an advice.

    Raises:
        DataError: It is something else.
    """
    flat: list[float] = []
    if not isinstance(points, list):
        raise fail(f"expected a list of points, found {shown(points)}", "export it again")
    for point in points:
        pair = [as_number(part) for part in point] if isinstance(point, list | tuple) and len(point) == 2 else [None]
        if any(part is None for part in pair):
            raise fail(f"expected two finite numbers, found {shown(point)}", "correct it")
        flat += [part for part in pair if part is not None]
    return flat


def ellipse(x: float, y: float, wide: float, tall: float, turn: float = 0.0) -> list[float]:
    """Return the outline of an ellipse as a flat list of x and y.

    Args:
        x: Column of its center.
        y: Row of its center.
        wide: Half its width, before it is turned.
        tall: Half its height.
        turn: Angle by which it is turned, clockwise in the image, in degrees.
    """
    radius = max(abs(wide), abs(tall), 1e-6)
    count = max(_LEAST_CORNERS, 4 * math.ceil(math.pi / 4 / math.sqrt(2 * _SAGITTA / max(radius, 1))))
    angles = np.linspace(0, 2 * np.pi, min(count, 4096), endpoint=False)
    across, down = wide * np.cos(angles), tall * np.sin(angles)
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    corners = np.stack([x + across * cosine - down * sine, y + across * sine + down * cosine], 1)
    flat: list[float] = corners.ravel().tolist()
    return flat


def turned_box(x: float, y: float, wide: float, tall: float, turn: float, around: tuple[float, float]) -> list[float]:
    """Return the outline of a box that is turned around a point, as a flat list of x and y.

    Args:
        x: Its left side, before it is turned.
        y: Its upper side.
        wide: Its width.
        tall: Its height.
        turn: Angle by which it is turned, clockwise in the image, in degrees.
        around: x and y of the point.
    """
    corners = np.array([[x, y], [x + wide, y], [x + wide, y + tall], [x, y + tall]]) - around
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    flat: list[float] = (corners @ np.array([[cosine, sine], [-sine, cosine]]) + around).ravel().tolist()
    return flat


def _extent(polygon: Sequence[float]) -> Box:
    columns, rows = polygon[::2], polygon[1::2]
    return min(columns), min(rows), max(columns), max(rows)


def _bitmap_extent(bitmap: Bitmap | None) -> Box | None:
    if bitmap is None or not bitmap.pixels.any():
        return None
    rows, columns = np.flatnonzero(bitmap.pixels.any(1)), np.flatnonzero(bitmap.pixels.any(0))
    left, top = bitmap.left, bitmap.top
    return (
        float(left + columns[0]),
        float(top + rows[0]),
        float(left + columns[-1] + 1),
        float(top + rows[-1] + 1),
    )
