"""Batches: padding, what counts as a box to find, and supervision."""

from __future__ import annotations

import pytest
import torch

from ocrnet_pl.data.loading.collate import collate
from ocrnet_pl.data.records import make_sample
from ocrnet_pl.structures import Sample, Supervision, Taxonomy

TAXONOMY = Taxonomy.build(things=["a", "b", "c"], stuff=["ground"])


def _blank(height: int, width: int) -> Sample:
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    return make_sample(image, boxes=[], labels=[], crowd=[], supervision=Supervision.full(TAXONOMY))


def test_collate_pads_and_sorts_out() -> None:
    sample = make_sample(
        torch.zeros(3, 32, 32, dtype=torch.uint8),
        boxes=[[0, 0, 10, 10], [4, 4, 8, 4.5], [1, 1, 30, 30]],
        labels=[0, 1, 2],
        crowd=[False, False, True],
        supervision=Supervision.full(TAXONOMY, semantic=False),
    )
    many = sample.replace(
        boxes=sample.boxes[[0] * 9], labels=sample.labels[[0] * 9], crowd=torch.zeros(9, dtype=torch.bool)
    )
    batch = collate([sample, sample.replace(supervision=Supervision.full(TAXONOMY, detection=False)), many])
    assert batch.boxes.shape == (3, 16, 4) and batch.labels.dtype == torch.int64
    assert batch.valid[0].nonzero().flatten().tolist() == [0]
    assert batch.crowd[0].nonzero().flatten().tolist() == [1, 2]  # half a pixel high, and the crowd
    assert batch.valid.sum(1).tolist() == [1, 0, 9] and (batch.boxes[0, 3:] == 0).all()
    assert batch.semantic.dtype == torch.uint8 and (batch.semantic == 255).all()
    assert batch.detection_classes.tolist() == [[True] * 3, [False] * 3, [True] * 3]
    assert batch.semantic_classes.tolist() == [[False] * 4, [True] * 4, [False] * 4]
    assert batch.truths == [] and batch.placements[0].scale == (1.0, 1.0)


def test_a_box_of_one_pixel_is_a_target_and_a_thinner_one_is_not() -> None:
    sample = make_sample(
        torch.zeros(3, 32, 32, dtype=torch.uint8),
        boxes=[[4, 4, 5, 5], [4, 4, 5, 20], [4, 4, 20, 5], [4, 4, 4.99, 20], [4, 4, 20, 4.99]],
        labels=[0] * 5,
        crowd=[False] * 5,
        supervision=Supervision.full(TAXONOMY),
    )
    batch = collate([sample])
    assert batch.valid[0, :5].tolist() == [True, True, True, False, False]
    assert batch.crowd[0, :5].tolist() == [False, False, False, True, True]


def test_collate_refuses_mixed_sizes() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        collate([_blank(20, 20), _blank(20, 24)])
    with pytest.raises(ValueError, match="no samples"):
        collate([])
