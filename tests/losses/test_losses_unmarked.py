"""What nobody marked teaches nothing: what lies in a crowd, and pixels of classes that an image has no labels for."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ocrnet_pl.losses.boundary import Boundary
from ocrnet_pl.losses.detection import DetectionLoss, QualityDetectionLoss, TutorialDetectionLoss
from ocrnet_pl.losses.pixels import CrossEntropy, Focal, OHEMCrossEntropy, PixelLoss
from ocrnet_pl.losses.regions import Dice, Lovasz, Tversky
from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.structures import IGNORE_INDEX, Batch, DetectionOutput, Output
from tests.helpers.builders import TAXONOMY, detected, make_batch

CROWD = (22.0, 10.0, 62.0, 61.0)


def in_box(detection: DetectionOutput, box: tuple[float, ...]) -> torch.Tensor:
    rows = [box[0] <= x < box[2] and box[1] <= y < box[3] for x, y in detection.points.tolist()]
    return torch.tensor(rows)


@pytest.mark.parametrize(
    "loss", [QualityDetectionLoss(), TutorialDetectionLoss()], ids=lambda loss: type(loss).__name__
)
def test_candidates_in_a_crowd_are_no_background(loss: DetectionLoss) -> None:
    # The first image's object lies outside the crowd, the second's in the middle of it.
    objects = [(2.0, 2.0, 18.0, 20.0), (34.0, 28.0, 50.0, 44.0)]
    batch = make_batch([[[*objects[0]], [*CROWD]], [[*objects[1]], [*CROWD]]], [[0, 1], [2, 1]])
    batch.crowd[:, 1], batch.valid[:, 1] = True, False
    detection = detected(batch)
    sum(loss(Output(detection, None), batch).values()).backward()
    assert detection.confidence.grad is not None and detection.classes.grad is not None
    confidence, classes = detection.confidence.grad != 0, (detection.classes.grad != 0).any(-1)
    crowd = in_box(detection, CROWD)
    assert 0 < crowd.sum() < len(crowd)
    # Outside, each candidate learns that it is an object or that it is none.
    assert confidence[:, ~crowd].all()
    assert not confidence[0, crowd].any() and not classes[0, crowd].any()
    # Inside, only those that an object was assigned to learn.
    found = in_box(detection, objects[1])
    assert confidence[1, found].any() and classes[1, found].any()
    assert not confidence[1, crowd & ~found].any() and not classes[1, crowd & ~found].any()


TERMS: list[PixelLoss] = [CrossEntropy(), OHEMCrossEntropy(), Focal(), Dice(), Tversky(), Lovasz(), Boundary()]


def partly_labelled() -> tuple[Batch, int]:
    """A batch whose second image has pixels of a class that it was not labelled for; return that class as well."""
    batch = make_batch([[[4, 4, 30, 28]], [[36, 30, 60, 62], [4, 4, 20, 20]]], [[0], [2, 1]])
    unlabelled = TAXONOMY.detection_to_semantic[2]
    batch.semantic_classes[1, unlabelled] = False
    return batch, unlabelled


def random_logits() -> torch.Tensor:
    return torch.randn(2, TAXONOMY.num_semantic, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)
def test_labels_of_an_unlabelled_class_are_no_targets(term: PixelLoss) -> None:
    batch, unlabelled = partly_labelled()
    logits, auxiliary = random_logits(), random_logits()
    got = sum(SegmentationLoss([term])(Output(None, logits, 1, (auxiliary,)), batch).values())
    there = (batch.semantic == unlabelled) & ~batch.semantic_classes[:, unlabelled, None, None]
    assert there.any()
    got.backward()
    for part in (logits, auxiliary):
        assert part.grad is not None
        taught = (part.grad != 0).any(1)
        assert not taught[there].any()
        assert taught[~there].any()
    batch.semantic[there] = IGNORE_INDEX
    want = sum(SegmentationLoss([term])(Output(None, logits, 1, (auxiliary,)), batch).values())
    torch.testing.assert_close(got, want, atol=0, rtol=0)


def test_cross_entropy_of_a_partly_labelled_batch_by_torch_without_the_class() -> None:
    batch, unlabelled = partly_labelled()
    logits = random_logits()
    (got,) = SegmentationLoss([CrossEntropy()])(Output(None, logits, 1), batch).values()
    kept = [c for c in range(TAXONOMY.num_semantic) if c != unlabelled]
    target = batch.semantic[1].clone()
    for new, old in enumerate(kept):
        target[batch.semantic[1] == old] = new
    target[batch.semantic[1] == unlabelled] = IGNORE_INDEX
    sums = [
        F.cross_entropy(logits[:1], batch.semantic[:1], reduction="sum"),
        F.cross_entropy(logits[1:, kept], target[None], ignore_index=IGNORE_INDEX, reduction="sum"),
    ]
    count = batch.semantic[0].numel() + int((target != IGNORE_INDEX).sum())
    torch.testing.assert_close(got, sum(sums) / count)
