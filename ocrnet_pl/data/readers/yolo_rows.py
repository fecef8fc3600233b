"""The rows of YOLO's label files: boxes and polygons, and what only looks like a polygon."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.errors import DataError
from ocrnet_pl.storage.ordinary_files import PER_IMAGE, read_text

_SLACK = 0.01
"""Tolerance: tools round, so coordinates may be this far outside of 0 to 1 before they count as wrong."""
_SHOWN_IDS = 8


class KeyPoints(NamedTuple):
    """The key points of each row.

    Attributes:
        shape: Number of points, and of numbers per point; None for none.
        known: Whether the ``data.yaml`` says so; if not, rows that look like key points are refused.
    """

    shape: tuple[int, int] | None
    known: bool

    @property
    def length(self) -> int | None:
        """The number of values of a row with key points."""
        return None if self.shape is None else 5 + self.shape[0] * self.shape[1]


class YoloRows:
    """The label rows of a data set as flat arrays.

    Attributes:
        starts: int64 [images + 1], the first row of each image.
        labels: int64 [N], detection classes.
        boxes: float32 [N, 4], xyxy as fractions of the image's sides, not yet cut at its borders.
        kept: bool [N], whether the row has an area inside the image.
        lines: int32 [N], line numbers, counted from 1.
        ends: int64 [N + 1], the end of each row's polygon among the points; rows of a box have none.
        points: float32 [P, 2], (x, y) from 0 to 1.
    """

    def __init__(
        self,
        files: Sequence[str],
        label_of: dict[int, int],
        names_file: str,
        strict: bool = True,
        key_points: KeyPoints = KeyPoints(None, known=False),  # noqa: B008 - cannot be changed
    ) -> None:
        """Read the label files.

        Args:
            files: One label file per image; an empty name for none.
            label_of: Detection class by id.
            names_file: Where the classes are given, for messages.
            strict: Whether coordinates that are outside the image, or are not numbers, raise an error.
            key_points: Key points after the box of each row, which are left out.

        Raises:
            DataError: A file is missing or is not text, or a row is wrong.
        """
        images, lines, values, counts = array("q"), array("i"), array("d"), array("q")
        for image, file in enumerate(files):
            if not file:
                continue
            for number, line in enumerate(read_text(file, "labels", PER_IMAGE).splitlines(), 1):
                words = line.split()
                if not words:
                    continue
                if key_points.shape is not None:
                    if len(words) not in (5, key_points.length):
                        text = f"{len(words)} numbers, but with `kpt_shape: {list(key_points.shape)}`"
                        text += f" of {names_file} there are {key_points.length}"
                        raise DataError.at(file, text, field=f"line {number}", advice="correct the one or the other")
                    words = words[:5]
                try:
                    values.extend(map(float, words))
                except ValueError as error:
                    raise DataError.at(
                        file,
                        f"expected numbers ({error!s:.100})",
                        field=f"line {number}",
                        advice="write `class x y w h`",
                    ) from error
                images.append(image)
                lines.append(number)
                counts.append(len(words))
        self._files, self._images = files, np.frombuffer(images, dtype=np.int64)
        self.lines = np.frombuffer(lines, dtype=np.int32)
        flat, length = np.frombuffer(values, dtype=np.float64), np.frombuffer(counts, dtype=np.int64)
        first = np.cumsum(length) - length
        self._check(flat, first, length, label_of, names_file, strict)
        if not key_points.known:
            self._refuse_lookalikes(flat, first, length, names_file)
        self.labels = np.array([label_of[int(number)] for number in flat[first]], dtype=np.int64)
        boxes, points, sizes = _boxes_and_points(flat, first, length)
        with np.errstate(over="ignore"):  # cut at the borders in any case
            self.boxes: NDArray[np.float32] = boxes.astype(np.float32)
        cut = self.boxes.clip(0, 1)
        # False for values that are not numbers.
        self.kept: NDArray[np.bool_] = np.asarray((cut[:, 2:] > cut[:, :2]).all(1))
        self.points: NDArray[np.float32] = points[np.repeat(self.kept, sizes)].clip(0, 1).astype(np.float32)
        self.ends: NDArray[np.int64] = np.append(0, np.cumsum(np.where(self.kept, sizes, 0)))
        self.starts = np.searchsorted(self._images, np.arange(len(files) + 1))
        del self._files, self._images

    def _check(
        self,
        flat: NDArray[np.float64],
        first: NDArray[np.int64],
        length: NDArray[np.int64],
        label_of: dict[int, int],
        names_file: str,
        strict: bool,
    ) -> None:
        """Check all rows at once; the error names the first wrong one."""
        refuse = self._refuse

        def not_a_shape(row: int) -> tuple[str, str]:
            count, values = int(length[row]), flat[first[row] :][: length[row]]
            if count == 6:
                what = "a box and a confidence or a track, as saved predictions have"
                return f"6 numbers are neither a box nor a polygon, but perhaps {what}", "remove the last number"
            if count > 7 and (count - 5) % 3 == 0 and np.isin(values[7::3], (0, 1, 2)).all():
                advice = f"write `kpt_shape: [{(count - 5) // 3}, 3]` into {names_file} if these are key points"
                return f"{count} numbers are neither a box nor a polygon", advice
            return f"{count} numbers are neither a box nor a polygon", "write `class x y w h`"

        refuse((length != 5) & ((length < 7) | (length % 2 == 0)), not_a_shape)
        known = np.isin(flat[first], list(label_of))
        refuse(
            ~known,
            lambda row: (
                f"there is no class {flat[first[row]]:g} in {names_file}, only {_ids(label_of)}",
                "add it to `names`",
            ),
        )
        if not strict:
            return
        of = np.repeat(np.arange(len(first)), length)
        refuse(
            np.bincount(of, ~np.isfinite(flat), minlength=len(first)) > 0,
            lambda row: ("a number is not finite", "correct it"),
        )
        outside = (flat < -_SLACK) | (flat > 1 + _SLACK)
        outside[first] = False

        def where(row: int) -> tuple[str, str]:
            values = flat[first[row] :][: length[row]]
            value = values[outside[first[row] :][: length[row]]][0]
            if length[row] == 7 and value == values[-1] and float(value).is_integer():
                return "7 numbers, the last a whole one: a box, a confidence and a track", "keep `class x y w h`"
            if length[row] > 7 and (length[row] - 5) % 3 == 0 and np.isin(values[7::3], (0, 1, 2)).all():
                advice = f"write `kpt_shape: [{(length[row] - 5) // 3}, 3]` into {names_file} if these are key points"
                return f"{value:g} is outside of 0 to 1", advice
            return f"{value:g} is outside of 0 to 1", "divide x by the image's width and y by its height"

        refuse(np.bincount(of, outside, minlength=len(first)) > 0, where)
        sides = np.minimum(flat[np.minimum(first + 3, len(flat) - 1)], flat[np.minimum(first + 4, len(flat) - 1)])
        refuse((length == 5) & (sides < 0), lambda row: ("a side is negative", "write `class x y w h`"))

    def _refuse(self, wrong: NDArray[np.bool_], say: Callable[[int], tuple[str, str]]) -> None:
        """Raise an error that names the first wrong row."""
        rows = np.flatnonzero(wrong)
        if len(rows):
            row = int(rows[0])
            problem, advice = say(row)
            file = self._files[self._images[row]]
            raise DataError.at(file, problem, field=f"line {self.lines[row]}", advice=advice)

    def _refuse_lookalikes(
        self, flat: NDArray[np.float64], first: NDArray[np.int64], length: NDArray[np.int64], names_file: str
    ) -> None:
        """Refuse rows that are all as long, begin with a box in the image, and go on with what tools write after a box.

        A polygon would have to begin with a point and a side that make such a box, in every row.
        """
        long = np.flatnonzero(length > 5)
        if not len(long) or (length[long] != length[long[0]]).any():
            return
        count = int(length[long[0]])
        values = flat[first[long][:, None] + np.arange(count)]
        low, high = values[:, 1:3] - values[:, 3:5] / 2, values[:, 1:3] + values[:, 3:5] / 2
        if (low < -_SLACK).any() or (high > 1 + _SLACK).any() or not (high > low).all():
            return
        only = np.zeros(len(length), dtype=np.bool_)
        only[long[0]] = True
        if count == 7 and (values[:, 6] == values[:, 6].round()).all():
            text = "a box, a confidence and a track, as saved predictions have, not a polygon"
            advice = f"keep `class x y w h`, or write `kpt_shape: null` into {names_file} if it is a polygon"
            self._refuse(only, lambda row: (f"7 numbers in every row, the last a whole one: {text}", advice))
        for size in (2, 3):
            if (count - 5) % size:
                continue
            points = values[:, 5:].reshape(len(long), -1, size)
            inside = (points[..., :2] >= low[:, None] - _SLACK).all(2) & (
                points[..., :2] <= high[:, None] + _SLACK
            ).all(2)
            absent = (points[..., :2] == 0).all(2)
            marked = size == 2 or bool(np.isin(points[..., 2], (0, 1, 2)).all())
            if marked and (inside | absent).all() and inside.any():
                shape = f"[{points.shape[1]}, {size}]"
                advice = f"write `kpt_shape: {shape}` into {names_file}, or `kpt_shape: null` if they are polygons"
                text = f"{count} numbers in every row: a box with key points in it, not a polygon"
                self._refuse(only, partial(_say, (text, advice)))


def _say(said: tuple[str, str], row: int) -> tuple[str, str]:
    return said


def _boxes_and_points(
    flat: NDArray[np.float64], first: NDArray[np.int64], length: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return the boxes [N, 4], the points of the polygons [P, 2], and how many of them each row has [N]."""
    is_box = length == 5
    boxes = np.zeros((len(first), 4))
    centre = first[is_box]
    x, y, width, height = (flat[centre + place] for place in range(1, 5))
    with np.errstate(invalid="ignore"):
        boxes[is_box] = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 1)
    # Values that are neither a class nor part of a box are points of a polygon.
    is_point = np.repeat(~is_box, length)
    is_point[first] = False
    points = flat[is_point].reshape(-1, 2)
    sizes = np.where(is_box, 0, (length - 1) // 2)
    if len(points):
        begin = (np.cumsum(sizes) - sizes)[~is_box]
        boxes[~is_box, :2] = np.minimum.reduceat(points, begin)
        boxes[~is_box, 2:] = np.maximum.reduceat(points, begin)
    return boxes, points, sizes


def _ids(known: Mapping[int, int]) -> str:
    """Return the ids of classes in words; they may have gaps."""
    first, last = min(known), max(known)
    if len(known) == last - first + 1:
        return f"{first} to {last}"
    few = [str(number) for number in sorted(known)[:_SHOWN_IDS]]
    return ", ".join(few) + (f" and {len(known) - _SHOWN_IDS} more" if len(known) > _SHOWN_IDS else "")
