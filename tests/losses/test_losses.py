from __future__ import annotations

import pytest
import torch
import torchvision

from ocrnet_pl.losses.assignment import CenterAssigner, TaskAlignedAssigner, resolve_conflicts
from ocrnet_pl.losses.base import Loss
from ocrnet_pl.losses.boxes import BoxLoss, CIoULoss, DIoULoss, GIoULoss, IoULoss, L1BoxLoss, MSEBoxLoss, paired_iou
from ocrnet_pl.losses.detection import QualityDetectionLoss, TutorialDetectionLoss, outside_crowds
from ocrnet_pl.losses.segmentation import SegmentationLoss, logits_at_input
from ocrnet_pl.structures import Batch, Output
from tests.helpers.builders import TAXONOMY, detected, make_batch, tiny_network

LOSSES: list[Loss] = [QualityDetectionLoss(), TutorialDetectionLoss(), SegmentationLoss()]


def random_boxes(count: int, seed: int) -> torch.Tensor:
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed)) * 50
    low, high = corners.amin(1), corners.amax(1)
    return torch.cat((low, high + 1), 1)


def test_paired_iou_is_the_diagonal_of_torchvisions() -> None:
    first, second = random_boxes(200, 0), random_boxes(200, 1)
    torch.testing.assert_close(paired_iou(first, second), torchvision.ops.box_iou(first, second).diagonal())


@pytest.mark.parametrize(
    ("own", "reference"),
    [
        (IoULoss(), lambda first, second: 1 - torchvision.ops.box_iou(first, second).diagonal()),
        (GIoULoss(), torchvision.ops.generalized_box_iou_loss),
        (DIoULoss(), torchvision.ops.distance_box_iou_loss),
        (CIoULoss(), torchvision.ops.complete_box_iou_loss),
    ],
)
def test_box_losses_equal_torchvisions_in_value_and_gradient(own, reference) -> None:
    first, second = random_boxes(200, 2), random_boxes(200, 3)
    a, b = first.clone().requires_grad_(), first.clone().requires_grad_()
    mine, theirs = own(a, second), reference(b, second)
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    mine.sum().backward()
    theirs.sum().backward()
    torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4)


def test_squared_error_of_boxes_by_hand() -> None:
    predicted, target = torch.tensor([[1.0, 2.0, 11.0, 24.0]]), torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    assert MSEBoxLoss()(predicted, target).item() == pytest.approx((0.01 + 0.01 + 0.01 + 0.04) / 4)
    assert L1BoxLoss()(predicted, target).item() == pytest.approx((0.1 + 0.1 + 0.1 + 0.2) / 4)


BOX_LOSSES: list[BoxLoss] = [IoULoss(), GIoULoss(), DIoULoss(), CIoULoss(), MSEBoxLoss(), L1BoxLoss()]


@pytest.mark.parametrize("loss", BOX_LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("target", [[0.0, 0, 0, 0], [5.0, 5, 5, 9], [2.0, 3, 40, 50]], ids=str)
@pytest.mark.parametrize("predicted", [[0.0, 0, 0, 0], [5.0, 5, 5, 9], [9.0, 9, 3, 3], [1e4, 1e4, 1e4, 1e4]], ids=str)
def test_box_losses_are_finite_for_empty_boxes(loss: BoxLoss, predicted: list[float], target: list[float]) -> None:
    box = torch.tensor([predicted], requires_grad=True)
    value = loss(box, torch.tensor([target])).sum()
    value.backward()
    assert value.isfinite()
    assert box.grad is not None
    assert box.grad.isfinite().all()
    # A side of a sliver is worth less than a hundred losses a pixel, but for the squares of far boxes.
    assert box.grad.abs().max() < 100 or isinstance(loss, MSEBoxLoss)


# CIoU's trade-off is a constant to its gradient, which is compared with torchvision's above.
@pytest.mark.parametrize(
    "loss", [part for part in BOX_LOSSES if type(part) is not CIoULoss], ids=lambda loss: type(loss).__name__
)
def test_gradients_of_box_losses(loss: BoxLoss) -> None:
    first, second = random_boxes(20, 4).double().requires_grad_(), random_boxes(20, 5).double()
    assert torch.autograd.gradcheck(lambda boxes: loss(boxes, second), (first,))


def test_logits_of_a_padded_input_are_cropped_not_squeezed() -> None:
    ramp = torch.arange(16.0).view(1, 1, 1, 16).expand(1, 1, 16, 16)
    full = logits_at_input(ramp, 4, (50, 61))
    assert full.shape[-2:] == (50, 61)
    # Pixel centre x + 0.5 lies at cell coordinate (x + 0.5) / 4 - 0.5.
    want = ((torch.arange(61) + 0.5) / 4 - 0.5).clamp(min=0)
    torch.testing.assert_close(full[0, 0, 7], want)


def naive_assignment(detection, batch: Batch, topk: int, alpha: float, beta: float) -> dict[tuple[int, int], int]:
    """Task-aligned assignment by loops over every candidate of the image."""
    claims: dict[tuple[int, int], tuple[float, int]] = {}
    for image in range(len(batch)):
        for row in range(batch.boxes.shape[1]):
            if not batch.valid[image, row]:
                continue
            box = batch.boxes[image, row]
            center = (box[:2] + box[2:]) / 2
            ranking = []
            for index, (point, stride) in enumerate(zip(detection.points, detection.strides, strict=True)):
                inside = bool((point > box[:2]).all() and (point < box[2:]).all())
                near = bool(((point - center).abs() <= stride / 2).all())
                if inside or near:
                    iou = torchvision.ops.box_iou(detection.boxes[image, index][None], box[None]).item()
                    score = detection.scores[image, index, batch.labels[image, row]].item()
                    ranking.append((score**alpha * iou**beta, -index, iou))
            for _, negative_index, iou in sorted(ranking, reverse=True)[:topk]:
                key = (image, -negative_index)
                if key not in claims or iou > claims[key][0]:
                    claims[key] = (iou, row)
    return {key: row for key, (_, row) in claims.items()}


def test_task_aligned_assignment_equals_a_naive_loop() -> None:
    batch = make_batch(
        [[[4, 4, 30, 28], [20, 18, 50, 60], [40.5, 2.2, 43.1, 5.0]], [[8, 30, 36, 60]]], [[0, 1, 2], [1]]
    )
    network = tiny_network()
    with torch.no_grad():
        detection = network(batch.images).detection
    # A window of 16 cells holds every candidate inside these boxes, so both see the same ones.
    got = TaskAlignedAssigner(topk=7, reach=16)(detection, batch)
    pairs = {
        (image, int(c)): int(r)
        for image in range(2)
        for c, r, p in zip(got.candidates[image], got.boxes[image], got.positive[image], strict=True)
        if p
    }
    assert pairs == naive_assignment(detection, batch, 7, 0.5, 6.0)
    assert {row for (image, _), row in pairs.items() if image == 0} == {0, 1, 2}


def test_a_candidate_that_two_boxes_want_goes_to_the_one_that_it_overlaps_more() -> None:
    """Two boxes side by side: the left one has the better metric, since its class is sure, the right one the IoU."""
    batch = make_batch([[[16, 16, 36, 36], [24, 16, 44, 36]]], [[0, 1]])
    detection = detected(batch)
    boxes, scores = torch.zeros_like(detection.boxes), torch.zeros_like(detection.scores)
    # It lies in both; of the left box it covers 14 columns, of the right one 18.
    wanted = int((detection.points - 30.0).abs().sum(-1).argmin())
    boxes[0, wanted] = torch.tensor([22.0, 16.0, 42.0, 36.0])
    scores[0, wanted, 0], scores[0, wanted, 1] = 1.0, 1e-3
    assert 1.0**0.5 * (14 / 26) ** 6 > 1e-3**0.5 * (18 / 22) ** 6
    got = TaskAlignedAssigner(topk=1)(detection._replace(boxes=boxes, scores=scores), batch)
    assert got.boxes[0][got.positive[0] & (got.candidates[0] == wanted)].tolist() == [1]


def test_quality_peaks_at_each_boxes_best_iou() -> None:
    batch = make_batch([[[4, 4, 30, 28], [34, 30, 60, 60]]], [[0, 1]])
    with torch.no_grad():
        detection = tiny_network()(batch.images).detection
    got = TaskAlignedAssigner()(detection, batch)
    for row in (0, 1):
        mine = (got.boxes[0] == row) & got.positive[0]
        boxes = detection.boxes[0][got.candidates[0][mine]]
        iou = torchvision.ops.box_iou(boxes, batch.boxes[0, row][None])
        assert got.quality[0][mine].max().item() == pytest.approx(iou.max().item(), abs=1e-5)


def test_conflicts_go_to_the_preferred_pair_and_the_first_on_a_tie() -> None:
    candidates = torch.tensor([[3, 3, 3, 1, 1]])
    positive = torch.tensor([[True, True, False, True, True]])
    preference = torch.tensor([[0.2, 0.5, 0.9, 0.4, 0.4]])
    kept = resolve_conflicts(candidates, positive, preference, 5)
    assert kept.tolist() == [[False, True, False, True, False]]


def test_center_assignment_by_hand() -> None:
    # A 16 x 16 box is four cells of stride 4: its level is the first, its centre cell row 4, column 4.
    batch = make_batch([[[10, 10, 26, 26]]], [[0]])
    with torch.no_grad():
        detection = tiny_network()(batch.images).detection
    got = CenterAssigner()(detection, batch)
    chosen = got.candidates[0][got.positive[0]]
    assert sorted(chosen.tolist()) == sorted(r * 16 + c for r in (3, 4, 5) for c in (3, 4, 5))


def test_crowd_regions_by_a_naive_loop() -> None:
    batch = make_batch([[[3, 5, 41, 22], [30, 20, 64, 64]]], [[0, 1]])
    batch.crowd[0, :2], batch.valid[0, :2] = True, False
    with torch.no_grad():
        detection = tiny_network()(batch.images).detection
    want = [
        not any(b[0] <= p[0] < b[2] and b[1] <= p[1] < b[3] for b in batch.boxes[0, :2].tolist())
        for p in detection.points.tolist()
    ]
    assert outside_crowds(detection, batch)[0].tolist() == want
    batch.crowd.zero_()
    tested = outside_crowds(detection, batch)
    batch.has_crowds = False
    assert torch.equal(outside_crowds(detection, batch), tested) and tested.all()
    assert 0 < sum(want) < len(want)


EMPTY_CASES = {
    "no boxes in one image": lambda b: b.valid[0].fill_(False),
    "no boxes in the batch": lambda b: b.valid.fill_(False),
    "only crowds": lambda b: (b.crowd.copy_(b.valid), b.valid.fill_(False)),
    "no labelled pixel": lambda b: b.semantic.fill_(255),
    "no task labelled": lambda b: (b.detection_classes.fill_(False), b.semantic_classes.fill_(False)),
    "nothing at all": lambda b: (b.valid.fill_(False), b.semantic.fill_(255)),
    "degenerate box": lambda b: b.boxes[0, 0].fill_(7.0),
}


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("case", EMPTY_CASES)
def test_every_empty_case_trains_on(case: str, loss: Loss) -> None:
    batch = make_batch([[[4, 4, 30, 28]], [[8, 8, 40, 40]]], [[0], [1]])
    EMPTY_CASES[case](batch)
    network = tiny_network()
    total = sum(loss(network(batch.images), batch).values())
    total.backward()
    assert total.isfinite()
    own = network.detection if isinstance(loss, QualityDetectionLoss | TutorialDetectionLoss) else network.segmentation
    assert own is not None
    for name, parameter in own.named_parameters():
        assert parameter.grad is not None, f"{name} fell out of the graph: DDP would hang"
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_an_unlabelled_task_gives_exactly_zero_gradient(loss: Loss) -> None:
    batch = make_batch([[[4, 4, 30, 28]], [[8, 8, 40, 40]]], [[0], [1]])
    batch.detection_classes.fill_(False)
    batch.semantic_classes.fill_(False)
    batch.valid.fill_(False)
    network = tiny_network()
    sum(loss(network(batch.images), batch).values()).backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.count_nonzero(g) == 0 for g in gradients)


@pytest.mark.parametrize("loss", [QualityDetectionLoss(), TutorialDetectionLoss()], ids=["quality", "tutorial"])
def test_an_unlabelled_detection_class_gives_exactly_zero_gradient(loss: Loss) -> None:
    batch = make_batch([[[4, 4, 30, 28]], [[8, 8, 40, 40]]], [[0], [1]])
    batch.detection_classes[:, 2] = False
    network = tiny_network()
    detection = network(batch.images).detection
    for tensor in (detection.classes, detection.confidence):
        tensor.retain_grad()
    sum(loss(Output(detection, None), batch).values()).backward()
    assert torch.count_nonzero(detection.classes.grad[..., 2]) == 0
    assert torch.count_nonzero(detection.classes.grad[..., :2]) > 0


def test_an_unlabelled_segmentation_class_gives_exactly_zero_gradient() -> None:
    batch = make_batch([[[4, 4, 30, 28]]], [[0]])
    batch.semantic_classes[:, 3] = False
    logits = torch.randn(1, TAXONOMY.num_semantic, 32, 32, requires_grad=True)
    sum(SegmentationLoss()(Output(None, logits, 2), batch).values()).backward()
    assert torch.count_nonzero(logits.grad[:, 3]) == 0
    assert torch.count_nonzero(logits.grad[:, :3]) > 0


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_losses_are_float32_under_autocast(loss: Loss) -> None:
    batch = make_batch([[[4, 4, 30, 28]]], [[0]])
    with torch.autocast("cpu", torch.bfloat16):
        terms = loss(tiny_network()(batch.images), batch)
    assert {t.dtype for t in terms.values()} == {torch.float32}


@pytest.mark.parametrize(
    "losses",
    [(LOSSES[0], LOSSES[2]), pytest.param((LOSSES[1], LOSSES[2]), marks=pytest.mark.slow)],
    ids=["default", "tutorial"],
)
def test_a_network_learns_one_batch(losses: tuple[Loss, Loss]) -> None:
    batch = make_batch([[[4, 4, 30, 28], [36, 30, 60, 62]], [[8, 8, 40, 40]]], [[0, 2], [1]])
    network = tiny_network()
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    history = []
    for _ in range(60):
        output = network(batch.images)
        total = sum(sum(loss(output, batch).values()) for loss in losses)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(total.item())
    assert history[-1] < 0.5 * history[0]
