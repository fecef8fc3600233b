from __future__ import annotations

import pytest
import torch

from ocrnet_pl.structures import Category, Placement, Prediction, Supervision, Taxonomy
from tests.helpers.builders import make_batch


def test_indices_follow_the_order_stuff_first() -> None:
    taxonomy = Taxonomy.build(things=["car", "person"], stuff=["road"])
    assert [c.name for c in taxonomy.semantic_categories] == ["road", "car", "person"]
    assert [c.name for c in taxonomy.detection_categories] == ["car", "person"]
    assert taxonomy.detection_to_semantic == (1, 2)


def test_a_class_may_be_detected_only_or_segmented_only() -> None:
    taxonomy = Taxonomy.build(things=["sign", "car"], stuff=["road"], detected=["sign"], segmented=["road", "car"])
    assert (taxonomy.num_detection, taxonomy.num_semantic) == (1, 2)
    assert taxonomy.detection_to_semantic == (-1,)


def test_colors_differ() -> None:
    taxonomy = Taxonomy.build(things=[f"t{i}" for i in range(60)])
    assert len({c.color for c in taxonomy.categories}) == 60


def test_plain_form_survives_a_checkpoint(tmp_path) -> None:
    taxonomy = Taxonomy.build(things=["car"], stuff=["road"], detected=["car"])
    torch.save({"taxonomy": taxonomy.to_dict()}, tmp_path / "t.pt")
    assert Taxonomy.from_dict(torch.load(tmp_path / "t.pt", weights_only=True)["taxonomy"]) == taxonomy


def test_bad_taxonomies_are_refused() -> None:
    with pytest.raises(ValueError, match="'car' occurs more than once"):
        Taxonomy.build(things=["car", "car"])
    with pytest.raises(ValueError, match="detection indices"):
        Taxonomy((Category("a", True, (0, 0, 0), 1, None),))
    with pytest.raises(ValueError, match="256 segmentation classes"):
        Taxonomy.build(things=[str(i) for i in range(256)])


def test_supervision_of_one_task() -> None:
    taxonomy = Taxonomy.build(things=["car"], stuff=["road"])
    supervision = Supervision.full(taxonomy, semantic=False)
    assert supervision.detection.tolist() == [True]
    assert supervision.semantic.tolist() == [False, False]


def test_masks_are_the_rows_of_the_instance_map() -> None:
    instances = torch.tensor([[0, 1], [2, 2]], dtype=torch.int32)
    prediction = Prediction(torch.zeros(2, 4), torch.ones(2), torch.zeros(2).long(), instances=instances)
    assert prediction.masks is not None
    assert prediction.masks.tolist() == [[[False, True], [False, False]], [[False, False], [True, True]]]


def test_a_batch_moves_all_its_tensors() -> None:
    batch = make_batch([[[0, 0, 9, 9]]], [[0]])
    moved = batch.to("meta")
    tensors = [v for v in vars(moved).values() if isinstance(v, torch.Tensor)]
    assert len(tensors) == 8
    assert all(t.is_meta for t in tensors)
    assert moved.placements == [Placement.identity((64, 64))]
