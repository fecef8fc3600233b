"""Probabilities, numbers of objects and the bound, against formulas, other libraries and simulated images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ocrnet_pl.calibration.box_outcomes import BoxOutcomes, ClassOutcomes
from ocrnet_pl.calibration.count_rules import count_rule
from ocrnet_pl.calibration.probability_fit import fit_beta, fit_temperature
from ocrnet_pl.calibration.risk_bound import Wager, bound_threshold
from ocrnet_pl.calibration.score_fit import fit_scores, map_scores
from ocrnet_pl.calibration.score_options import ScoreOptions
from ocrnet_pl.calibration.shares import Shares
from ocrnet_pl.inference.counting import CountRule, expected_counts, rule_table
from ocrnet_pl.inference.operating_points import OperatingPoint
from ocrnet_pl.inference.probabilities import Beta, features
from ocrnet_pl.inference.score_calibration import ScoreCalibration
from ocrnet_pl.metrics.reliability import Reliability
from tests.helpers.builders import TAXONOMY


def images_of(generator: np.random.Generator, count: int, miss: float = 0.1) -> ClassOutcomes:
    """Return images in which objects are hard or easy together: each has its own share of missed objects."""
    scores, hits, images = [], [], []
    objects = generator.integers(0, 12, count)
    for image, number in enumerate(objects):
        hard = generator.beta(miss * 2, (1 - miss) * 2)
        found = generator.random(number) > hard
        own = generator.beta(4, 1.5, int(found.sum()))
        alarms = generator.beta(1.2, 4, int(generator.poisson(2)))
        scores += [*own, *alarms]
        hits += [True] * len(own) + [False] * len(alarms)
        images += [image] * (len(own) + len(alarms))
    order = np.argsort(-np.array(scores), kind="stable")
    return ClassOutcomes(
        np.array(scores, np.float32)[order],
        np.array(hits)[order],
        np.array(images)[order],
        objects,
        np.ones(count, dtype=bool),
    )


def test_probabilities_are_those_of_a_logistic_regression() -> None:
    own = images_of(np.random.default_rng(0), 300)
    beta = fit_beta(own.scores, own.hits)
    assert beta is not None and beta.a > 0 and beta.b > 0
    linear = pytest.importorskip("sklearn.linear_model")
    given = features(torch.from_numpy(own.scores)).numpy()[:, :2]
    other = linear.LogisticRegression(C=math.inf, tol=1e-8, max_iter=1000).fit(given, own.hits)
    assert (beta.a, beta.b, beta.c) == pytest.approx((*other.coef_[0], other.intercept_[0]), rel=2e-3)


def test_a_map_never_turns_the_order_of_a_class_around() -> None:
    generator = np.random.default_rng(1)
    scores = np.sort(generator.random(400).astype(np.float32))[::-1].copy()
    # Most often right in the middle, and rarely so near 1: the best map with both weights would fall there.
    for chance in (np.where(scores > 0.8, 0.3, scores), scores, scores**3, np.sqrt(scores)):
        beta = fit_beta(scores, generator.random(400) < chance)
        assert beta is not None and min(beta.a, beta.b) >= 0
        own = ClassOutcomes(scores, scores > 0.5, np.zeros(400, np.int64), np.array([400]), np.array([True]))
        mapped = map_scores(own, beta).scores
        assert (np.diff(mapped) <= 0).all()
        assert len(np.unique(mapped)) > 390
    assert fit_beta(scores, generator.random(400) < 1 - scores) is None
    assert fit_beta(scores, scores > 0.99) is None
    # A score that separates hits from false alarms has no best map, but an end.
    beta = fit_beta(scores, scores > 0.5)
    assert beta is not None and all(map(math.isfinite, beta))
    assert map_scores(own, None).scores.tolist() == scores.tolist()


def test_temperature_undoes_logits_that_are_too_large() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 4, generator=generator) * 2
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    assert fit_temperature(logits * 3.7, labels) == pytest.approx(3.7, rel=0.05)
    best = fit_temperature(logits, labels)
    loss = {t: float(torch.nn.functional.cross_entropy(logits / t, labels)) for t in (0.97 * best, best, 1.03 * best)}
    assert min(loss, key=loss.get) == best  # type: ignore[arg-type]


def error_by_loops(probability: NDArray[np.float64], right: NDArray[np.bool_], bins: int) -> float:
    total = 0.0
    for number in range(bins):
        inside = [
            place
            for place, p in enumerate(probability)
            if number / bins < p <= (number + 1) / bins or (p == 0 and number == 0)
        ]
        if inside:
            total += abs(sum(probability[place] - right[place] for place in inside))
    return total / len(probability)


def test_the_calibration_error_is_that_of_plain_loops() -> None:
    generator = np.random.default_rng(2)
    probability = generator.random(500).round(2)
    right = generator.random(500) < probability**2
    for bins in (10, 15):
        found = Reliability.of(probability, right, bins)
        assert found.error == pytest.approx(error_by_loops(probability, right, bins), abs=1e-12)
        assert found.counts.sum() == 500
    assert Reliability.of(np.array([1.0, 0.9]), np.array([True, False]), 10).error == pytest.approx(0.45)
    assert math.isnan(Reliability.of(np.zeros(0), np.zeros(0, bool)).error)


def test_the_calibration_error_is_that_of_netcal() -> None:
    metrics = pytest.importorskip("netcal.metrics")
    generator = np.random.default_rng(3)
    probability = generator.random(700)
    right = generator.random(700) < probability**1.5
    expected = metrics.ECE(15).measure(probability, right)
    assert Reliability.of(probability, right).error == pytest.approx(expected, abs=1e-6)


def test_the_number_of_objects_by_hand() -> None:
    rules = rule_table([CountRule(0.8, 2.0), None, CountRule(1.0, None)])
    found = expected_counts(torch.tensor([0.9, 0.5, 0.2, 0.7]), torch.tensor([0, 0, 1, 2]), rules)
    expected = 1.4 / 0.8
    scale = math.sqrt((0.09 + 0.25 + 1.4 * 0.2) / 0.64 + 1)
    assert found[0].tolist() == pytest.approx([expected, 0, math.floor(expected + 2 * scale)])
    assert expected - 2 * scale < 0
    assert found[1].isnan().all()
    assert found[2, 0] == pytest.approx(0.7)
    assert found[2, 1:].isnan().all()


def test_intervals_contain_the_number_as_often_as_they_say() -> None:
    generator = np.random.default_rng(4)
    contained = []
    for _ in range(60):
        own = images_of(generator, 140)
        beta = fit_beta(*own.of_images(np.arange(60))[:2])
        assert beta is not None
        mapped = map_scores(own, beta)
        rule = count_rule(mapped, range(60), range(60, 100), 0.8)
        assert rule is not None and rule.margin is not None
        judged = mapped.of_images(np.arange(100, 140))
        rules = rule_table([rule] * 40)
        counts = expected_counts(torch.from_numpy(judged.scores), torch.from_numpy(judged.images), rules).numpy()
        contained += [*((counts[:, 1] <= judged.objects) & (judged.objects <= counts[:, 2]))]
    assert 0.77 <= np.mean(contained) < 0.88
    few = count_rule(mapped, range(60), range(60, 68), 0.9)
    assert few is not None and few.margin is None
    unknown = mapped._replace(known=np.arange(140) != 70)
    assert count_rule(unknown, range(60), range(60, 70), 0.9) is not None
    assert count_rule(mapped._replace(hits=np.zeros_like(mapped.hits)), range(60), range(60, 70), 0.9) is None


def misses(own: ClassOutcomes, score: float) -> float:
    return 1 - int(own.hits[own.scores >= score].sum()) / int(own.objects.sum())


def test_the_bound_holds_as_often_as_it_says_and_is_not_far_from_the_rate() -> None:
    generator = np.random.default_rng(5)
    world = images_of(generator, 4000)
    missed = []
    for _ in range(100):
        rows = generator.permutation(4000)[:200]
        wager = Wager.choose(world.of_images(rows[:70]), 0.25, 0.9)
        threshold = bound_threshold(world.of_images(rows[70:]), wager, 0.25, 0.9)
        assert threshold.refusal is None
        missed.append(misses(world, threshold.score))
    assert np.mean(np.array(missed) > 0.25) <= 0.1
    assert np.mean(missed) > 0.15


def test_the_capital_by_hand() -> None:
    # Two objects each, of which the second is found only with a low score: at 0.5 one of two is missed.
    images = 30
    own = ClassOutcomes(
        np.repeat(np.array([0.9, 0.3], np.float32), images),
        np.ones(2 * images, dtype=bool),
        np.tile(np.arange(images), 2),
        np.full(images + 5, 2) * (np.arange(images + 5) < images),
        np.ones(images + 5, dtype=bool),
    )
    wager = Wager(0.8, 2)
    # Nothing missed: each image multiplies the capital by 1 + 0.8 * 0.1 / 0.9.
    grown = images * math.log(1 + 0.8 * 0.1 / 0.9)
    safe = 1 - math.exp(-grown)
    assert bound_threshold(own, wager, 0.1, safe - 1e-9).score == pytest.approx(0.3, rel=1e-4)
    refused = bound_threshold(own, wager, 0.1, safe + 1e-4)
    assert refused.score == 0
    assert refused.refusal == (
        "30 calibration images that show it are too few, about 31 are needed (with all boxes it misses 0.0% of 60 "
        "objects); all its boxes are kept, without a promise"
    )
    # With one of two missed, a rate of 0.6 multiplies by 1 + 0.8 * 0.1 / 0.4.
    safe = 1 - math.exp(-images * math.log(1 + 0.8 * 0.1 / 0.4))
    assert bound_threshold(own, wager, 0.6, safe - 1e-9).score == pytest.approx(0.9, rel=1e-4)
    # An image counts as if it had no more than the most objects: two found ones of weight 1 / 2, for a bet on one.
    one = Wager(0.8, 1)
    safe = 1 - math.exp(-images * math.log(1 + 0.8 * 0.5 * 0.2 / 0.9))
    assert bound_threshold(own, one, 0.1, safe - 1e-9).refusal is None
    assert bound_threshold(own, one, 0.1, safe + 1e-4).refusal is not None
    half = own._replace(hits=own.scores > 0.5)
    never = bound_threshold(half, wager, 0.1, 0.9)
    kept = "all its boxes are kept, without a promise"
    assert never.refusal == f"even with all boxes it misses 50.0% of 60 objects; {kept}"
    assert Wager.choose(own._replace(objects=np.zeros_like(own.objects)), 0.1, 0.9) is None
    assert "too few" in str(bound_threshold(own, None, 0.1, 0.9).refusal)
    chosen = Wager.choose(own, 0.1, 0.9)
    assert chosen is not None and chosen.most == 2


def test_images_that_sign_choose_nothing_and_all_is_stored() -> None:
    ids = list(range(90))
    shares = Shares.of(ids, 0, True, True)
    assert sorted([*shares.chosen, *shares.held, *shares.signing]) == ids
    assert list(map(len, shares)) == [15, 15, 60]
    assert shares == Shares.of(ids, 0, True, True) != Shares.of(ids, 1, True, True)
    assert Shares.of(ids, 0, False, False) == (ids, [], [])
    assert Shares.of(ids, 0, False, False).judging == ids
    generator = np.random.default_rng(6)
    own = BoxOutcomes((images_of(generator, 90), images_of(generator, 90, 0.9), images_of(generator, 90)))
    options = ScoreOptions(True, 0.4, 0.9)
    scores, report = fit_scores({"raw": own, "fused": own}, shares, options, TAXONOMY)
    assert ScoreCalibration.from_dict(scores.to_dict(), TAXONOMY).bounds == scores.bounds
    assert ScoreCalibration.from_dict(scores.to_dict(), TAXONOMY).probabilities == scores.probabilities
    assert report.images == 75
    assert report.unmapped == ("square",) and "square" in str(report.unmapped_line())
    before, after = report.reliability["disc"]
    assert after.error < before.error
    # The bound is among the boxes' probabilities, and so are the curves.
    disc = map_scores(own.classes[0], scores.probabilities["raw"]["disc"])
    assert set(scores.curves["raw"]["disc"].scores) <= set(disc.scores.tolist())
    threshold, refused, _ = scores.thresholds("fused", OperatingPoint.parse("bound"), TAXONOMY)
    assert misses(disc, threshold.score) < 0.4 and threshold.refusal is None
    assert "even with all boxes" in str(refused.refusal)
    # The images that sign do not change what the others chose, nor the others the bound but by their wager.
    spoilt = own.classes[0]._replace(hits=own.classes[0].hits & ~np.isin(own.classes[0].images, shares.signing))
    again, _ = fit_scores({"raw": BoxOutcomes((spoilt, *own.classes[1:]))}, shares, options, TAXONOMY)
    assert again.probabilities["raw"]["disc"] == scores.probabilities["raw"]["disc"]
    assert again.bounds["raw"]["disc"].refusal is not None
    for name, value in (("miss_rate", 0.0), ("confidence", 1.0)):
        with pytest.raises(ValueError, match=name):
            ScoreOptions(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="does not rise"):
        plain = scores.to_dict()
        plain["probabilities"]["raw"]["disc"] = list(Beta(-1.0, 0.5, 0.0))
        ScoreCalibration.from_dict(plain, TAXONOMY)


def test_images_that_choose_do_not_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    shares, options = Shares.of(list(range(90)), 0, True, True), ScoreOptions(miss_rate=0.4)
    own = images_of(np.random.default_rng(7), 90)
    spoilt = own._replace(hits=own.hits & np.isin(own.images, shares.signing))
    monkeypatch.setattr(Wager, "choose", lambda *_: Wager(0.5, 11))
    whole, some = (
        fit_scores({"raw": BoxOutcomes((each,) * 3)}, shares, options, TAXONOMY)[0] for each in (own, spoilt)
    )
    assert whole.bounds == some.bounds
    assert whole.bounds["raw"]["disc"].refusal is None
