"""Boxes placed and scored by those that suppression dropped: against a loop, by hand, and as part of decoding."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ocrnet_pl.inference.box_voting import Vote, score_by_vote, vote
from ocrnet_pl.inference.decode import Decode
from ocrnet_pl.structures import Placement
from tests.inference.test_inference import candidates


def iou_of(one: list[float], other: list[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared) if sum(areas) > shared else 0.0


def by_a_loop(kept: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float, width: float) -> Vote:
    found, votes = [], []
    table = boxes.double().tolist()
    for row in kept.tolist():
        sums, total = [0.0] * 4, 0.0
        for other, box in enumerate(table):
            iou = iou_of(table[row], box)
            if labels[row] == labels[other] and iou > overlap:
                weight = scores[other].item() * math.exp(-((1 - iou) ** 2) / width)
                total += weight
                sums = [s + weight * side for s, side in zip(sums, box, strict=True)]
        found.append([s / total for s in sums] if total else table[row])
        votes.append(total / scores[row].item() if total else 1.0)
    return Vote(torch.tensor(found), torch.tensor(votes))


def scattered(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 40
    boxes = torch.cat((low, low + 5 + 30 * torch.rand(count, 2, generator=generator)), 1)
    labels = torch.randint(0, 3, (count,), generator=generator)
    return boxes, torch.rand(count, generator=generator).sort(descending=True).values, labels


@pytest.mark.parametrize("count", [1, 20, 400])
@pytest.mark.parametrize(("overlap", "width"), [(0.6, 0.05), (0.2, 0.5), (0.0, 10.0)])
def test_it_is_the_weighted_mean_of_the_formula(count: int, overlap: float, width: float) -> None:
    boxes, scores, labels = scattered(count, count)
    kept = torch.arange(0, count, 2)
    expected = by_a_loop(kept, boxes, scores, labels, overlap, width)
    found = vote(kept, boxes, scores, labels, overlap, width)
    torch.testing.assert_close(found.boxes, expected.boxes)
    torch.testing.assert_close(found.votes, expected.votes)


def test_two_boxes_by_hand() -> None:
    """They share 8 x 10 of 120 pixels: an IoU of 2/3."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [2.0, 0, 12, 10]])
    (placed,), (votes,) = vote(torch.tensor([0]), boxes, torch.tensor([0.9, 0.6]), torch.tensor([1, 1]), 0.6, 0.1)
    weight = 0.6 * math.exp(-((1 / 3) ** 2) / 0.1)
    assert placed[0].item() == pytest.approx(2 * weight / (0.9 + weight))
    assert placed.tolist() == pytest.approx([placed[0].item(), 0, placed[0].item() + 10, 10])
    assert votes.item() == pytest.approx(1 + weight / 0.9)


def test_scores_by_hand() -> None:
    """Odds of 3 to 1 with four times the usual votes are 6 to 1, with a ninth of them 1 to 1."""
    scores = score_by_vote(torch.tensor([0.75, 0.75, 0.75, 1.0, 0.0]), torch.tensor([36.0, 9, 1, 1, 1]), 9.0)
    assert scores.tolist() == pytest.approx([6 / 7, 0.75, 0.5, 1, 0])


def test_boxes_that_agree_with_nothing_stay_as_they_are() -> None:
    """Another class, too small an overlap, or no area: bit by bit the same."""
    boxes = torch.tensor([[1 / 3, 0, 10, 10], [1.0, 0, 10, 10], [5.0, 0, 15, 10], [7.0, 7, 7, 9], [40.0, 40, 40, 40]])
    labels = torch.tensor([0, 1, 0, 0, 0])
    kept = torch.tensor([0, 3, 4])
    placed, votes = vote(kept, boxes, torch.full((5,), 0.5), labels, 0.6, 0.05)
    assert torch.equal(placed, boxes[kept])
    assert votes.tolist() == [1, 1, 1]


def test_nothing_gives_nothing() -> None:
    none = torch.zeros(0)
    boxes, votes = vote(none.long(), none.view(0, 4), none, none.long(), 0.6, 0.05)
    assert boxes.shape == (0, 4) and votes.shape == (0,)


def test_no_other_precision_rounds_it() -> None:
    boxes, scores, labels = scattered(100, 0)
    kept = torch.arange(10)
    with torch.autocast("cpu", torch.bfloat16):
        placed, _ = vote(kept, boxes + 4000, scores, labels, 0.3, 0.1)
    torch.testing.assert_close(placed - 4000, by_a_loop(kept, boxes, scores, labels, 0.3, 0.1).boxes, rtol=0, atol=2e-3)


@pytest.mark.parametrize("usual", [None, 1.5, 4000.0])
def test_decoding_places_and_scores_what_it_keeps(usual: float | None) -> None:
    boxes, scores, labels = scattered(200, 3)
    table = torch.zeros(200, 3)
    table[torch.arange(200), labels] = scores
    output = candidates(boxes[None], table[None])
    options = {"score_threshold": 0.2, "iou_threshold": 0.5, "max_detections": 30}
    (plain,) = Decode(**options, box_voting=None)(output, [Placement.identity((90, 90))])  # type: ignore[arg-type]
    (voted,) = Decode(**options, box_voting=0.2, usual_votes=usual)(output, [Placement.identity((90, 90))])  # type: ignore[arg-type]
    # Only boxes above the threshold of scores vote.
    voting = scores > 0.2
    kept = torch.tensor([next(i for i in range(200) if scores[i] == score) for score in plain.scores])
    expected = by_a_loop(kept, boxes[voting], scores[voting], labels[voting], 0.5, 0.2)
    wanted = []
    for row, box, count in zip(kept.tolist(), expected.boxes.tolist(), expected.votes.tolist(), strict=True):
        odds = scores[row].item() / (1 - scores[row].item()) * math.sqrt(count / usual if usual else 1)
        wanted.append((odds / (1 + odds), labels[row].item(), box))
    wanted = sorted((each for each in wanted if each[0] > 0.2), reverse=True)
    assert (len(wanted) < len(kept)) == (usual == 4000)
    assert voted.labels.tolist() == [label for _, label, _ in wanted]
    torch.testing.assert_close(voted.scores, torch.tensor([score for score, _, _ in wanted]))
    torch.testing.assert_close(voted.boxes, torch.tensor([box for _, _, box in wanted]))


@pytest.mark.parametrize("option", ["box_voting", "usual_votes"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_value_out_of_range_is_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"decode\.{option}: expected more than 0, or null for none"):
        Decode(**{option: value})  # type: ignore[arg-type]
