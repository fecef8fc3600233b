"""Thresholds read off curves, and what is given out with them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ocrnet_pl import OCRNet
from ocrnet_pl.errors import CheckpointError, UsageError
from ocrnet_pl.inference.counting import CountRule
from ocrnet_pl.inference.decode import Decode, Detections
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.multiscale import MultiScale
from ocrnet_pl.inference.operating_points import Curve, OperatingPoint
from ocrnet_pl.inference.pixels import SemanticMap
from ocrnet_pl.inference.probabilities import Beta
from ocrnet_pl.inference.score_calibration import ScoreCalibration
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.inference.tiled_inference import Tiling
from ocrnet_pl.structures import Prediction, Predictions, Taxonomy
from tests.helpers.builders import TAXONOMY, tiny_network

# By falling score: hit .9, hit .8, false alarm .7, hit .6, false alarms .5 and .4, hit .3; five objects.
CURVE = Curve((0.9, 0.8, 0.6, 0.3), (1, 2, 3, 4), (0, 0, 1, 3), 5)
SURE = Curve((0.9, 0.5), (1, 2), (0, 0), 2)


def test_thresholds_by_hand() -> None:
    assert CURVE.precision.tolist() == [1, 1, 3 / 4, 4 / 7]
    assert CURVE.recall.tolist() == [1 / 5, 2 / 5, 3 / 5, 4 / 5]
    assert CURVE.f1.tolist() == pytest.approx([1 / 3, 4 / 7, 2 / 3, 2 / 3])
    # Of equal F1 the higher score; the most objects at a precision; the fewest boxes at a recall.
    for text, score in {
        "best_f1": 0.6,
        "precision=0.75": 0.6,
        "precision=0.76": 0.8,
        "precision=1": 0.8,
        "recall=0.4": 0.8,
        "recall=0.41": 0.6,
        "recall=0.8": 0.3,
        "none": 0.0,
    }.items():
        threshold = OperatingPoint.parse(text).threshold(CURVE)
        assert threshold.score == pytest.approx(score, rel=2e-5)
        assert threshold.score <= score
        assert threshold.refusal is None


def test_what_cannot_be_had_is_said() -> None:
    late = Curve((0.5,), (1,), (3,), 5)
    score, said = OperatingPoint.parse("precision=0.3").threshold(late)
    assert (score, said) == (
        math.inf,
        "its precision reached at most 0.250 on the calibration images; its boxes are left out",
    )
    score, said = OperatingPoint.parse("recall=0.81").threshold(CURVE)
    assert score == 0
    assert said == "its recall reached at most 0.800 on the calibration images, with all boxes; all of them are kept"
    for curve in (None, Curve((), (), (), 3)):
        score, said = OperatingPoint.parse("best_f1").threshold(curve)
        assert score == 0
        assert said is not None and "all its boxes are kept" in said
    assert "no bound" in str(OperatingPoint.parse("bound").threshold(CURVE).refusal)


@pytest.mark.parametrize("text", ["recal=0.9", "precision", "precision=0", "recall=1.1", "recall=nan", "best_f1=1", ""])
def test_other_texts_are_no_operating_points(text: str) -> None:
    with pytest.raises(UsageError, match="expected none, best_f1"):
        OperatingPoint.parse(text)


def test_the_text_of_a_curve_is_short_and_read_back() -> None:
    generator = np.random.default_rng(0)
    scores = np.sort(generator.random(100).astype(np.float32))[::-1].astype(float)
    curve = Curve(tuple(scores), tuple(range(1, 101)), tuple(range(0, 500, 5)), 120)
    assert len(curve.to_text()) <= 1600
    assert Curve.from_text(curve.to_text(), 120) == curve
    for text, objects in ((curve.to_text()[:-4], 120), (curve.to_text(), 99), ("no base 64", 120)):
        with pytest.raises(ValueError):
            Curve.from_text(text, objects)


def test_what_is_known_of_the_scores_is_read_back_or_refused() -> None:
    found = ScoreCalibration(7, 0.5, {"raw": {"disc": CURVE32}, "fused": {"star": CURVE32}})
    assert ScoreCalibration.from_dict(found.to_dict(), TAXONOMY) == found
    plain = found.to_dict()
    for change in (
        {"images": -1},
        {"images": None},
        {"iou": "much"},
        {"new": 1},
        {"passes": 2},
        {"curves": {"fused": {}}},
        {"curves": {"raw": {"sky": plain["curves"]["raw"]["disc"]}}},
        {"curves": {"raw": {"disc": [5]}}},
        {"curves": [1]},
        {"counts": {"raw": {"disc": [0.0, 1.0]}}},
        {"bounds": {"raw": {"disc": [2.0, None]}}},
        {"probabilities": {"raw": {"disc": [1.0, 1.0]}}},
    ):
        with pytest.raises(ValueError):
            ScoreCalibration.from_dict(plain | change, TAXONOMY)


# As a file keeps it.
CURVE32 = Curve.from_text(CURVE.to_text(), CURVE.objects)


def scene() -> tuple[Detections, SemanticMap]:
    """A disc, a square and a star side by side, and a doubtful second disc far off, with their pixels."""
    boxes = torch.tensor([[4.0, 4, 24, 24], [34, 4, 54, 24], [64, 4, 84, 24], [4, 34, 24, 54]])
    probability = torch.full((5, 60, 90), 0.02)
    probability[1] = 0.9
    for (x1, y1, x2, y2), label in zip(boxes.int().tolist(), (2, 3, 4, 2), strict=True):
        probability[:, y1:y2, x1:x2] = 0.02
        probability[label, y1:y2, x1:x2] = 0.9
    found = Detections(boxes, torch.tensor([0.9, 0.8, 0.7, 0.35]), torch.tensor([0, 1, 2, 0]))
    return found, SemanticMap.of(probability / probability.sum(0))


def segments(prediction: Prediction) -> list[tuple[int, float, int]]:
    assert prediction.panoptic is not None
    for segment in prediction.segments:
        assert int((prediction.panoptic == segment.id).sum()) == segment.area
        if segment.instance is not None:
            assert prediction.instances is not None
            assert bool((prediction.instances[prediction.panoptic == segment.id] == segment.instance + 1).all())
    return [(s.category, round(s.score, 3), s.area) for s in prediction.segments if s.instance is not None]


def test_an_operating_point_decides_what_raw_and_fused_boxes_maps_and_masks_show() -> None:
    post = FusionPostProcess(min_stuff_area=1)
    before = post.join(*scene(), TAXONOMY)
    high, low = (Curve((score,), (1,), (0,), 2) for score in (0.95, 0.5))
    curves = {"raw": {"disc": CURVE, "square": SURE}, "fused": {"disc": high, "square": low}}
    post.calibration = ScoreCalibration(9, 0.5, curves)
    said = post.choose("recall=0.5", (), TAXONOMY)
    assert said == (
        "operating point recall=0.5: 'star': the calibration images have no object of it; all its boxes are kept",
    )
    raw, fused = (found[0] for found in (post.join(*scene(), TAXONOMY).raw, post.join(*scene(), TAXONOMY).fused or []))
    # Raw: the disc from 0.6, the square from 0.9, all stars. Fused: the disc from 0.95, the square from 0.5.
    assert raw.labels.tolist() == [0, 2]
    assert [category for category, _, _ in segments(raw)] == [2, 4]
    assert fused.labels.tolist() == [1, 2]
    for prediction in (raw, fused):
        assert prediction.instances is not None and prediction.masks is not None
        assert int(prediction.instances.max()) == len(prediction.scores)
        for box, mask in zip(prediction.boxes, prediction.masks, strict=True):
            x, y = int(box[0] + box[2]) // 2, int(box[1] + box[3]) // 2
            assert mask[y, x]
        assert len(segments(prediction)) == len(prediction.scores)
    # The lowest score enters the panoptic map if the point lets it: raw 0.35 is below the rule's 0.5.
    post.choose("recall=0.8", (), TAXONOMY)
    every = post.join(*scene(), TAXONOMY).raw[0]
    assert every.labels.tolist() == [0, 1, 2, 0]
    assert len(segments(every)) == 4
    # And none is as it was.
    post.choose("none", (), TAXONOMY)
    after = post.join(*scene(), TAXONOMY)
    for one, other in zip((*before.raw, *before.best), (*after.raw, *after.best), strict=True):
        for name in ("boxes", "scores", "labels", "semantic", "instances", "panoptic"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        assert one.segments == other.segments


def test_probabilities_take_the_place_of_scores_in_all_that_is_given_out() -> None:
    post = FusionPostProcess(min_stuff_area=1)
    before = post.join(*scene(), TAXONOMY)
    # The square's are raised over the disc's, and the star has no map.
    maps = {"disc": Beta(1.0, 1.0, -2.0), "square": Beta(1.0, 2.0, 2.0)}
    rules = {"disc": CountRule(0.5, None), "square": CountRule(1.0, 0.5)}
    curves = {"disc": CURVE, "square": SURE}
    known = [{way: each for way in ("raw", "fused")} for each in (curves, maps, rules)]
    post.load_calibration(ScoreCalibration(9, 0.5, *known).to_dict(), TAXONOMY)
    after = post.join(*scene(), TAXONOMY)

    def probability(score: float, label: int) -> float:
        a, b, c = [*maps.values(), None][label] or (1, 1, 0)
        return 1 / (1 + math.exp(-(a * math.log(score) - b * math.log(1 - score) + c)))

    for old, new in ((before.raw[0], after.raw[0]), (before.best[0], after.best[0])):
        expected = torch.tensor(
            [probability(*row) for row in zip(old.scores.tolist(), old.labels.tolist(), strict=True)]
        )
        order = expected.argsort(descending=True, stable=True)
        assert order.tolist() != list(range(4))
        torch.testing.assert_close(new.scores, expected[order])
        assert torch.equal(new.labels, old.labels[order])
        assert torch.equal(new.boxes, old.boxes[order])
        assert old.masks is not None and new.masks is not None
        assert torch.equal(new.masks, old.masks[order])
        # What enters the map was decided by the scores that fusion knows.
        assert old.panoptic is not None and new.panoptic is not None
        assert torch.equal(new.panoptic, old.panoptic)
        for segment in new.segments:
            if segment.instance is not None:
                assert segment.score == pytest.approx(float(new.scores[segment.instance]))
        segments(new)
    best = after.best[0]
    assert best.counts is not None
    assert best.counts[0, 0] == pytest.approx(float(best.scores[best.labels == 0].sum()) / 0.5)
    assert best.counts[1, 0] == pytest.approx(float(best.scores[best.labels == 1].sum()))
    assert best.counts[:, 1].isnan().tolist() == [True, False, True]
    assert best.counts[2].isnan().all()
    # Numbers are those of all boxes; thresholds are among probabilities.
    post.choose("recall=0.2", ["disc", "square"], TAXONOMY)
    some = post.join(*scene(), TAXONOMY).best[0]
    assert some.counts is not None
    torch.testing.assert_close(some.counts, best.counts, equal_nan=True)
    assert some.labels.tolist() == [1]
    post.choose("none", ["disc"], TAXONOMY)
    one = post.join(*scene(), TAXONOMY).best[0].counts
    assert one is not None
    assert one.isnan().all(1).tolist() == [False, True, True]


@pytest.mark.parametrize(
    "way", [None, MultiScale((1.0,), flip=False), Tiling()], ids=["one pass", "several scales", "tiles"]
)
def test_the_temperature_of_the_pixels_holds_in_every_way_of_prediction(way: MultiScale | Tiling | None) -> None:
    network = tiny_network()
    network.postprocess = Raw()
    image = torch.randint(0, 256, (3, 100, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = []
    for temperature in (0.01, 1000.0):
        network.postprocess.settings = FusionSettings(temperature=temperature)
        found.append(network.predict(image, *[way, None] if isinstance(way, Tiling) else [None, way])[0].certainty)
    assert found[0] is not None and found[1] is not None
    assert found[0].mean() > 0.5
    # Where the logits are as good as equal, each of the five classes has a fifth.
    assert float(found[1].max()) < 0.21


class Raw(FusionPostProcess):
    """Gives out raw predictions, which know how certain pixels are."""

    def join(self, detections: Detections | None, semantic: SemanticMap | None, taxonomy: Taxonomy) -> Predictions:
        return Predictions(super().join(detections, semantic, taxonomy).raw)

    def forward(self, *given: Any) -> Predictions:
        return Predictions(super().forward(*given).raw)


def test_other_classes_are_left_out_but_take_part_in_fusion() -> None:
    post = FusionPostProcess(min_stuff_area=1)
    whole = post.join(*scene(), TAXONOMY)
    assert post.choose("none", ["disc", "star"], TAXONOMY) == ()
    some = post.join(*scene(), TAXONOMY)
    for one, other in ((whole.raw[0], some.raw[0]), (whole.best[0], some.best[0])):
        kept = one.labels != 1
        assert torch.equal(other.boxes, one.boxes[kept])
        assert torch.equal(other.scores, one.scores[kept])
        assert one.masks is not None and other.masks is not None
        assert torch.equal(other.masks, one.masks[kept])
        assert [each for each in segments(one) if each[0] != 3] == segments(other)
        assert other.panoptic is not None and one.semantic is not None
        assert (other.panoptic[one.semantic == 3] == 0).all()
        assert torch.equal(other.semantic if other.semantic is not None else Tensor(), one.semantic)
    with pytest.raises(UsageError, match="no class 'dics' with boxes; did you mean 'disc'"):
        post.choose("none", ["dics"], TAXONOMY)
    with pytest.raises(UsageError, match="no class 'sky' with boxes; there are 'disc', 'square'"):
        post.choose("none", ["sky"], TAXONOMY)


def test_an_object_has_one_class_if_the_settings_say_so() -> None:
    boxes = torch.tensor([[10.0, 10, 30, 30], [11, 10, 31, 30], [50, 10, 70, 30], [10, 10, 30, 30]])
    found = Detections(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 1, 1, 2]))
    semantic = scene()[1]
    for iou, rows in ((None, [0, 1, 2, 3]), (0.6, [0, 2]), (0.95, [0, 1, 2])):
        post = FusionPostProcess(agnostic_iou=iou)
        both = post.join(found, semantic, TAXONOMY)
        assert both.raw[0].labels.tolist() == found.labels[rows].tolist()
        assert sorted(both.best[0].labels.tolist()) == sorted(found.labels[rows].tolist())
        assert post.join(found, None, TAXONOMY).raw[0].labels.tolist() == found.labels[rows].tolist()
    with pytest.raises(ValueError, match="agnostic_iou"):
        FusionPostProcess(agnostic_iou=1.5)


def test_a_network_keeps_its_points_where_it_goes(tmp_path: Path) -> None:
    network = tiny_network()
    network.postprocess = FusionPostProcess(Decode(score_threshold=0.0))
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    with pytest.raises(CheckpointError, match="python train"):
        network.predict(image, operating_point="best_f1")
    (plain,) = network.predict(image)
    middle = float(plain.scores.median())
    half = Curve.from_text(Curve((middle,), (1,), (0,), 1).to_text(), 1)
    every = {category.name: half for category in TAXONOMY.detection_categories}
    post = network.postprocess
    known = ScoreCalibration(3, 0.5, {"raw": every, "fused": every}, passes=post.passes_text(None))
    post.load_calibration(known.to_dict(), TAXONOMY)
    network.save(tmp_path / "net")
    loaded = OCRNet.load(tmp_path / "net", trust="tests")
    for each in (network, loaded):
        (chosen,) = each.predict(image, operating_point="best_f1")
        assert torch.equal(chosen.scores, plain.scores[plain.scores >= middle * (1 - 1e-5)])
        assert 0 < len(chosen.scores) < len(plain.scores)
        (streamed,) = each.predict(image, stream=True, operating_point="best_f1")
        assert torch.equal(streamed.scores, chosen.scores)
        (named,) = each.predict(image, classes="disc")
        assert torch.equal(named.scores, plain.scores[plain.labels == 0])
        # The choice was for that call.
        assert torch.equal(each.predict(image)[0].scores, plain.scores)
        with pytest.warns(UserWarning, match="recall reached at most"):
            less = Curve((middle,), (1,), (0,), 2)
            each.postprocess.calibration = replace(known, curves={"raw": every | {"star": less}})  # type: ignore[assignment]
            each.predict(image, operating_point="recall=0.9")
    with pytest.raises(UsageError, match="no detection decoder"):
        tiny_network(detection=False).predict(image, classes=["disc"])
    damaged = (tmp_path / "net" / "network.json").read_text().replace('"images": 3', '"images": "many"')
    (tmp_path / "net" / "network.json").write_text(damaged)
    with pytest.raises(CheckpointError, match="calibration: these are not valid settings: expected a number"):
        OCRNet.load(tmp_path / "net", trust="tests")
