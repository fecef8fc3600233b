"""COCO's matching of predictions to objects, by faster-coco-eval, some images at a time."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

COCO_LIMIT = 100
"""Number of predictions per image and class that COCO's own figures count."""
AREAS = ("all", "small", "medium", "large")
"""COCO's ranges of the objects' areas, in the order of the arrays."""
IOU_50, IOU_75 = 0, 5
"""Positions of these thresholds in the arrays."""

_PAIRS = 2**22
"""Number of pairs of prediction and object that are compared at a time; the library takes 16 bytes for each."""


class CocoArrays(NamedTuple):
    """The arrays from which COCO computes its figures; -1 where there is nothing to measure.

    The last axis is the limit on the number of predictions per image and class: first COCO's 100, then none. Both are
    the same if no image has more than 100 predictions.

    Attributes:
        precision: float64 [T, R, K, A, M], by IoU threshold, recall, class, area and limit.
        recall: float64 [T, K, A, M], the highest recall reached.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def evaluate(truth: dict[str, Any], found: dict[str, Any], masks: bool) -> CocoArrays:
    """Compare predictions with the truth.

    Args:
        truth: Content of an annotation file, with at least one annotation.
        found: Content of an annotation file for the same images, with scores.
        masks: Whether masks are compared instead of boxes.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    predicted = Counter(annotation["image_id"] for annotation in found["annotations"])
    true = Counter(annotation["image_id"] for annotation in truth["annotations"])
    reference, results = (COCO(each, print_function=_silent) for each in (truth, found))
    evaluation = COCOeval_faster(
        reference, results, "segm" if masks else "bbox", print_function=_silent, separate_eval=True
    )
    images = list(evaluation.params.imgIds)
    evaluation.params.maxDets = sorted({COCO_LIMIT, max(COCO_LIMIT, *predicted.values())})
    # By class and area, each a list of the images' results.
    groups: list[list[Any]] = [[] for _ in itertools.product(evaluation.params.catIds, evaluation.params.areaRng)]
    for chunk in _chunks(images, [predicted[image] * true[image] for image in images]):
        evaluation.params.imgIds = chunk
        evaluation.evaluate()
        each = iter(evaluation._evalImgs_cpp)
        for group in groups:
            group += itertools.islice(each, len(chunk))
    evaluation.params.imgIds = images
    evaluation._paramsEval = copy.deepcopy(evaluation.params)
    evaluation._evalImgs_cpp = list(itertools.chain.from_iterable(groups))
    evaluation.accumulate()
    return CocoArrays(evaluation.eval["precision"], evaluation.eval["recall"])


def mean_defined(values: NDArray[np.float64]) -> float:
    """Return the mean of the values that COCO defined, NaN if there are none."""
    values = values[values > -1]
    return float(values.mean()) if values.size else float("nan")


def _chunks(images: list[int], pairs: list[int]) -> Iterator[list[int]]:
    """Yield the images in order, as many at a time as ``_PAIRS`` allows, at least one."""
    chunk: list[int] = []
    total = 0
    for image, own in zip(images, pairs, strict=True):
        if chunk and total + own > _PAIRS:
            yield chunk
            chunk, total = [], 0
        chunk.append(image)
        total += own
    if chunk:
        yield chunk


def _silent(*_: object) -> None:
    """Discard faster-coco-eval's progress lines."""
