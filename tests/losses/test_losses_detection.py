"""The parts of the detection losses: scores, distributions, and the branch of one candidate a box."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ocrnet_pl.balancing.methods import Uncertainty
from ocrnet_pl.losses.assignment import TaskAlignedAssigner
from ocrnet_pl.losses.base import Loss
from ocrnet_pl.losses.boxes import CIoULoss, L1BoxLoss
from ocrnet_pl.losses.detection import (
    QualityDetectionLoss,
    TutorialDetectionLoss,
    distribution_focal_loss,
    keep_in_graph,
)
from ocrnet_pl.losses.one_to_one import OneToOneDetectionLoss
from ocrnet_pl.losses.scores import BCEScore, FocalScore, MSEScore, QualityFocalScore, VarifocalScore
from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.structures import Batch, DetectionOutput, Output
from tests.helpers.builders import detected, make_batch, tiny_network

BINS = 5


def batch_of_two() -> Batch:
    return make_batch([[[4, 4, 30, 28], [36, 30, 60, 62]], [[8, 8, 40, 40]]], [[0, 2], [1]])


def with_distribution(detection: DetectionOutput) -> DetectionOutput:
    shape = (*detection.boxes.shape, BINS)
    return detection._replace(distribution=torch.randn(shape, generator=torch.Generator().manual_seed(1)))


def grad(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    assert tensor.grad is not None
    return tensor.grad


def test_distribution_by_hand() -> None:
    logits = torch.tensor([0.3, -1.0, 2.0, 0.5])
    log = logits.log_softmax(0).tolist()
    target = torch.tensor([0.0, 1.25, 2.9, 3.0, -4.0, 17.0])
    want = [
        -log[0],
        -0.75 * log[1] - 0.25 * log[2],
        -0.1 * log[2] - 0.9 * log[3],
        -log[3],
        -log[0],
        -log[3],
    ]
    assert distribution_focal_loss(logits.expand(6, 4), target).tolist() == pytest.approx(want, rel=1e-5)


def test_gradients_of_the_distribution() -> None:
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    target = torch.linspace(-0.5, 3.5, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: distribution_focal_loss(x, target), (logits,))


def test_the_distribution_term_by_a_loop() -> None:
    batch = batch_of_two()
    detection = with_distribution(detected(batch))
    loss = QualityDetectionLoss(distribution_weight=0.7)
    terms = loss(Output(detection, None), batch)
    assignment = loss.assigner(detection, batch)
    total, weight = 0.0, 0.0
    for image in range(2):
        for pair in assignment.positive[image].nonzero().flatten().tolist():
            candidate, row = assignment.candidates[image, pair], assignment.boxes[image, pair]
            x, y = detection.points[candidate].tolist()
            x1, y1, x2, y2 = batch.boxes[image, row].tolist()
            quality = assignment.quality[image, pair].item()
            sides = 0.0
            for side, distance in enumerate((x - x1, y - y1, x2 - x, y2 - y)):
                place = min(max(distance / detection.strides[candidate].item(), 0.0), BINS - 1)
                log = detection.distribution[image, candidate, side].log_softmax(0).tolist()
                left = min(int(place), BINS - 2)
                sides -= (left + 1 - place) * log[left] + (place - left) * log[left + 1]
            total, weight = total + quality * sides / 4, weight + quality
    assert assignment.positive.sum() > 10
    assert terms["dfl"].item() == pytest.approx(0.7 * total / max(weight, 1.0), rel=1e-4)
    assert "dfl" not in loss(Output(detection._replace(distribution=None), None), batch)


def test_outputs_whose_sums_overflow_keep_the_graph_with_a_zero() -> None:
    detection = detected(batch_of_two())
    halves = [torch.full(t.shape, 300.0).half().requires_grad_() for t in detection[:3]]
    assert all(half.sum().isinf() for half in halves)
    zero = keep_in_graph(detection._replace(boxes=halves[0], confidence=halves[1], classes=halves[2]))
    zero.backward()
    assert zero == 0
    assert all(not grad(half).any() for half in halves)


class NoCopies(TorchFunctionMode):
    """Refuses tensors made of Python's numbers: on a GPU each is a copy that the step waits for."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        assert func not in (torch.tensor, torch.as_tensor, Tensor.new_tensor)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("loss", [QualityDetectionLoss(), TutorialDetectionLoss(), SegmentationLoss()])
def test_a_step_copies_no_numbers_to_the_device(loss: Loss) -> None:
    batch, network, balancing = batch_of_two(), tiny_network(), Uncertainty()
    with NoCopies():
        total = sum(loss(network(batch.images), batch).values())
        balancing(total, 0.0).backward()


def test_the_default_scores_are_quality_focal_with_a_square() -> None:
    batch = batch_of_two()
    detection = detected(batch)
    loss = QualityDetectionLoss(confidence_weight=1.0)
    terms = loss(Output(detection, None), batch)
    assignment = loss.assigner(detection, batch)
    quality = torch.zeros_like(detection.classes)
    for image in range(2):
        for pair in assignment.positive[image].nonzero().flatten().tolist():
            label = batch.labels[image, assignment.boxes[image, pair]]
            quality[image, assignment.candidates[image, pair], label] = assignment.quality[image, pair]
    score = detection.classes.sigmoid()
    entropy = -(quality * score.log() + (1 - quality) * (1 - score).log())
    want = (entropy * (quality - score) ** 2).sum() / quality.sum().clamp(min=1.0)
    torch.testing.assert_close(terms["class"], want)


SCORES = [BCEScore(), FocalScore(), VarifocalScore(), QualityFocalScore(), MSEScore()]


@pytest.mark.parametrize("score", SCORES, ids=lambda score: type(score).__name__)
@pytest.mark.parametrize("box_loss", [CIoULoss(), L1BoxLoss()], ids=lambda loss: type(loss).__name__)
def test_any_scores_honour_the_supervision(score, box_loss) -> None:
    batch = batch_of_two()
    batch.detection_classes[:, 2] = False
    batch.valid[0, 1] = False
    loss = QualityDetectionLoss(confidence_loss=score, class_loss=score, box_loss=box_loss)
    detection = detected(batch)
    total = sum(loss(Output(detection, None), batch).values())
    total.backward()
    assert total.isfinite()
    assert torch.count_nonzero(grad(detection.classes)[..., 2]) == 0
    assert torch.count_nonzero(grad(detection.classes)[..., :2]) > 0
    positives = loss.assigner(detection, batch).positive.sum()
    assert 0 < torch.count_nonzero(grad(detection.confidence)) <= positives  # background teaches nothing here


@pytest.mark.parametrize("loss", [QualityDetectionLoss(), TutorialDetectionLoss()], ids=["quality", "tutorial"])
def test_without_boxes_a_distribution_stays_in_the_graph_with_zero_gradient(loss: Loss) -> None:
    batch = batch_of_two()
    batch.valid.fill_(False)
    detection = with_distribution(detected(batch))
    assert detection.distribution is not None
    detection.distribution.requires_grad_()
    sum(loss(Output(detection, None), batch).values()).backward()
    assert torch.count_nonzero(grad(detection.distribution)) == 0
    assert torch.count_nonzero(grad(detection.boxes)) == 0


def test_both_branches_learn_each_from_its_own_assignment() -> None:
    batch = batch_of_two()
    one, many = detected(batch), detected(batch, seed=3)
    loss = OneToOneDetectionLoss()
    terms = loss(Output(one._replace(one_to_many=many), None), batch)
    names = ["box", "confidence", "class", "dfl"]
    assert list(terms) == [*names, *(f"many_{name}" for name in names)]
    for prefix, branch, topk in (("", one, 1), ("many_", many, 10)):
        alone = QualityDetectionLoss(TaskAlignedAssigner(topk=topk))(Output(branch, None), batch)
        for name, value in alone.items():
            torch.testing.assert_close(terms[prefix + name], value, atol=0, rtol=0)
    sum(terms.values()).backward()
    taught = [(grad(branch.boxes).abs().sum(-1) > 0).sum().item() for branch in (one, many)]
    assert taught[0] <= 3 < taught[1]
    assert taught[0] > 0


@pytest.mark.parametrize("case", ["no boxes", "unlabelled"])
def test_the_empty_cases_of_both_branches(case: str) -> None:
    batch = batch_of_two()
    batch.valid.fill_(False)
    if case == "unlabelled":
        batch.detection_classes.fill_(False)
    one, many = detected(batch), detected(batch, seed=3)
    total = sum(OneToOneDetectionLoss()(Output(one._replace(one_to_many=many), None), batch).values())
    total.backward()
    assert total.isfinite()
    for branch in (one, many):
        assert torch.count_nonzero(grad(branch.boxes)) == 0
        learned = torch.count_nonzero(grad(branch.classes)) + torch.count_nonzero(grad(branch.confidence))
        assert (learned == 0) == (case == "unlabelled")


def test_a_loss_that_does_not_fit_the_decoder_says_what_to_set() -> None:
    batch = batch_of_two()
    one = detected(batch)
    with pytest.raises(
        ValueError, match=r"set model.detection to one, or model.detection_loss to QualityDetectionLoss"
    ):
        OneToOneDetectionLoss()(Output(one, None), batch)
    for loss in (QualityDetectionLoss(), TutorialDetectionLoss()):
        with pytest.raises(ValueError, match=r"set model.detection_loss to OneToOneDetectionLoss"):
            loss(Output(one._replace(one_to_many=detected(batch)), None), batch)
    assert OneToOneDetectionLoss()(Output(None, None), batch) == {}


@pytest.mark.parametrize(
    ("kind", "backend"),
    [
        (TutorialDetectionLoss, "eager"),
        pytest.param(OneToOneDetectionLoss, "eager", marks=pytest.mark.slow),
        (SegmentationLoss, "aot_eager"),
    ],
)
def test_traces_whole(kind: type[Loss], backend: str) -> None:
    batch = batch_of_two()
    one = with_distribution(detected(batch))
    many = detected(batch, seed=3) if kind is OneToOneDetectionLoss else None
    logits = torch.randn(2, 5, 16, 16)
    output = Output(one._replace(one_to_many=many), logits, 4, (logits,))
    loss = kind()
    want = loss(output, batch)
    got = torch.compile(loss, fullgraph=True, backend=backend)(output, batch)
    torch.compiler.reset()
    assert list(got) == list(want)
    for name, value in want.items():
        assert math.isclose(got[name].item(), value.item(), rel_tol=1e-5, abs_tol=1e-6), name
