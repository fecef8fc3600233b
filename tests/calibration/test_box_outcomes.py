"""Hits and curves, against matching by hand, plain loops and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.ops import box_iou

from ocrnet_pl.calibration.box_outcomes import BoxOutcomes, ClassOutcomes
from ocrnet_pl.inference.operating_points import OperatingPoint
from ocrnet_pl.structures import Prediction, Sample, Supervision
from tests.helpers.builders import TAXONOMY

SIZE = (64, 64)


def labelled(image_id: int, generator: torch.Generator) -> tuple[Prediction, Sample]:
    """Return random boxes, and predictions that are some of them moved a little, some doubled, and some elsewhere."""
    corner = torch.rand(8, 2, generator=generator) * 40
    boxes = torch.cat((corner, corner + 8 + torch.rand(8, 2, generator=generator) * 12), 1)
    labels = torch.randint(0, 2, (8,), generator=generator)
    found = torch.cat((boxes[:6], boxes[:4], boxes[2:4] + 20))
    found = found + torch.randn(12, 4, generator=generator) * 1.5
    found[:, 2:] = torch.maximum(found[:, 2:], found[:, :2] + 1)
    # Rounded, so that scores are equal.
    scores = torch.rand(12, generator=generator).mul(20).round().div(20).sort(descending=True).values
    own = torch.cat((labels[:6], labels[:4], labels[2:4]))
    sample = Sample(
        tv_tensors.Image(torch.zeros(0, *SIZE, dtype=torch.uint8)),
        tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=SIZE),
        labels,
        torch.arange(8) == 7,
        Supervision(torch.tensor([True, image_id != 3, True]), torch.ones(5, dtype=torch.bool)),
        image_id=image_id,
    )
    return Prediction(found, scores, own), sample


def counted(pairs: list[tuple[Prediction, Sample]], number: int, least: float) -> tuple[int, int, int]:
    """Return hits, false alarms and objects of a class, by loops over the boxes of at least a score."""
    hits = alarms = objects = 0
    for prediction, truth in pairs:
        if not truth.supervision.detection[number]:
            continue
        own = (truth.labels == number).nonzero()[:, 0].tolist()
        free = [row for row in own if not truth.crowd[row]]
        crowds = [row for row in own if truth.crowd[row]]
        objects += len(free)
        overlap = box_iou(prediction.boxes, truth.boxes.as_subclass(torch.Tensor))
        for row, (score, label) in enumerate(zip(prediction.scores.tolist(), prediction.labels.tolist(), strict=True)):
            if label != number or score < least:
                continue
            best = max(free, key=lambda column: float(overlap[row, column]), default=None)
            if best is not None and overlap[row, best] >= 0.5:
                hits += 1
                free.remove(best)
                continue
            x1, y1, x2, y2 = prediction.boxes[row].tolist()
            area = (x2 - x1) * (y2 - y1)
            inside = []
            for column in crowds:
                a1, b1, a2, b2 = truth.boxes[column].tolist()
                shared = max(0, min(x2, a2) - max(x1, a1)) * max(0, min(y2, b2) - max(y1, b1))
                inside.append(shared / area >= 0.5)
            alarms += not any(inside)
    return hits, alarms, objects


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Prediction, Sample]]:
    generator = torch.Generator().manual_seed(1)
    return [labelled(number, generator) for number in range(12)]


@pytest.fixture(scope="module")
def outcomes(pairs: list[tuple[Prediction, Sample]]) -> BoxOutcomes:
    return BoxOutcomes.of([p for p, _ in pairs], [t for _, t in pairs], TAXONOMY)


def test_curves_are_those_of_plain_loops(pairs: list[tuple[Prediction, Sample]], outcomes: BoxOutcomes) -> None:
    curves = outcomes.curves(TAXONOMY)
    assert set(curves) == {"disc", "square"}
    for number, name in enumerate(curves):
        curve = curves[name]
        every = sorted({score for p, _ in pairs for score in p.scores.tolist()}, reverse=True)
        table = {score: counted(pairs, number, score) for score in every}
        seen = 0
        for score, (hits, alarms, objects) in table.items():
            assert objects == curve.objects
            if hits > seen:
                place = curve.scores.index(score)
                assert (curve.hits[place], curve.alarms[place]) == (hits, alarms)
                seen = hits
            else:
                assert score not in curve.scores
        assert 0 < seen < curve.objects
        f1 = {score: 2 * hits / (hits + alarms + objects) for score, (hits, alarms, objects) in table.items()}
        assert OperatingPoint.parse("best_f1").threshold(curve).score == pytest.approx(max(f1, key=f1.get), rel=2e-5)  # type: ignore[arg-type]
        for wanted in (0.4, 0.6, 0.7):
            good = [s for s, (hits, alarms, _) in table.items() if hits / max(hits + alarms, 1) >= wanted]
            most = max(good, key=lambda s: (table[s][0], s), default=None)
            threshold = OperatingPoint.parse(f"precision={wanted}").threshold(curve)
            assert (most is None) == (threshold.refusal is not None)
            if most is not None:
                assert threshold.score == pytest.approx(most, rel=2e-5)


def test_an_unlabelled_class_of_an_image_counts_nowhere(outcomes: BoxOutcomes) -> None:
    square = outcomes.classes[1]
    assert not square.known[3]
    assert square.objects[3] == 0
    assert (square.images != 3).all()
    some = square.of_images([5, 1])
    assert some.objects.tolist() == [square.objects[5], square.objects[1]]
    assert some.scores[some.images == 0].tolist() == square.scores[square.images == 5].tolist()
    assert some.hits[some.images == 1].tolist() == square.hits[square.images == 1].tolist()


def test_curves_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(3)
    scores = np.sort(generator.random(60).round(2).astype(np.float32))[::-1]
    hits = generator.random(60) < scores
    own = ClassOutcomes(scores, hits, np.zeros(60, np.int64), np.array([hits.sum() + 9]), np.array([True]))
    curve = own.curve()
    precision, recall, thresholds = metrics.precision_recall_curve(hits, scores)
    found = {float(s): (p, r) for s, p, r in zip(thresholds, precision, recall, strict=False)}
    assert len(curve.scores) > 20
    for score, p, r in zip(curve.scores, curve.precision, curve.recall, strict=True):
        assert (p, r * curve.objects / hits.sum()) == pytest.approx(found[score], abs=1e-12)


def test_a_long_curve_is_thinned_without_losing_its_best_point() -> None:
    generator = np.random.default_rng(4)
    scores = np.sort(generator.random(5000).astype(np.float32))[::-1]
    hits = generator.random(5000) < scores**3
    own = ClassOutcomes(scores, hits, np.zeros(5000, np.int64), np.array([2000]), np.array([True]))
    curve = own.curve()
    assert len(curve.scores) <= 100
    rank = np.arange(1, 5001)
    f1 = 2 * np.cumsum(hits) / (rank + 2000)
    assert curve.f1.max() == pytest.approx(f1.max(), abs=1e-12)
    for score, found, alarms in zip(curve.scores, curve.hits, curve.alarms, strict=True):
        kept = scores >= score
        assert (found, alarms) == (int(hits[kept].sum()), int((~hits[kept]).sum()))
    assert curve.hits[-1] == hits.sum()
    assert np.diff(curve.hits).max() <= hits.sum() / 50
