"""A prediction as shapes to correct: objects with boxes and masks, and regions of stuff."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.imaging.opencv import opencv
from ocrnet_pl.structures import Prediction, Taxonomy

BACKGROUND = "background"
"""The class that stands for pixels of no shape, which is not drawn."""

_LEAST_CORNERS = 3


@dataclass(frozen=True)
class Shape:
    """One object, or all pixels of a class of stuff.

    Attributes:
        label: Name of the category.
        category: Index into ``taxonomy.categories``.
        is_thing: Whether it is an object.
        box: (x1, y1, x2, y2) in pixels.
        score: Score, 0 to 1; 1 for stuff.
        mask: bool [h, w], the pixels within ``corner``; None for an object of which only the box is known.
        corner: (x, y) of the mask's top left pixel.
    """

    label: str
    category: int
    is_thing: bool
    box: tuple[float, float, float, float]
    score: float
    mask: NDArray[np.bool_] | None = None
    corner: tuple[int, int] = (0, 0)

    def whole_mask(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Return the mask in the whole image, bool [H, W].

        Args:
            size: (height, width) of the image.
        """
        whole = np.zeros(size, dtype=np.bool_)
        if self.mask is not None:
            (x, y), (height, width) = self.corner, self.mask.shape
            whole[y : y + height, x : x + width] = self.mask
        return whole

    def outlines(self, tolerance: float) -> list[Outline]:
        """Return the outlines of the mask's parts along the edges of its pixels, the largest part first.

        Args:
            tolerance: Largest distance in pixels between the simplified and the true outline; 0 for the true one.
        """
        return [] if self.mask is None else outlines(self.mask, self.corner, tolerance)


@dataclass(frozen=True)
class Outline:
    """One part of a mask.

    Attributes:
        points: float64 [N, 2], x and y.
        holes: The outlines of its holes, each [N, 2].
    """

    points: NDArray[np.float64]
    holes: list[NDArray[np.float64]] = field(default_factory=list)


@dataclass(frozen=True)
class LabelledImage:
    """An image with its predicted shapes, and how much it deserves a look.

    Attributes:
        name: Path of the image below the folder that was predicted on.
        path: Path of the image file.
        size: (height, width) in pixels.
        shapes: Stuff first, so that objects are drawn above it, then the objects, best first.
        uncertainty: How unsure the network is, 0 to 1.
        disagreement: Rank of the strongest contradiction of the two decoders; 0 without one.
        remarks: The contradictions, the strongest first, as one line each.
    """

    name: str
    path: str
    size: tuple[int, int]
    shapes: list[Shape]
    uncertainty: float = 0.0
    disagreement: float = 0.0
    remarks: tuple[str, ...] = ()

    @property
    def order(self) -> tuple[float, float, str]:
        """A key that sorts images by how much they deserve a look: contradictions first, then uncertainty."""
        return -self.disagreement, -self.uncertainty, self.name


def shapes_of(prediction: Prediction, taxonomy: Taxonomy, min_score: float) -> list[Shape]:
    """Return the shapes of a prediction: of each class of pixels that is not detected one, and the objects.

    Args:
        prediction: The prediction, at the image's own size.
        taxonomy: Categories of the network.
        min_score: Score from which an object counts, 0 to 1.
    """
    shapes = []
    number = {category.name: position for position, category in enumerate(taxonomy.categories)}
    if prediction.semantic is not None:
        semantic = prediction.semantic.cpu().numpy()
        detected = len(prediction.scores) or prediction.instances is not None
        present = np.bincount(semantic.reshape(-1), minlength=256) > 0
        for row, category in enumerate(taxonomy.semantic_categories):
            drawn = not category.is_thing or category.detection is None or not detected
            if present[row] and drawn and category.name != BACKGROUND:
                mask, corner = _cut(semantic == row)
                shapes.append(
                    Shape(category.name, number[category.name], False, _bounds(mask, corner), 1.0, mask, corner)
                )
    instances = None if prediction.instances is None else prediction.instances.cpu().numpy()
    rows = zip(prediction.boxes.tolist(), prediction.scores.tolist(), prediction.labels.tolist(), strict=True)
    for row, (box, score, label) in enumerate(rows):
        if score < min_score:
            continue
        category = taxonomy.detection_categories[label]
        pixels, corner = (None, (0, 0)) if instances is None else _cut_instance(instances, row + 1)
        corners = (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
        shapes.append(Shape(category.name, number[category.name], True, corners, float(score), pixels, corner))
    return shapes


def _cut_instance(instances: NDArray[Any], value: int) -> tuple[NDArray[np.bool_] | None, tuple[int, int]]:
    """Return an instance's mask; None for one without pixels."""
    mask = instances == value
    return _cut(mask) if mask.any() else (None, (0, 0))


def _cut(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Return the part of a mask that has pixels, and its top left corner (x, y)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = int(rows[0]), int(columns[0])
    return np.ascontiguousarray(mask[top : rows[-1] + 1, left : columns[-1] + 1]), (left, top)


def _bounds(mask: NDArray[np.bool_], corner: tuple[int, int]) -> tuple[float, float, float, float]:
    (x, y), (height, width) = corner, mask.shape
    return float(x), float(y), float(x + width), float(y + height)


def outlines(mask: NDArray[np.bool_], corner: tuple[int, int] = (0, 0), tolerance: float = 0.0) -> list[Outline]:
    """Return the outlines of a mask's connected parts along the edges of the pixels, the largest part first.

    Args:
        mask: bool [H, W].
        corner: (x, y) of its top left pixel.
        tolerance: Largest distance in pixels between the simplified and the true outline; 0 for the true one.
    """
    cv2 = opencv()
    # OpenCV traces through the centres of pixels. At twice the size, each corner of a pixel is next to such a centre.
    doubled = mask.astype(np.uint8).repeat(2, 0).repeat(2, 1)
    found, tree = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parts: dict[int, tuple[float, Outline]] = {}
    for number in sorted(range(len(found)), key=lambda index: tree[0][index][3] >= 0):
        points = _simplified((found[number][:, 0].astype(np.int64) + 1) // 2, tolerance)
        parent = int(tree[0][number][3])
        if len(points) < _LEAST_CORNERS:
            continue
        moved = points + np.array(corner, dtype=np.float64)
        if parent < 0:
            parts[number] = (float(cv2.contourArea(found[number])), Outline(moved))
        elif parent in parts:
            parts[parent][1].holes.append(moved)
    return [outline for _, outline in sorted(parts.values(), key=lambda part: -part[0])]


def _simplified(points: NDArray[np.int64], tolerance: float) -> NDArray[np.float64]:
    """Return the corners of an outline, and only those that matter at a tolerance."""
    points = points[(points != np.roll(points, 1, 0)).any(1)]
    if len(points) < _LEAST_CORNERS:
        return points.astype(np.float64)
    if tolerance > 0:
        simple = opencv().approxPolyDP(points.astype(np.float32)[:, None], tolerance, True)[:, 0]
        if len(simple) >= _LEAST_CORNERS:
            return np.asarray(simple, dtype=np.float64)
    corners: NDArray[np.float64] = points.astype(np.float64)
    before, after = points - np.roll(points, 1, 0), np.roll(points, -1, 0) - points
    turns: NDArray[np.bool_] = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return corners[turns]


def joined(outline: Outline) -> NDArray[np.float64]:
    """Return a part and its holes as one outline, which goes to each hole and back along the same line."""
    points = outline.points
    for hole in outline.holes:
        distance = ((points[:, None] - hole[None]) ** 2).sum(-1)
        here, there = np.unravel_index(int(distance.argmin()), distance.shape)
        turned = np.roll(hole, -int(there), 0)
        points = np.concatenate([points[: here + 1], turned, turned[:1], points[here:]])
    return points
