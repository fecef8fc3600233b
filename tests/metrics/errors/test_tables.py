"""The errors of single boxes, as trackers and ``boxes.csv`` list them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from torchvision.ops import box_iou

from ocrnet_pl.data.loading.collate import collate
from ocrnet_pl.metrics.errors.kinds import MATCH, TOUCH
from ocrnet_pl.metrics.errors.record import ErrorAnalysis
from ocrnet_pl.metrics.errors.tables import BoxRow, box_images, box_rows, curve_rows
from ocrnet_pl.metrics.evaluation import EvaluationMetrics
from ocrnet_pl.structures import Prediction, Predictions, Sample
from tests.helpers.metric_cases import SIZE, TAXONOMY, make_case


def analysed(predictions: list[Prediction], truths: list[Sample]) -> ErrorAnalysis:
    metrics = EvaluationMetrics(TAXONOMY, boxes=True, pixels=True)
    metrics.record_errors(0.3, len(truths))
    metrics.update(Predictions(predictions, predictions), collate(truths, truths))
    metrics.compute()
    assert metrics.errors is not None
    analysis = metrics.errors.compute()
    assert analysis is not None
    return analysis


def pixels(row: BoxRow) -> torch.Tensor:
    return torch.tensor(row.box, dtype=torch.float64) * torch.tensor([SIZE[1], SIZE[0], SIZE[1], SIZE[0]])


def test_each_box_has_its_own_error_and_place() -> None:
    predictions, truths = make_case(4, 12)
    # An image without labels of boxes comes between the others.
    nothing = replace(truths[3].supervision, detection=torch.zeros(3, dtype=torch.bool))
    truths[3] = truths[3].replace(supervision=nothing)
    analysis = analysed(predictions, truths)
    (unboxed,) = (each for each in box_images(analysis) if each.truth.image_id == truths[3].image_id)
    assert box_rows(analysis, unboxed) == []
    shown = [each for each in box_images(analysis) if each is not unboxed]
    assert len(shown) == len(truths) - 1
    by_id = {truth.image_id: (found, truth) for found, truth in zip(predictions, truths, strict=True)}
    seen: Counter[str] = Counter()
    names = [category.name for category in TAXONOMY.detection_categories]
    for each in shown:
        found, truth = by_id[each.truth.image_id]
        rows = box_rows(analysis, each)
        boxes = [row for row in rows if row.result != "missed"]
        assert len(boxes) == len(found.labels)
        assert sorted(row.score for row in boxes) == sorted(found.scores.tolist())
        assert Counter((round(r.score, 4), r.category) for r in boxes) == Counter(
            (round(float(s), 4), names[label]) for s, label in zip(found.scores, found.labels.tolist(), strict=True)
        )
        real = torch.as_tensor(truth.boxes).double()[~truth.crowd]
        labels = truth.labels[~truth.crowd]
        for row in rows:
            seen[row.result] += 1
            iou = box_iou(pixels(row)[None], real)[0]
            own = max(iou[labels == names.index(row.category)].tolist(), default=0.0)
            best = max(iou.tolist(), default=0.0)
            if row.result in ("hit", "duplicate"):
                assert own >= MATCH - 1e-6, row
            elif row.result == "location":
                assert TOUCH - 1e-6 <= own <= MATCH + 1e-6, row
            elif row.result == "background":
                assert best <= TOUCH + 1e-6, row
            elif row.result == "class":
                assert best >= MATCH - 1e-6 and own <= TOUCH + 1e-6, row
            elif row.result == "missed":
                assert abs(own - 1) < 1e-6 and row.score != row.score, row
    seen.pop("ignored", None)
    hits = seen.pop("hit")
    counts = analysis.boxes["fused"].counts
    assert seen == Counter({kind.name.lower(): number for kind, number in counts.items() if number})
    assert hits and sum(seen.values()) > 20


def test_images_of_one_id_are_not_taken_for_each_other() -> None:
    predictions, truths = make_case(4, 3)
    truths[1] = truths[1].replace(image_id=truths[0].image_id)
    analysis = analysed(predictions, [*truths])
    twice = [each for each in box_images(analysis) if each.truth.image_id == truths[0].image_id]
    assert twice and box_rows(analysis, twice[0]) == []


def test_curves_are_those_of_the_analysis_with_their_ends() -> None:
    predictions, truths = make_case(4, 12)
    many = [replace(each, scores=torch.linspace(0.9, 0.1, len(each.labels))) for each in predictions]
    analysis = analysed(many, truths)
    rows = [row for row in curve_rows(analysis) if (row.boxes, row.category) == ("raw", "b")]
    curve = analysis.boxes["raw"].curves[1]
    assert [row.score for row in rows] == curve.scores.tolist()
    assert [row.f1 for row in rows] == curve.f1.tolist()
    assert len(rows) > 3
