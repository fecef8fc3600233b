"""Weighted box fusion against the paper's algorithm written out, and against cases by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from ocrnet_pl.inference.box_fusion import fuse_boxes
from ocrnet_pl.inference.decode import Detections


def detections(*rows: tuple[list[float], float, int]) -> Detections:
    return Detections(
        torch.tensor([box for box, _, _ in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([score for _, score, _ in rows], dtype=torch.float32),
        torch.tensor([label for _, _, label in rows], dtype=torch.int64),
    )


def iou(one: list[float], other: list[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (areas - width * height)


def by_the_paper(passes: list[Detections], threshold: float) -> list[tuple[list[float], float, int]]:
    """Section 3 of Solovyev et al.: the list B, the clusters L and their fused boxes F, all boxes against all of F."""
    listed = [
        (box, score, label, number)
        for number, part in enumerate(passes)
        for box, score, label in zip(*(column.tolist() for column in part), strict=True)
        if box[2] > box[0] and box[3] > box[1]
    ]
    listed.sort(key=lambda entry: -entry[1])
    clusters: list[list[tuple[list[float], float, int, int]]] = []
    fused: list[list[float]] = []
    for entry in listed:
        overlaps = [
            iou(entry[0], mean) if own[0][2] == entry[2] and entry[3] not in {o[3] for o in own} else 0.0
            for own, mean in zip(clusters, fused, strict=True)
        ]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best < 0 or overlaps[best] <= threshold:
            best = len(clusters)
            clusters.append([])
            fused.append([])
        clusters[best].append(entry)
        weight = sum(own[1] for own in clusters[best])
        fused[best] = [sum(own[0][i] * own[1] for own in clusters[best]) / weight for i in range(4)]
    result = []
    for own, mean in zip(clusters, fused, strict=True):
        agree = min(len(own), len(passes)) / len(passes)
        result.append((mean, sum(entry[1] for entry in own) / len(own) * agree, own[0][2]))
    return sorted(result, key=lambda entry: -entry[1])


def random_passes(seed: int, passes: int, objects: int, extent: float, classes: int) -> list[Detections]:
    """The same objects seen a little differently by each pass, with misses, doubles and inventions."""
    rng = np.random.default_rng(seed)
    corner, side = rng.uniform(0, extent, (objects, 2)), rng.uniform(4, 40, (objects, 2))
    truth = np.concatenate((corner, corner + side), 1)
    label = rng.integers(0, classes, objects)
    found = []
    for _ in range(passes):
        rows = np.concatenate((rng.permutation(objects)[: objects * 4 // 5], rng.integers(0, objects, objects // 4)))
        boxes = truth[rows] + rng.normal(0, 2.0, (len(rows), 4))
        boxes = np.clip(boxes, 0, extent)
        scores = rng.uniform(0.02, 1, len(rows))
        found.append(Detections(*(torch.from_numpy(v) for v in (boxes.astype("f4"), scores.astype("f4"), label[rows]))))
    return found


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("passes", "threshold", "extent"), [(2, 0.55, 300.0), (4, 0.6, 120.0), (8, 0.4, 200.0)])
def test_fusion_is_that_of_the_paper(seed: int, passes: int, threshold: float, extent: float) -> None:
    found = random_passes(seed, passes, 40, extent, 3)
    expected = by_the_paper(found, threshold)
    fused = fuse_boxes(found, threshold, 10_000)
    assert len(fused.scores) == len(expected) < sum(len(part.scores) for part in found) * 0.9
    assert torch.allclose(fused.scores, torch.tensor([score for _, score, _ in expected]), atol=1e-5)
    # Scores within rounding of each other may change places.
    order = sorted(range(len(expected)), key=lambda i: expected[i][0])
    mine = sorted(range(len(expected)), key=lambda i: fused.boxes[i].tolist())
    assert torch.allclose(fused.boxes[mine], torch.tensor([expected[i][0] for i in order]), atol=1e-3)
    assert fused.labels[mine].tolist() == [expected[i][2] for i in order]


def test_coordinates_are_weighed_by_score_and_the_score_by_agreement() -> None:
    one = detections(([10.0, 10.0, 30.0, 30.0], 0.9, 1))
    other = detections(([12.0, 10.0, 32.0, 30.0], 0.3, 1))
    fused = fuse_boxes([one, other], 0.5, 100)
    assert torch.allclose(fused.boxes, torch.tensor([[10.5, 10.0, 30.5, 30.0]]))
    assert fused.scores.tolist() == pytest.approx([0.6])
    assert fused.labels.tolist() == [1]
    # One pass of two saw it: half of its score is left.
    alone = fuse_boxes([one, detections()], 0.5, 100)
    assert alone.boxes.tolist() == [[10, 10, 30, 30]]
    assert alone.scores.tolist() == pytest.approx([0.45])


def test_other_classes_and_distant_boxes_stay_apart() -> None:
    one = detections(([10.0, 10.0, 30.0, 30.0], 0.8, 0), ([60.0, 60.0, 80.0, 80.0], 0.6, 0))
    other = detections(([10.0, 10.0, 30.0, 30.0], 0.7, 1), ([60.0, 50.0, 80.0, 70.0], 0.5, 0))
    fused = fuse_boxes([one, other], 0.5, 100)
    assert fused.scores.tolist() == pytest.approx([0.4, 0.35, 0.3, 0.25])
    assert fused.labels.tolist() == [0, 1, 0, 0]


def test_a_second_box_of_the_same_pass_does_not_pull() -> None:
    """Suppression at 0.6 leaves boxes that overlap less; they are no second opinion."""
    seen = detections(([0.0, 0.0, 20.0, 20.0], 0.9, 0), ([0.0, 0.0, 20.0, 34.5], 0.5, 0))
    fused = fuse_boxes([seen, detections(([0.0, 0.0, 20.0, 20.0], 0.7, 0))], 0.55, 100)
    assert fused.boxes[0].tolist() == pytest.approx([0, 0, 20, 20])
    assert fused.scores.tolist() == pytest.approx([0.8, 0.25])


def test_one_pass_is_left_alone_and_nothing_gives_nothing() -> None:
    one = random_passes(0, 1, 30, 100.0, 2)[0]
    assert fuse_boxes([one], 0.6, 5) is one
    empty = fuse_boxes([detections(), detections(), detections()], 0.6, 5)
    assert empty.boxes.shape == (0, 4) and empty.scores.shape == (0,) and empty.labels.dtype == torch.int64
    # Boxes in the padding shrink to nothing in the image.
    flat = detections(([5.0, 64.0, 20.0, 64.0], 0.9, 0))
    assert len(fuse_boxes([flat, flat], 0.6, 5).scores) == 0


def test_the_best_boxes_are_kept() -> None:
    found = random_passes(3, 3, 40, 300.0, 2)
    everything, few = fuse_boxes(found, 0.6, 1000), fuse_boxes(found, 0.6, 7)
    assert torch.equal(few.boxes, everything.boxes[:7]) and torch.equal(few.scores, everything.scores[:7])
    assert (everything.scores[:-1] >= everything.scores[1:]).all()


def test_four_passes_take_milliseconds() -> None:
    found = random_passes(0, 4, 60, 256.0, 1)
    fuse_boxes(found, 0.6, 100)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        fuse_boxes(found, 0.6, 100)
        times.append(time.perf_counter() - start)
    # 2 ms on a free core; tests share theirs.
    assert min(times) < 0.02
