"""The boxes of many images in a table: one per row, or those of an image in a cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.file_names import NameFinder, with_nearest
from ocrnet_pl.data.readers.sample_assembly import Boxes
from ocrnet_pl.data.readers.tables import TableFile, json_cell
from ocrnet_pl.data.readers.values import MOST, as_flag, as_number, as_whole, shown
from ocrnet_pl.data.records import RawBoxes

Others = Literal["error", "ignore"]
"""What boxes of classes that are not among those of the source are: an error, or left out."""

_CORNERS = ("x1", "y1", "x2", "y2")


class BoxTable:
    """Boxes of many images as flat arrays, ordered by image.

    Args:
        rows: The collected rows.
        listed: bool [images], whether the image is in the file.

    Attributes:
        starts: int64 [images + 1], the first row of each image.
        boxes: float32 [N, 4], xyxy in pixels; :meth:`of` leaves out those without area.
        labels: int64 [N], detection classes.
        crowd: bool [N].
        places: int64 [N], the line or row in the file.
        sizes: int32 [images, 2], height and width of the images that the file says; zeros where it does not.
        listed: bool [images], whether the image is in the file, with or without boxes.
    """

    def __init__(self, rows: BoxRows, listed: NDArray[np.bool_]) -> None:
        of = np.array(rows.images, dtype=np.int64)
        order = np.argsort(of, kind="stable")
        self.starts = np.searchsorted(of[order], np.arange(len(listed) + 1))
        self.boxes = np.array(rows.boxes, dtype=np.float32).reshape(-1, 4)[order]
        self.labels = np.array(rows.labels, dtype=np.int64)[order]
        self.crowd = np.array(rows.crowd, dtype=np.bool_)[order]
        places = np.array(rows.places, dtype=np.int64)[order]
        # Not the table itself, of which every worker process would have a copy.
        self._file = rows.table.path
        self._word = "row" if rows.table.lines is None else "line"
        self.places = places if rows.table.lines is None else rows.table.lines[places]
        self.listed = listed
        self.sizes = rows.sizes(len(listed))

    def keep(self, images: NDArray[np.int64]) -> None:
        """Keep some of the images, in this order.

        Args:
            images: Their indices.
        """
        spans = [np.arange(self.starts[image], self.starts[image + 1]) for image in images]
        rows = np.concatenate([np.zeros(0, dtype=np.int64), *spans])
        self.starts = np.cumsum([0, *map(len, spans)])
        self.boxes, self.labels, self.crowd, self.places = (
            values[rows] for values in (self.boxes, self.labels, self.crowd, self.places)
        )
        self.listed, self.sizes = self.listed[images], self.sizes[images]

    def size_of(self, image: int) -> tuple[str, tuple[int, int]] | None:
        """Return the place in the file that says the size of an image, and the size; None if there is none."""
        height, width = (int(side) for side in self.sizes[image])
        if not height or not width:
            return None
        return f"{self._file}: {self._word} {self.places[self.starts[image]]}", (height, width)

    def of(self, image: int) -> Boxes | None:
        """Return the boxes of an image; None if it was not labelled for boxes."""
        if not self.listed[image]:
            return None
        start, stop = int(self.starts[image]), int(self.starts[image + 1])
        rows = start + np.flatnonzero(self._has_area(start, stop))
        places = self.places[rows]
        return Boxes(
            self.boxes[rows],
            self.labels[rows],
            self.crowd[rows],
            lambda row: f"{self._file}: {self._word} {places[row]}",
        )

    def raw(self, image: int, path: str) -> RawBoxes | None:
        """Return the boxes of an image as they are in the file; None if it was not labelled for boxes.

        Args:
            image: Index of the image.
            path: Path of the image file.
        """
        if not self.listed[image]:
            return None
        rows = slice(int(self.starts[image]), int(self.starts[image + 1]))
        kept = self._has_area(rows.start, rows.stop)
        return RawBoxes(
            image=path,
            file=self._file,
            field=f"{self._word} {{}}",
            numbers=self.places[rows],
            boxes=self.boxes[rows].astype(np.float64),
            labels=self.labels[rows],
            crowd=self.crowd[rows],
            rows=np.where(kept, np.cumsum(kept) - 1, -1),
        )

    def _has_area(self, start: int, stop: int) -> NDArray[np.bool_]:
        boxes = self.boxes[start:stop]
        return np.asarray((boxes[:, 2:] > boxes[:, :2]).all(1))


class BoxRows:
    """Collects boxes row by row and checks them.

    Args:
        table: The table, for messages.
        classes: Names of the detection classes.
        others: What rows of other classes are: an "error", or "ignore" leaves them out.
        strict: Whether coordinates that are fractions of the image's sides raise an error.
    """

    def __init__(self, table: TableFile, classes: Sequence[str], others: Others = "error", strict: bool = True) -> None:
        self.table = table
        self._others, self._strict = others, strict
        self._declared: list[tuple[int, int]] = []
        self._label_of = {name: label for label, name in enumerate(classes)}
        self.images: list[int] = []
        self.boxes: list[tuple[float, ...]] = []
        self.labels: list[int] = []
        self.crowd: list[bool] = []
        self.places: list[int] = []

    def add(
        self,
        image: int,
        corners: Sequence[Any],
        label: Any,
        crowd: Any,
        row: int,
        column: str = "",
        size: tuple[Any, Any] = (None, None),
    ) -> None:
        """Add a box.

        Args:
            image: Index of the image.
            corners: x1, y1, x2, y2 in pixels.
            label: Name of the class.
            crowd: 0 or 1, or empty.
            row: Row in the table, for messages.
            column: Position in the row, for messages.
            size: Cells with the height and the width of the image; others than numbers count as none.

        Raises:
            DataError: A coordinate is not a finite number or in the wrong order, or there is no such class.
        """
        if isinstance(label, str) and label.strip() not in self._label_of and self._others == "ignore":
            return
        numbers: list[float] = []
        for name, value in zip(_CORNERS, corners, strict=True):
            number = as_number(value)
            if number is None:
                raise self.table.error(
                    f"expected a number of pixels up to {MOST:g}, found {shown(value)}",
                    "correct it",
                    row,
                    f"{column}{name}",
                )
            numbers.append(number)
        x1, y1, x2, y2 = numbers
        if x2 < x1 or y2 < y1:
            raise self.table.error(
                f"({x1:g}, {y1:g}) to ({x2:g}, {y2:g}) is not a box", "write x1, y1, x2, y2", row, f"{column}x2"
            )
        if not isinstance(label, str) or label.strip() not in self._label_of:
            nearest = NameFinder(self._label_of).nearest(label) if isinstance(label, str) else None
            problem = with_nearest(f"there is no class {shown(label)}", nearest)
            raise self.table.error(problem, "add it to `classes`, or set `others: ignore`", row, f"{column}label")
        is_crowd = as_flag(crowd)
        if is_crowd is None:
            raise self.table.error(f"expected 0 or 1, found {shown(crowd)}", "", row, f"{column}crowd")
        self.images.append(image)
        self.boxes.append((x1, y1, x2, y2))
        self.labels.append(self._label_of[label.strip()])
        self.crowd.append(is_crowd)
        self.places.append(row)
        height, width = (as_whole(side) or 0 for side in size)
        self._declared.append((height, width))

    def sizes(self, count: int) -> NDArray[np.int32]:
        """Return int32 [images, 2], the (height, width) that the rows say; zeros for an image without.

        Columns of these names may also mean the sides of the boxes, or of anything else that differs from row to row.
        """
        sizes = np.zeros((count, 2), dtype=np.int32)
        declared = np.array(self._declared, dtype=np.int64).reshape(-1, 2)
        boxes = np.array(self.boxes, dtype=np.float64).reshape(-1, 4)
        usable = ((declared > 0) & (declared < 1 << 31)).all(1)
        sides = (boxes[:, 2:] - boxes[:, :2])[:, ::-1]
        if not usable.any() or (np.abs(declared - sides)[usable] < 1).all():
            return sizes
        images = np.array(self.images, dtype=np.int64)[usable]
        sizes[images] = declared[usable]
        return sizes if (sizes[images] == declared[usable]).all() else np.zeros_like(sizes)

    def finish(self, listed: NDArray[np.bool_]) -> BoxTable:
        """Return all boxes; ``listed`` says for each image whether it is in the file.

        Raises:
            DataError: The coordinates are fractions of the image's sides.
        """
        boxes = np.array(self.boxes, dtype=np.float64).reshape(-1, 4)
        if self._strict and len(boxes) and boxes.max() <= 1 and (boxes != boxes.round()).any():
            advice = "multiply x by the image's width and y by its height"
            raise self.table.error("all coordinates are from 0 to 1, but they are read as pixels", advice)
        return BoxTable(self, listed)


def boxes_by_row(
    table: TableFile,
    classes: Sequence[str],
    count: int,
    find: Callable[[str, int], int],
    others: Others = "error",
    strict: bool = True,
) -> BoxTable:
    """Read a table of one box per row: image, x1, y1, x2, y2, label, and optionally crowd.

    A row whose coordinates are all empty says that the image was labelled and has no objects.

    Args:
        table: The file.
        classes: Names of the detection classes.
        count: The number of images.
        find: Returns the index of the image that a cell names, or raises.
        others: What rows of other classes are: an "error", or "ignore" leaves them out.
        strict: Whether coordinates that are fractions of the image's sides raise an error.

    Raises:
        DataError: A column is missing or a cell is wrong.
    """
    images = table.column("image") or []
    corners = [table.column(name) or [] for name in _CORNERS]
    labels = table.column("label") or []
    crowds = table.column("crowd", required=False) or [None] * len(table)
    nothing = [None] * len(table)
    heights, widths = (table.column(side, required=False) or nothing for side in ("height", "width"))
    rows = BoxRows(table, classes, others, strict)
    listed = np.zeros(count, dtype=np.bool_)
    lines = zip(images, *corners, labels, crowds, strict=True)
    for row, (name, *values, label, crowd) in enumerate(lines):
        image = find(table.text(name, row, "image"), row)
        listed[image] = True
        if all(value is None or value == "" for value in values):
            continue
        rows.add(image, values, label, crowd, row, size=(heights[row], widths[row]))
    return rows.finish(listed)


def boxes_by_cell(table: TableFile, classes: Sequence[str], others: Others = "error", strict: bool = True) -> BoxTable:
    """Read the column ``boxes``, whose cells are JSON such as ``[{"box": [x1, y1, x2, y2], "label": "cat"}]``.

    An empty cell leaves the image unlabelled for boxes; ``[]`` says that there are none.

    Args:
        table: The table, one image per row.
        classes: Names of the detection classes.
        others: What boxes of other classes are: an "error", or "ignore" leaves them out.
        strict: Whether coordinates that are fractions of the image's sides raise an error.

    Raises:
        DataError: A cell is wrong.
    """
    rows = BoxRows(table, classes, others, strict)
    listed = np.zeros(len(table), dtype=np.bool_)
    for row, cell in enumerate(table.column("boxes") or []):
        items = json_cell(table, cell, row, "boxes")
        if items is None:
            continue
        listed[row] = True
        for number, item in enumerate(items):
            corners = item.get("box")
            if not isinstance(corners, list) or len(corners) != 4:
                raise table.error(f"expected [x1, y1, x2, y2], found {shown(corners)}", "", row, f"boxes[{number}].box")
            rows.add(row, corners, item.get("label"), item.get("crowd"), row, f"boxes[{number}].")
    return rows.finish(listed)
