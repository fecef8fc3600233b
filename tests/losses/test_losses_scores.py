"""Losses of confidence and class scores against torchvision's and hand-computed values."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from torch.nn import functional as F

from ocrnet_pl.losses.scores import BCEScore, FocalScore, MSEScore, QualityFocalScore, ScoreLoss, VarifocalScore

LOSSES: list[ScoreLoss] = [
    BCEScore(),
    FocalScore(),
    FocalScore(None, 1.5),
    VarifocalScore(),
    QualityFocalScore(),
    MSEScore(),
]


def test_focal_equals_torchvisions() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(50) * 3, torch.rand(50)
    for own, alpha, gamma in ((FocalScore(), 0.25, 2.0), (FocalScore(0.6, 1.0), 0.6, 1.0), (FocalScore(None), -1, 2.0)):
        torch.testing.assert_close(
            own(logits, target), torchvision.ops.sigmoid_focal_loss(logits, target, alpha, gamma)
        )


def test_cross_entropy_equals_torchs() -> None:
    logits, target = torch.tensor([-2.0, 0.0, 3.0]), torch.tensor([0.0, 0.3, 1.0])
    want = F.binary_cross_entropy(logits.sigmoid(), target, reduction="none")
    torch.testing.assert_close(BCEScore()(logits, target), want)


@pytest.mark.parametrize(("logit", "target"), [(-1.2, 0.0), (0.4, 0.0), (0.3, 0.7), (-2.0, 1.0)])
def test_values_by_the_papers_formulas(logit: float, target: float) -> None:
    p = 1 / (1 + math.exp(-logit))
    entropy = -(target * math.log(p) + (1 - target) * math.log(1 - p))
    given = torch.tensor([logit]), torch.tensor([target])
    varifocal = target * entropy if target > 0 else -0.6 * p**1.5 * math.log(1 - p)
    assert VarifocalScore(0.6, 1.5)(*given).item() == pytest.approx(varifocal, rel=1e-5)
    assert QualityFocalScore(1.5)(*given).item() == pytest.approx(abs(target - p) ** 1.5 * entropy, rel=1e-5)
    assert MSEScore()(*given).item() == pytest.approx((p - target) ** 2, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_gradients(loss: ScoreLoss) -> None:
    logits = torch.linspace(-4, 4, 15, dtype=torch.float64).requires_grad_()
    target = torch.linspace(0, 1, 5, dtype=torch.float64).repeat(3)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), (logits,))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_extremes_are_finite_and_a_perfect_score_costs_nothing(loss: ScoreLoss) -> None:
    logits = torch.tensor([-200.0, 200.0, -200.0, 200.0, 0.0], requires_grad=True)
    target = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.5])
    value = loss(logits, target)
    value.sum().backward()
    assert value.shape == logits.shape
    assert value.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert torch.count_nonzero(value[:2]) == 0
    assert torch.count_nonzero(logits.grad[:2]) == 0
    assert (value[2:4] > 0).all()


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: FocalScore(gamma=0.5), "FocalScore: gamma is 0.5"),
        (lambda: FocalScore(alpha=1.5), "FocalScore: alpha is 1.5"),
        (lambda: VarifocalScore(alpha=-1), "VarifocalScore: alpha is -1"),
        (lambda: VarifocalScore(gamma=0), "VarifocalScore: gamma is 0"),
        (lambda: QualityFocalScore(0.9), "QualityFocalScore: exponent is 0.9"),
    ],
)
def test_a_wrong_argument_is_named(build, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()
