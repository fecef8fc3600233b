"""The operators of a graph in torch, where random scenes rarely show a mistake."""

from __future__ import annotations

import torch
from torchvision.ops import nms

from ocrnet_pl.export.operators import best, non_max_suppression


def test_of_equal_values_the_earlier_comes_first() -> None:
    values = torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0, 1.0]])
    found, places = best(values, 6)
    assert places.tolist() == [[1, 2, 4, 3, 0, 5]]
    assert found.tolist() == [[3.0, 3.0, 3.0, 2.0, 1.0, 1.0]]
    assert best(values, 4)[1].tolist() == [[1, 2, 4, 3]]


def test_a_suppressed_box_suppresses_no_other() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(3, 200, 2, generator=generator) * 30
    boxes = torch.cat((low, low + 10 + 4 * torch.rand(3, 200, 2, generator=generator)), 2)
    # A row of boxes, each of which overlaps the next one.
    boxes[0, :50] = torch.tensor([0.0, 0.0, 10.0, 10.0]) + 3 * torch.arange(50)[:, None] * torch.tensor([1, 0, 1, 0])
    scores = torch.rand(3, 1, 200, generator=generator)
    scores[0, 0, :50] = torch.linspace(1, 0.5, 50)
    for threshold in (0.3, 0.5):
        limits = torch.tensor([200]), torch.tensor([threshold]), torch.tensor([0.2])
        kept = non_max_suppression(boxes, scores, *limits)
        assert (kept[:, 1] == 0).all()
        for image, (own, score) in enumerate(zip(boxes, scores[:, 0], strict=True)):
            there = (score > 0.2).nonzero()[:, 0]
            wanted = there[nms(own[there], score[there], threshold)]
            found = kept[kept[:, 0] == image, 2]
            assert sorted(found.tolist()) == sorted(wanted.tolist())
            assert 0 < len(wanted) < len(there)
