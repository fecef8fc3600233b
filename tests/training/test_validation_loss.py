"""The losses of a validation set, against the losses of one batch with all its images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ocrnet_pl.data.loading.collate import collate
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.losses.base import Loss
from ocrnet_pl.losses.one_to_one import OneToOneDetectionLoss
from ocrnet_pl.losses.regions import Lovasz
from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.models.detection import OneToOneDecoder
from ocrnet_pl.structures import Batch, Output, Supervision
from ocrnet_pl.training.validation_loss import ValidationLoss
from tests.training.test_task import PartlyLabelled, always, even, make_data, make_task, make_trainer


def batch_of(*indices: int) -> Batch:
    source = SyntheticSource(length=8, seed=3, size=64)
    samples = [source[index] for index in indices]
    return collate(samples, samples)


@torch.no_grad()
def test_parts_give_the_loss_of_one_batch_with_all_images() -> None:
    task = make_task(SyntheticSource(length=1).taxonomy).eval()
    whole = batch_of(*range(6))
    want = task.losses(task(whole.images), whole)[1]
    measured = ValidationLoss(task.detection_loss, task.segmentation_loss)
    for indices in ((0, 1, 2, 3), (4,), (5,)):
        batch = batch_of(*indices)
        measured.update(batch, task(batch.images))
    found = measured.compute()
    for name, value in want.items():
        torch.testing.assert_close(found[f"loss_{name}"], value)
    torch.testing.assert_close(found["loss_detection"], torch.stack([*task.terms["detection"].values()]).sum())
    torch.testing.assert_close(found["loss_segmentation"], torch.stack([*task.terms["segmentation"].values()]).sum())
    assert measured.compute() == {}, "the next validation begins anew"


@torch.no_grad()
def test_an_image_that_does_not_count_changes_nothing() -> None:
    task = make_task(SyntheticSource(length=1).taxonomy).eval()
    measured = ValidationLoss(task.detection_loss, task.segmentation_loss)
    batch = batch_of(0, 1)
    measured.update(batch, task(batch.images))
    want = measured.compute()
    batch = batch_of(0, 1, 2)
    none = Supervision.full(task.taxonomy, detection=False, semantic=False)
    batch.truths[2] = batch.truths[2].replace(supervision=none)
    measured.update(batch, task(batch.images))
    found = measured.compute()
    assert found.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(found[name], value)


@torch.no_grad()
def test_the_branch_that_is_kept_is_measured() -> None:
    loss = OneToOneDetectionLoss()
    task = make_task(SyntheticSource(length=1).taxonomy, detection=OneToOneDecoder, detection_loss=loss).eval()
    batch, measured = batch_of(0, 1), ValidationLoss(task.detection_loss, task.segmentation_loss)
    measured.update(batch, task(batch.images))
    assert {"loss_box", "loss_detection"} <= measured.compute().keys()
    task.train()
    assert "many_box" in task.losses(task(batch.images), batch)[1]


class Constant(Loss):
    """A loss with a way of its own."""

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        return {"one": output.semantic.mean() * 0 + 1}  # type: ignore[union-attr]


@torch.no_grad()
def test_terms_without_sums_are_means_and_foreign_losses_are_left_out() -> None:
    lovasz = SegmentationLoss(terms=[Lovasz()])
    task = make_task(SyntheticSource(length=1).taxonomy, segmentation_loss=lovasz).eval()
    measured, single = ValidationLoss(task.detection_loss, lovasz), []
    for indices in ((0, 1, 2), (3,)):
        batch = batch_of(*indices)
        output = task(batch.images)
        measured.update(batch, output)
        single.append(lovasz(output, batch)["lovasz"])
    torch.testing.assert_close(measured.compute()["loss_lovasz"], (3 * single[0] + single[1]) / 4)
    measured = ValidationLoss(task.detection_loss, Constant())
    measured.update(batch, output)
    assert not any("one" in name or "segmentation" in name for name in measured.compute())


@pytest.mark.parametrize(("boxes", "pixels"), [(always, even), pytest.param(even, always, marks=pytest.mark.slow)])
def test_a_run_logs_them_unless_switched_off(tmp_path: Path, boxes, pixels) -> None:
    source = PartlyLabelled(6, boxes, pixels)
    for switch in (True, False):
        trainer = make_trainer(tmp_path, max_epochs=1)
        trainer.fit(make_task(source.taxonomy, validation_loss=switch), make_data(source, source))
        logged = {name for name in trainer.logged_metrics if name.startswith("val/loss")}
        wanted = {"box", "confidence", "class", "dfl", "ce", "dice", "detection", "segmentation"}
        assert logged == ({f"val/loss_{name}" for name in wanted} if switch else set())
