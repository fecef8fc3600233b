"""Where the two decoders contradict each other, or both the labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.imaging.opencv import opencv
from ocrnet_pl.structures import IGNORE_INDEX, Prediction, Sample, Taxonomy

BOX_WITHOUT_PIXELS = "box without pixels"
PIXELS_WITHOUT_BOX = "pixels without a box"
OBJECT_WITHOUT_LABEL = "object without a label"
LABEL_WITHOUT_OBJECT = "label without an object"
LABEL_OF_ANOTHER_SIZE = "label of another size"
AGAINST_BOTH = "neither: both see otherwise"
"""Value of :attr:`Disagreement.labels` where boxes and pixels agree with each other and contradict the labels."""

_FEW = 0.1
"""A box without pixels is one of whose area its class covers a smaller share."""
_SAME = 0.7
"""IoU below which a labelled box has another size than the predicted one that it belongs to."""
_APART = 0.3
"""IoU below which a predicted box and a labelled one are not the same object."""
_MATCH = 0.5
"""IoU from which a labelled box matches the predicted one, and share from which a region counts as labelled."""


@dataclass(frozen=True)
class Disagreement:
    """One contradiction.

    Attributes:
        image: The image's path, or its id where it has none.
        kind: :data:`BOX_WITHOUT_PIXELS`, :data:`PIXELS_WITHOUT_BOX`, :data:`OBJECT_WITHOUT_LABEL`,
            :data:`LABEL_WITHOUT_OBJECT` or :data:`LABEL_OF_ANOTHER_SIZE`.
        category: Name of the class.
        box: (x1, y1, x2, y2) in pixels: the box, or the bounds of the region.
        score: Score of the box, mean probability of the region's pixels, or, of a label without an object, one less
            the best score of any box there, 0 to 1.
        area: Number of pixels of the box or of the region.
        labels: Which decoder the labels agree with: "box", "pixels", or "neither" where labelled boxes and labelled
            pixels contradict each other as well, :data:`AGAINST_BOTH` where they agree with none; empty where the class
            is not labelled.
    """

    image: str
    kind: str
    category: str
    box: tuple[float, float, float, float]
    score: float
    area: float
    labels: str

    @property
    def rank(self) -> float:
        """Confidence times size, where the size is the side of a square of the same area."""
        return self.score * math.sqrt(self.area)


@dataclass(frozen=True)
class Finder:
    """Finds contradictions in a raw prediction.

    Attributes:
        box_score: Score from which a box is a confident detection, 0 to 1.
        cover_score: Score from which a box explains the pixels inside it, 0 to 1.
        certainty: Probability from which a pixel is confident, 0 to 1.
        min_area: Number of pixels of the smallest region that counts, at least 1. Regions less than three pixels wide
            never count.

    Raises:
        ValueError: A number is out of range.
    """

    box_score: float = 0.5
    cover_score: float = 0.2
    certainty: float = 0.7
    min_area: int = 32

    def __post_init__(self) -> None:
        for name in ("box_score", "cover_score", "certainty"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"disagreements.{name}: expected 0 to 1, got {getattr(self, name)}")
        if self.min_area < 1:
            raise ValueError(f"disagreements.min_area: expected at least 1, got {self.min_area}")

    def __call__(self, prediction: Prediction, truth: Sample, taxonomy: Taxonomy) -> list[Disagreement]:
        """Return the contradictions of one image.

        Args:
            prediction: A raw prediction with a semantic map; without one there is nothing to contradict.
            truth: The labels, in the same frame. Classes without labels remain undecided. Contradictions mostly on
                pixels that were left without labels on purpose, such as the padding, are left out.
            taxonomy: Relates detection to segmentation classes.
        """
        if prediction.semantic is None or prediction.certainty is None:
            return []
        name = truth.path or str(truth.image_id)
        labels = _Labels(truth)
        semantic = prediction.semantic.cpu().numpy()
        certain = (prediction.certainty >= self.certainty).cpu().numpy()
        certainty = prediction.certainty.float().cpu().numpy()
        boxes, scores = prediction.boxes.cpu().numpy(), prediction.scores.cpu().numpy()
        classes = prediction.labels.cpu().numpy()
        found: list[Disagreement] = []
        for detection, category in enumerate(taxonomy.detection_categories):
            own = category.semantic
            if own is None:
                continue
            mine = semantic == own
            for row in np.flatnonzero((classes == detection) & (scores >= self.box_score)).tolist():
                box = boxes[row]
                inside = _inside(mine, box)
                if not inside.size or inside.mean() >= _FEW or labels.ignored(_bounds(box)):
                    continue
                side = labels.of_box(box, detection, own)
                area = float((box[2] - box[0]) * (box[3] - box[1]))
                corners = _corners(box)
                score = float(scores[row])
                found.append(Disagreement(name, BOX_WITHOUT_PIXELS, category.name, corners, score, area, side))
            open_pixels = (mine & certain).astype(np.uint8)
            for box in boxes[(classes == detection) & (scores >= self.cover_score)]:
                _inside(open_pixels, box)[...] = 0
            for region, bounds in self._regions(open_pixels):
                if labels.ignored(bounds, region):
                    continue
                x, y, width, height = bounds
                score = float(certainty[y : y + height, x : x + width][region].mean())
                side = labels.of_region(region, bounds, detection, own)
                corners = (float(x), float(y), float(x + width), float(y + height))
                area = float(region.sum())
                found.append(Disagreement(name, PIXELS_WITHOUT_BOX, category.name, corners, score, area, side))
            if labels.knows(detection, own):
                rows = classes == detection
                found += self._against(labels, detection, boxes[rows], scores[rows], mine, (name, category.name))
        return found

    def _against(
        self,
        labels: _Labels,
        detection: int,
        boxes: NDArray[Any],
        scores: NDArray[Any],
        mine: NDArray[np.bool_],
        names: tuple[str, str],
    ) -> list[Disagreement]:
        """Return where boxes and pixels agree with each other, but not with the labelled boxes of a class."""
        theirs, crowd = labels.of_class(detection)
        overlaps = _ious(boxes, theirs)
        inside_crowd = _ious(boxes, crowd, of_first=True).max(1, initial=0.0) > _MATCH
        found = []

        def add(kind: str, box: NDArray[Any], score: float) -> None:
            area = float((box[2] - box[0]) * (box[3] - box[1]))
            if area >= self.min_area and not labels.ignored(_bounds(box)):
                found.append(Disagreement(names[0], kind, names[1], _corners(box), score, area, AGAINST_BOTH))

        # A duplicate of a better box is no object of its own.
        better = np.triu(_ious(boxes, boxes) > _APART, 1).any(0) if len(boxes) else np.zeros(0, dtype=bool)
        for row in np.flatnonzero((scores >= self.box_score) & ~inside_crowd & ~better).tolist():
            seen = _inside(mine, boxes[row])
            if not seen.size or seen.mean() < _MATCH:
                continue
            best = float(overlaps[row].max(initial=0.0))
            if best < _APART:
                add(OBJECT_WITHOUT_LABEL, boxes[row], float(scores[row]))
            elif best < _SAME and not (overlaps[:, overlaps[row].argmax()] >= _SAME).any():
                add(LABEL_OF_ANOTHER_SIZE, boxes[row], float(scores[row]) * (1 - best))
        for number, box in enumerate(theirs):
            near = overlaps[:, number] >= _APART
            score = float(scores[near].max(initial=0.0))
            seen = _inside(mine, box)
            if score < self.cover_score and seen.size and seen.mean() < _FEW:
                add(LABEL_WITHOUT_OBJECT, box, 1 - score)
        return found

    def _regions(self, pixels: NDArray[np.uint8]) -> list[tuple[NDArray[np.bool_], tuple[int, int, int, int]]]:
        """Return the connected regions, each as a mask within its bounds (x, y, width, height)."""
        cv2 = opencv()
        if not pixels.any():
            return []
        # The edges of objects extend beyond their boxes by a pixel or two.
        opened = cv2.morphologyEx(pixels, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        count, numbers, statistics, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
        regions = []
        for number in range(1, count):
            x, y, width, height, area = (int(value) for value in statistics[number])
            if area >= self.min_area:
                regions.append((numbers[y : y + height, x : x + width] == number, (x, y, width, height)))
        return regions


class _Labels:
    """Says which side an image's labels are on."""

    def __init__(self, truth: Sample) -> None:
        self.boxes = np.asarray(truth.boxes.as_subclass(Tensor), dtype=np.float64).reshape(-1, 4)
        self.classes = truth.labels.numpy()
        self.crowd = truth.crowd.numpy()
        self.semantic = None if truth.semantic is None else np.asarray(truth.semantic.as_subclass(Tensor))
        self.supervision = truth.supervision

    def knows(self, detection: int, semantic: int) -> bool:
        # An image to predict has no labels, and its supervision no classes.
        if self.semantic is None:
            return False
        return bool(self.supervision.detection[detection]) and bool(self.supervision.semantic[semantic])

    def of_class(self, detection: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the boxes of the class that are objects, and those that are crowds."""
        own = self.classes == detection
        return self.boxes[own & ~self.crowd], self.boxes[own & self.crowd]

    def ignored(self, bounds: tuple[int, int, int, int], region: NDArray[np.bool_] | None = None) -> bool:
        """Return whether most of a region (or of a box, if no region is given) was left without labels on purpose."""
        x, y, width, height = bounds
        if self.semantic is None or not self.supervision.semantic.any():
            return False
        true = self.semantic[y : y + height, x : x + width]
        true = true if region is None else true[region]
        return bool(true.size) and bool((true == IGNORE_INDEX).mean() > _MATCH)

    def of_box(self, box: NDArray[Any], detection: int, semantic: int) -> str:
        if self.semantic is None or not self.knows(detection, semantic):
            return ""
        inside = _inside(self.semantic, box)
        best = float(_ious(box[None], self.of_class(detection)[0]).max(initial=0.0))
        return _side(best >= _MATCH, bool((inside == semantic).mean() >= _FEW), BOX_WITHOUT_PIXELS)

    def of_region(
        self, region: NDArray[np.bool_], bounds: tuple[int, int, int, int], detection: int, semantic: int
    ) -> str:
        if self.semantic is None or not self.knows(detection, semantic):
            return ""
        x, y, width, height = bounds
        true = self.semantic[y : y + height, x : x + width][region]
        covered = np.zeros_like(region)
        for x1, y1, x2, y2 in self.boxes[self.classes == detection]:
            _inside(covered, np.array((x1 - x, y1 - y, x2 - x, y2 - y)))[...] = True
        boxed = bool(covered[region].mean() >= _MATCH)
        return _side(boxed, bool((true == semantic).mean() >= _MATCH), PIXELS_WITHOUT_BOX)


def _side(boxed: bool, drawn: bool, kind: str) -> str:
    """Return which decoder the labels agree with, given whether they have a box and pixels there."""
    if boxed != drawn:
        return "neither"
    # Something is there: the decoder that found it is right.
    return "box" if boxed == (kind == BOX_WITHOUT_PIXELS) else "pixels"


def _inside(plane: NDArray[Any], box: NDArray[Any]) -> NDArray[Any]:
    """Return the view of the pixels whose centre is in the box."""
    x, y, width, height = _bounds(box)
    return plane[y : y + height, x : x + width]


def _bounds(box: NDArray[Any]) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = (max(0, math.ceil(value - 0.5)) for value in box.tolist())
    return x1, y1, x2 - x1, y2 - y1


def _corners(box: NDArray[Any]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(value) for value in box)
    return x1, y1, x2, y2


def _ious(boxes: NDArray[Any], others: NDArray[Any], of_first: bool = False) -> NDArray[Any]:
    """Return the IoU of all pairs, or the share of each first box that a second one covers."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(-1)
    areas, theirs = (np.clip(each[:, 2:] - each[:, :2], 0, None).prod(-1) for each in (boxes, others))
    whole = areas[:, None] if of_first else areas[:, None] + theirs[None] - both
    shares: NDArray[Any] = np.divide(both, whole, out=np.zeros_like(both, dtype=np.float64), where=whole > 0)
    return shares
