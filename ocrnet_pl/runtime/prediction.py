"""The prediction for one image as numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.runtime.description import Description
from ocrnet_pl.taxonomy import Taxonomy


@dataclass(frozen=True)
class Segment:
    """One segment of a panoptic map.

    Attributes:
        id: Value of its pixels in the map, from 1.
        category: Index into ``taxonomy.categories``.
        score: Score of the segment, 0 to 1; 1 for stuff.
        area: Number of pixels.
        instance: Row of the prediction's boxes; None for stuff.
    """

    id: int
    category: int
    score: float
    area: int
    instance: int | None = None


@dataclass
class Prediction:
    """The result for one image, at its original size, with the fields of ``ocrnet_pl.Prediction``.

    Attributes:
        boxes: float32 [N, 4], xyxy in pixels, best first.
        scores: float32 [N], 0 to 1.
        labels: int64 [N], detection classes.
        semantic: uint8 [H, W] of segmentation classes; None without a segmentation decoder.
        instances: int32 [H, W], the row of a box plus one, 0 = none; None if there is nothing to make masks of.
        panoptic: int32 [H, W], segment ids, 0 = void; None if there is no panoptic map.
        segments: Segments of the panoptic map.
        image_id: Name of the file, or the place of the image among those of the call.
        path: Path of the image file; empty for an image in memory.
        size: (height, width) of the image.
        taxonomy: Categories of the network.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    semantic: NDArray[np.uint8] | None = None
    instances: NDArray[np.int32] | None = None
    panoptic: NDArray[np.int32] | None = None
    segments: list[Segment] = field(default_factory=list)
    image_id: int | str = 0
    path: str = ""
    size: tuple[int, int] | None = None
    taxonomy: Taxonomy | None = None

    @property
    def masks(self) -> NDArray[np.bool_] | None:
        """Masks, bool [N, H, W], which do not overlap; None without an instance map."""
        if self.instances is None:
            return None
        rows = np.arange(1, len(self.scores) + 1, dtype=self.instances.dtype)
        masks: NDArray[np.bool_] = self.instances[None] == rows[:, None, None]
        return masks

    @property
    def names(self) -> list[str]:
        """The name of each box's class."""
        assert self.taxonomy is not None
        categories = self.taxonomy.detection_categories
        return [categories[label].name for label in self.labels.tolist()]


def predictions(outputs: Mapping[str, NDArray[Any]], description: Description) -> list[Prediction]:
    """Return the predictions that the arrays of a batch stand for.

    Args:
        outputs: The file's outputs by name.
        description: The file's description.
    """
    found = []
    for image in range(len(next(iter(outputs.values())))):
        own = {name: values[image] for name, values in outputs.items()}
        boxes, scores, labels = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
        if description.detects:
            count = int(own["count"])
            boxes, scores, labels = own["boxes"][:count], own["scores"][:count], own["labels"][:count]
        segments = []
        if "segments" in own:
            rows = own["segments"][own["segments"][:, 0] > 0].tolist()
            segments = [
                Segment(number, category, 1.0 if row < 0 else float(scores[row]), area, None if row < 0 else row)
                for number, category, area, row in rows
            ]
        semantic, instances, merged = (own.get(name) for name in ("semantic", "instances", "panoptic"))
        taxonomy = description.taxonomy
        found.append(Prediction(boxes, scores, labels, semantic, instances, merged, segments, taxonomy=taxonomy))
    return found
