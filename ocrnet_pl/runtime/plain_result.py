"""A prediction as plain values, which JSON can hold, or as a short text, whether its arrays are numpy's or torch's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

from ocrnet_pl.taxonomy import Taxonomy

_SHOWN_CLASSES = 5
"""Number of classes that the short text of a prediction names."""


def check_score(score: float) -> None:
    """Raise ValueError unless a score that objects need is from 0 to 1, or infinite, which leaves out all of them."""
    try:
        known = 0 <= score <= 1 or score == math.inf
    except TypeError:
        known = False
    if not known:
        raise ValueError(f"score: expected 0 to 1, got {score!r}")


class Listable(Protocol):
    """An array or a tensor."""

    def tolist(self) -> Any:
        """Return its values as lists."""


class AnySegment(Protocol):
    """One segment of a panoptic map."""

    @property
    def id(self) -> int:
        """Value of its pixels in the map."""

    @property
    def category(self) -> int:
        """Index into ``taxonomy.categories``."""

    @property
    def score(self) -> float:
        """Score, 0 to 1."""

    @property
    def area(self) -> int:
        """Number of pixels."""

    @property
    def instance(self) -> int | None:
        """Row of the prediction's boxes; None for stuff."""


class AnyPrediction(Protocol):
    """The fields that predictions with and without torch share."""

    @property
    def boxes(self) -> Listable:
        """[N, 4], xyxy in pixels."""

    @property
    def scores(self) -> Listable:
        """[N], 0 to 1."""

    @property
    def labels(self) -> Listable:
        """[N], detection classes."""

    @property
    def segments(self) -> Sequence[AnySegment]:
        """Segments of the panoptic map."""

    @property
    def image_id(self) -> int | str:
        """Id of the image."""

    @property
    def path(self) -> str:
        """Path of the image file."""

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of the image."""

    @property
    def taxonomy(self) -> Taxonomy | None:
        """Categories of the network."""


def plain_result(
    prediction: AnyPrediction, taxonomy: Taxonomy, counts: Sequence[int] | None, masks: Sequence[dict[str, Any]] | None
) -> dict[str, Any]:
    """Return a prediction as plain values.

    Args:
        prediction: The prediction.
        taxonomy: Its categories.
        counts: Number of pixels of each value of the semantic map; None if it has none.
        masks: COCO's run lengths of each object; None to leave them out.
    """
    objects: list[dict[str, Any]] = [
        {"name": taxonomy.detection_categories[label].name, "label": label, "score": score, "box": box}
        for label, score, box in zip(
            prediction.labels.tolist(), prediction.scores.tolist(), prediction.boxes.tolist(), strict=True
        )
    ]
    for entry, mask in zip(objects, masks or (), strict=masks is not None):
        entry["mask"] = mask
    pixels = {}
    if counts is not None:
        pixels = {c.name: counts[row] for row, c in enumerate(taxonomy.semantic_categories) if counts[row]}
    return {
        "image_id": prediction.image_id,
        "path": prediction.path,
        "size": None if prediction.size is None else list(prediction.size),
        "objects": objects,
        "pixels": pixels,
        "segments": [
            {
                "id": segment.id,
                "name": taxonomy.categories[segment.category].name,
                "score": segment.score,
                "area": segment.area,
                "object": segment.instance,
            }
            for segment in prediction.segments
        ],
    }


def coco_results(
    prediction: AnyPrediction, image_id: int | str | None, masks: Sequence[dict[str, Any]] | None
) -> list[dict[str, Any]]:
    """Return the objects of a prediction in COCO's results format.

    Args:
        prediction: The prediction.
        image_id: Id of the image in the annotations; None for the prediction's own.
        masks: COCO's run lengths of each object; None to leave them out.
    """
    results: list[dict[str, Any]] = [
        {
            "image_id": prediction.image_id if image_id is None else image_id,
            "category_id": label + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for (x1, y1, x2, y2), score, label in zip(
            prediction.boxes.tolist(), prediction.scores.tolist(), prediction.labels.tolist(), strict=True
        )
    ]
    for entry, mask in zip(results, masks or (), strict=masks is not None):
        entry["segmentation"] = mask
    return results


def short_text(prediction: AnyPrediction) -> str:
    """Return what a prediction is of and holds: the image, its width and height, objects by class, and the maps."""
    parts, labels = [repr(prediction.image_id)], prediction.labels.tolist()
    if prediction.size is not None:
        parts.append(f"{prediction.size[1]} x {prediction.size[0]}")
    if prediction.taxonomy is None or not labels:
        parts.append(f"{len(labels)} boxes")
    else:
        categories = prediction.taxonomy.detection_categories
        counts = Counter(categories[label].name for label in labels).most_common()
        parts += [f"{count} {name}" for name, count in counts[:_SHOWN_CLASSES]]
        parts += [f"{len(counts) - _SHOWN_CLASSES} more classes"] * (len(counts) > _SHOWN_CLASSES)
    parts += [name for name in ("semantic", "instances", "panoptic") if getattr(prediction, name) is not None]
    return f"Prediction({', '.join(parts)})"
