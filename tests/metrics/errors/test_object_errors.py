"""Errors of boxes and masks: against tidecv, scikit-learn, and counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from sklearn.metrics import precision_recall_curve
from torchvision import tv_tensors

from ocrnet_pl.metrics.detection import DetectionMetric
from ocrnet_pl.metrics.errors.kinds import ImageErrors, Kind, confusion_of
from ocrnet_pl.metrics.errors.objects import ERRORS, ObjectErrors
from ocrnet_pl.metrics.errors.packed import PackedErrors, Surroundings
from ocrnet_pl.structures import Prediction, Sample, Supervision, Taxonomy
from tests.helpers.metric_cases import TAXONOMY, make_case

SIZE = (100, 100)


def analysed(
    predictions: list[Prediction], truths: list[Sample], masks: bool = False, score: float = 0.3
) -> ObjectErrors:
    """What an evaluation of these images records."""
    metric = DetectionMetric(TAXONOMY, masks=masks)
    metric.keep = True
    metric.update(predictions, truths)
    found = [each for each in metric.matching(predictions, truths) if each is not None]
    errors = PackedErrors.joined([PackedErrors.of(each, score, TAXONOMY.num_detection) for each in found])
    metric.compute()
    assert metric.gathered is not None
    return ObjectErrors.of(metric.gathered, errors)


def with_other_scores(predictions: list[Prediction], seed: int) -> list[Prediction]:
    """The predictions with scores that are all different, as equal ones may be ranked in any order."""
    generator = torch.Generator().manual_seed(seed)
    count = sum(len(each.scores) for each in predictions)
    scores = iter(
        ((torch.randperm(count, generator=generator) + 1) / (count + 1)).split([len(p.scores) for p in predictions])
    )
    result = []
    for each in predictions:
        # Best first, and the instance map as before: its values are rows.
        own = next(scores).sort(descending=True).values
        result.append(Prediction(each.boxes, own, each.labels, each.semantic, each.instances))
    return result


def run_of_tide(predictions: list[Prediction], truths: list[Sample], masks: bool) -> object:
    tidecv = pytest.importorskip(
        "tidecv",
        reason="tidecv is not installed; it needs opencv-python, which may not be beside opencv-python-headless",
    )
    data = [tidecv.Data(name) for name in ("truth", "found")]

    def encoded(plane: torch.Tensor, row: int) -> dict:
        return rle.encode(np.asfortranarray((plane == row + 1).numpy().astype(np.uint8)))

    for number, (prediction, truth) in enumerate(zip(predictions, truths, strict=True)):
        data[0].add_image(number, str(number))
        for row, ((x1, y1, x2, y2), label) in enumerate(zip(truth.boxes.tolist(), truth.labels.tolist(), strict=True)):
            shape = {"mask": encoded(truth.instances, row)} if masks else {"box": [x1, y1, x2 - x1, y2 - y1]}
            add = data[0].add_ignore_region if truth.crowd[row] else data[0].add_ground_truth
            add(number, label, **shape)
        rows = zip(prediction.boxes.tolist(), prediction.labels.tolist(), prediction.scores.tolist(), strict=True)
        for row, ((x1, y1, x2, y2), label, score) in enumerate(rows):
            shape = {"mask": encoded(prediction.instances, row)} if masks else {"box": [x1, y1, x2 - x1, y2 - y1]}
            data[1].add_detection(number, label, score, **shape)
    return tidecv.TIDE().evaluate(*data, mode=tidecv.TIDE.MASK if masks else tidecv.TIDE.BOX)


@pytest.mark.parametrize(
    ("seed", "crowds", "masks"),
    [(0, False, False), (1, True, False), (3, False, True)],
    ids=["boxes", "boxes and crowds", "masks"],
)
def test_each_error_costs_what_tide_says(seed: int, crowds: bool, masks: bool) -> None:
    predictions, truths = make_case(seed, 40, objects=9, extra=9)
    predictions = with_other_scores(predictions, seed)
    if not crowds:
        for truth in truths:
            truth.crowd[:] = False
    run = run_of_tide(predictions, truths, masks)
    mine = analysed(predictions, truths, masks)
    assert mine.costs.ap == pytest.approx(run.ap / 100, abs=1e-3)
    expected = {type_.short_name: value / 100 for type_, value in run.fix_main_errors().items()}
    names = dict(zip(ERRORS, ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"), strict=True))
    for kind, name in names.items():
        assert mine.costs.by_kind[kind] == pytest.approx(expected[name], abs=1e-3), name
    special = {type_.short_name: value / 100 for type_, value in run.fix_special_errors().items()}
    assert mine.costs.alarms == pytest.approx(special["FalsePos"], abs=1e-3)
    assert mine.costs.misses == pytest.approx(special["FalseNeg"], abs=1e-3)
    if not crowds:
        assert list(mine.counts.values()) == list(run.count_errors().values())
        assert sum(value > 0 for value in mine.counts.values()) >= 5


def sample(boxes: list[list[float]], labels: list[int], crowd: list[bool] | None = None) -> Sample:
    return Sample(
        image=tv_tensors.Image(torch.zeros(3, *SIZE, dtype=torch.uint8)),
        boxes=tv_tensors.BoundingBoxes(torch.tensor(boxes).view(-1, 4), format="XYXY", canvas_size=SIZE),
        labels=torch.tensor(labels, dtype=torch.long),
        crowd=torch.tensor(crowd or [False] * len(labels), dtype=torch.bool),
        supervision=Supervision.full(TAXONOMY),
    )


def found(boxes: list[list[float]], labels: list[int], scores: list[float]) -> Prediction:
    return Prediction(torch.tensor(boxes).view(-1, 4), torch.tensor(scores), torch.tensor(labels, dtype=torch.long))


# An object of each of the classes a, b and c, far from each other, and a crowd of a.
TRUTH = sample(
    [[0, 0, 20, 20], [40, 0, 60, 20], [0, 40, 20, 60], [60, 60, 100, 100]], [0, 1, 2, 0], [False, False, False, True]
)
FOUND = found(
    [
        [0, 0, 20, 19],  # a hit
        [0, 0, 20, 18],  # the same object again
        [40, 0, 60, 21],  # the object of b, as c
        [0, 40, 20, 48],  # the object of c, too small
        [0, 40, 20, 46],  # as b, and too small
        [80, 0, 90, 10],  # nothing there
        [62, 62, 90, 90],  # inside the crowd
    ],
    [0, 0, 2, 2, 1, 0, 0],
    [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.2],
)


def test_kinds_of_one_image_by_hand() -> None:
    (match,) = DetectionMetric(TAXONOMY).matching([FOUND], [TRUTH])
    assert match is not None
    errors = ImageErrors.of(match)
    kinds = [Kind.HIT, Kind.DUPLICATE, Kind.CLASS, Kind.LOCATION, Kind.BOTH, Kind.BACKGROUND, Kind.BACKGROUND]
    assert errors.kinds.tolist() == kinds
    # The class that would be right: of the wrong class b, of the wrong place c.
    assert errors.corrected.tolist() == [-1, -1, 1, 2, -1, -1, -1]
    assert not errors.missed.any()
    result = analysed([FOUND], [TRUTH])
    # What a crowd excuses is no error.
    assert result.counts == dict(zip(ERRORS, (1, 1, 1, 1, 1, 0), strict=True))
    # b and c have nothing right now; each error corrected alone gives them an AP: b at once, c behind a wrong one.
    assert result.costs.ap == pytest.approx(1 / 3)
    costs = {
        Kind.CLASS: 1 / 3,
        Kind.LOCATION: 1 / 6,
        Kind.BOTH: 0,
        Kind.DUPLICATE: 0,
        Kind.BACKGROUND: 0,
        Kind.MISSED: 0,
    }
    assert result.costs.by_kind == {kind: pytest.approx(value) for kind, value in costs.items()}
    assert result.costs.alarms == 0
    assert result.errors.tallies.tolist() == [[1, 5, 2]]
    assert result.errors.loudest.tolist() == [pytest.approx(0.8)]


def test_confusion_of_one_image_by_hand() -> None:
    (match,) = DetectionMetric(TAXONOMY).matching([FOUND], [TRUTH])
    assert match is not None
    # Rows true, columns predicted, the background last.
    expected = np.zeros((4, 4), dtype=int)
    expected[0, 0] = 1
    expected[1, 2] = 1
    expected[2, 3] = 1
    expected[3] = [2, 1, 1, 0]
    assert confusion_of(match, 0.3, 3).tolist() == expected.tolist()
    # Above 0.75 only the hit and its duplicate are left.
    high = confusion_of(match, 0.75, 3)
    assert high.tolist() == [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1], [1, 0, 0, 0]]


@pytest.mark.parametrize("seed", [0, 1])
def test_confusion_agrees_with_precision_and_recall(seed: int) -> None:
    predictions, truths = make_case(seed, 12)
    result = analysed(predictions, truths, score=0.5)
    confusion = result.errors.confusion
    objects = result.objects
    assert confusion[:-1].sum(1).tolist() == objects.tolist()
    for label, curve in enumerate(result.curves):
        precision, recall, f1 = curve.at(0.5)
        right = confusion[label, label]
        assert right / confusion[label].sum() == pytest.approx(recall)
        assert right / confusion[:, label].sum() == pytest.approx(precision)
        assert f1 == pytest.approx(2 * right / (confusion[label].sum() + confusion[:, label].sum()))
    hits, alarms, misses = result.errors.tallies.sum(0)
    assert hits == confusion.diagonal().sum()
    assert hits + alarms == confusion[:, :-1].sum()
    assert hits + misses == objects.sum()


@pytest.mark.parametrize("seed", [0, 1])
def test_curves_are_those_of_scikit_learn(seed: int) -> None:
    predictions, truths = make_case(seed, 20)
    result = analysed(predictions, truths)
    for label, curve in enumerate(result.curves):
        own = (result.matched.labels == label) & (((result.matched.hits | result.matched.alarms) & 1) > 0)
        right = (result.matched.hits[own] & 1).astype(int)
        missed = int(result.objects[label] - right.sum())
        # What is never found is found with a score below all others.
        true = np.concatenate((right, np.ones(missed, int)))
        scores = np.concatenate((result.matched.scores[own], np.full(missed, -1.0)))
        precision, recall, thresholds = precision_recall_curve(true, scores)
        kept = thresholds >= 0
        assert curve.scores == pytest.approx(thresholds[kept][::-1])
        assert curve.precision == pytest.approx(precision[:-1][kept][::-1])
        assert curve.recall == pytest.approx(recall[:-1][kept][::-1])
        best = curve.best
        assert best is not None and curve.at(best)[2] == pytest.approx(np.nanmax(curve.f1))


def test_nothing_found_and_nothing_there() -> None:
    empty = found([], [], [])
    result = analysed([empty, empty], [TRUTH, sample([], [])])
    assert (result.costs.ap, result.costs.by_kind[Kind.MISSED], result.costs.misses) == (0, 1, 1)
    assert result.counts[Kind.MISSED] == 3
    assert result.errors.confusion[:, -1].tolist() == [1, 1, 1, 0]
    nothing = analysed([empty], [sample([], [])])
    assert np.isnan(nothing.costs.ap)
    assert all(curve.best is None for curve in nothing.curves)
    unlabelled = sample([], []).replace(supervision=Supervision.full(TAXONOMY, detection=False))
    assert DetectionMetric(TAXONOMY).matching([FOUND], [unlabelled]) == [None]


def test_objects_know_their_size_and_their_neighbours() -> None:
    truth = sample(
        [[0, 0, 10, 10], [5, 0, 15, 10], [50, 50, 54, 54], [0, 0, 100, 100]], [0, 1, 1, 0], [False] * 3 + [True]
    )
    (match,) = DetectionMetric(TAXONOMY).matching([found([], [], [])], [truth])
    assert match is not None
    around = Surroundings.of(match)
    assert around.sizes.tolist() == [10, 10, 4]
    assert around.overlaps.tolist() == pytest.approx([1 / 3, 1 / 3, 0])


def test_partial_labels_are_no_errors() -> None:
    taxonomy = Taxonomy.build(["a", "b", "c"])
    known = Supervision(torch.tensor([True, False, True]), torch.ones(3, dtype=torch.bool))
    truth = TRUTH.replace(supervision=known)
    (match,) = DetectionMetric(taxonomy).matching([FOUND], [truth])
    assert match is not None
    assert 1 not in match.labels
    assert ImageErrors.of(match).kinds.tolist() == [0, 4, 1, 2, 5, 5]
