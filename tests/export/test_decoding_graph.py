"""The choice of boxes in a file against the one of ``predict``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ocrnet_pl.export.decoding import decode, without_rivals
from ocrnet_pl.export.graph import Graph
from ocrnet_pl.export.letterbox import Frame
from ocrnet_pl.inference.decode import Decode
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.structures import DetectionOutput, Placement
from tests.helpers.exported import RUNTIMES, session

CANDIDATES, CLASSES, SIZE = 300, 4, (40, 60)
FILLED = Placement.identity(SIZE)
INNER = Placement((62, 90), SIZE, (25 / 62, 36 / 90))
"""Where images lie that are scaled to 25 x 36 pixels, with padding below them and beside them."""


def candidates(seed: int, images: int) -> DetectionOutput:
    """Return many boxes that overlap, some of them beyond the image."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(images, CANDIDATES, 2, generator=generator) * torch.tensor([60.0, 40.0]) - 5
    side = 4 + 12 * torch.rand(images, CANDIDATES, 2, generator=generator)
    scores = torch.rand(images, CANDIDATES, CLASSES, generator=generator) ** 3
    none = torch.zeros(images, CANDIDATES)
    return DetectionOutput(torch.cat((low, low + side), 2), none, scores, scores, none[0, :, None], none[0], ())


def decoding(
    rule: Decode,
    limits: NDArray[np.float32],
    runtime: str,
    agnostic: float | None = None,
    place: Placement = FILLED,
) -> Callable[[DetectionOutput], list[NDArray[Any]]]:
    """Return the choice of boxes as a graph makes it: boxes, scores, labels, and which rows are boxes."""
    graph = Graph()
    boxes = graph.input("boxes_in", np.float32, ("batch", CANDIDATES, 4))
    scores = graph.input("scores_in", np.float32, ("batch", CANDIDATES, CLASSES))
    thresholds = graph.named_constant("thresholds", limits)
    inner = (round(side * factor) for side, factor in zip(place.original_size, place.scale, strict=True))
    frame = Frame(boxes.length(0), *(graph.join(side) for side in (*place.original_size, *inner)))
    rows = decode(graph, boxes, scores, (CANDIDATES, CLASSES), SIZE, frame, thresholds, rule)
    if agnostic is not None:
        rows = without_rivals(graph, rows, agnostic)
    for name in ("boxes", "scores", "labels", "valid"):
        graph.output(getattr(rows, name), name, ("batch", rows.length, *[4] * (name == "boxes")))
    run = session(graph, runtime)
    return lambda output: run.run(None, {"boxes_in": output.boxes.numpy(), "scores_in": output.scores.numpy()})


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("place", [FILLED, INNER], ids=["filled", "padded"])
@pytest.mark.parametrize(
    ("rule", "agnostic"),
    [
        (Decode(score_threshold=0.3, max_detections=30), None),
        (Decode(score_threshold=0.0, iou_threshold=0.4, max_candidates=1200, max_detections=1000), None),
        (Decode(iou_threshold=None, max_detections=20), None),
        (Decode(score_threshold=0.9999), None),
        (Decode(score_threshold=0.2), 0.5),
        (Decode(score_threshold=0.2, iou_threshold=0.3, box_voting=0.5), None),
        (Decode(score_threshold=0.2, box_voting=None), None),
        (Decode(score_threshold=0.2, usual_votes=None), None),
        (Decode(score_threshold=0.3, usual_votes=0.5), 0.5),
    ],
)
def test_the_same_boxes_are_chosen(rule: Decode, agnostic: float | None, place: Placement, runtime: str) -> None:
    run = decoding(rule, np.full(CLASSES, rule.score_threshold, np.float32), runtime, agnostic, place)
    for seed in range(5):
        output = candidates(seed, 3)
        for wanted, *got in zip(rule(output, [place] * 3), *run(output), strict=True):
            if agnostic is not None:
                wanted = FusionPostProcess(agnostic_iou=agnostic).without_rivals(wanted)
            valid = got.pop()
            assert valid.sum() == len(wanted.scores)
            assert valid[: len(wanted.scores)].all()
            for expected, actual in zip(wanted, got, strict=True):
                torch.testing.assert_close(torch.from_numpy(actual[valid]), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_classes_have_thresholds_of_their_own(runtime: str) -> None:
    limits = np.array([0.2, 0.9, 0.5, 1.0], np.float32)
    _, found, labels, _ = decoding(Decode(), limits, runtime)(candidates(0, 1))
    kept = found[0] > 0
    assert set(labels[0][kept].tolist()) == {0, 1, 2}
    assert (found[0][kept] > limits[labels[0][kept]]).all()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_boxes_below_the_threshold_of_their_class_vote_and_suppress_as_in_predict(runtime: str) -> None:
    limits = np.array([0.2, 0.9, 0.5, 0.7], np.float32)
    rule = Decode(score_threshold=0.1, iou_threshold=0.3, max_detections=1000, box_voting=0.3)
    output = candidates(1, 1)
    placed, found, _, _ = decoding(rule, limits, runtime)(output)
    (wanted,) = rule(output, [FILLED])
    counting = wanted.scores > torch.from_numpy(limits)[wanted.labels]
    kept = found[0] > 0
    assert kept.sum() == counting.sum()
    torch.testing.assert_close(torch.from_numpy(placed[0][kept]), wanted.boxes[counting], rtol=1e-6, atol=1e-5)
