"""Boundary IoU against loops over pixels."""

from __future__ import annotations

import math

import pytest
import torch

from ocrnet_pl.metrics.boundary import BoundaryIoU, near_edges
from ocrnet_pl.structures import Prediction, Sample, Supervision
from tests.helpers.metric_cases import TAXONOMY, make_case


def eroded(mask: list[list[bool]], times: int) -> list[list[bool]]:
    """Take away, so many times, the pixels with a neighbour outside; beyond the image all is outside."""
    height, width = len(mask), len(mask[0])
    around = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    for _ in range(times):
        mask = [
            [all(0 <= y + dy < height and 0 <= x + dx < width and mask[y + dy][x + dx] for dy, dx in around)
             for x in range(width)]
            for y in range(height)
        ]  # fmt: skip
    return mask


def by_loops(predictions: list[Prediction], truths: list[Sample], times: int) -> list[float]:
    """Each class's mask against its mask eroded, as the paper has it; unlabelled pixels are outside on both sides."""
    sums = [[0, 0] for _ in TAXONOMY.semantic_categories]
    for prediction, truth in zip(predictions, truths, strict=True):
        assert truth.semantic is not None and prediction.semantic is not None
        true, found = truth.semantic.tolist(), prediction.semantic.tolist()
        places = [(y, x) for y in range(len(true)) for x in range(len(true[0]))]
        known = truth.supervision.semantic.tolist() + [False] * 251
        for index, both_either in enumerate(sums):
            edges = []
            for side in (true, found):
                mask = [
                    [side[y][x] == index and true[y][x] != 255 for x in range(len(true[0]))] for y in range(len(true))
                ]
                inner = eroded(mask, times)
                edges.append({(y, x) for y, x in places if mask[y][x] and not inner[y][x]})
            counted = {(y, x) for y, x in places if known[true[y][x]] and known[found[y][x]]}
            both_either[0] += len(edges[0] & edges[1] & counted)
            both_either[1] += len((edges[0] | edges[1]) & counted)
    return [both / either if either else math.nan for both, either in sums]


@pytest.mark.parametrize(("width", "times"), [(0.02, 2), (0.001, 1)])
def test_boundary_iou_by_loops(width: float, times: int) -> None:
    predictions, truths = make_case(3, 3)
    # Smoother than noise, so that there are regions with an inside.
    for prediction, truth in zip(predictions, truths, strict=True):
        assert truth.semantic is not None
        prediction.semantic = torch.as_tensor(truth.semantic).roll((1, 2), (0, 1)).clone()
        prediction.semantic[prediction.semantic == 255] = 1
    partly = Supervision(torch.ones(3, dtype=torch.bool), torch.tensor([True, True, False, True, True]))
    truths[1] = truths[1].replace(supervision=partly)
    metric = BoundaryIoU(TAXONOMY, width)
    metric.update(predictions[:1], truths[:1])
    metric.update(predictions[1:], truths[1:])
    want = by_loops(predictions, truths, times)
    got = metric.compute()
    names = [category.name for category in TAXONOMY.semantic_categories]
    assert [float(got[f"boundary_iou_per_class/{name}"]) for name in names] == pytest.approx(want, nan_ok=True)
    assert 0 < float(got["boundary_iou"]) < 1
    assert float(got["boundary_iou"]) == pytest.approx(sum(want) / len(want))


@pytest.mark.parametrize("pixels", [1, 2, 3, 4, 5, 13, 14])
def test_edges_are_found_at_any_distance(pixels: int) -> None:
    classes = torch.zeros(41, 45, dtype=torch.long)
    classes[20:30, 20] = 3
    near = near_edges(classes, pixels).tolist()
    mask = [[value == 0 for value in row] for row in classes.tolist()]
    inner = eroded(mask, pixels)
    for y in range(41):
        for x in range(45):
            assert near[y][x] == (not inner[y][x]), (y, x)


def test_without_masks_there_is_nothing_to_measure() -> None:
    metric = BoundaryIoU(TAXONOMY)
    predictions, truths = make_case(1, 1)
    metric.update(predictions, [truths[0].replace(semantic=None)])
    assert math.isnan(metric.compute()["boundary_iou"])
    with pytest.raises(ValueError, match="expected a share between 0 and 1, got 2"):
        BoundaryIoU(TAXONOMY, 2)
