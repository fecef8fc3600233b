"""A decoder of one's own may read what it likes: every weight gets a gradient, and values stay what they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import Tensor, nn

from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.models.base import Features, SegmentationDecoder, Shapes
from ocrnet_pl.models.detection import AnchorFreeDecoder
from ocrnet_pl.models.segmentation import SubPixelDecoder
from ocrnet_pl.models.unread import Unread
from ocrnet_pl.structures import DetectionOutput, Output, Taxonomy
from tests.helpers.processes import run_together
from tests.training.test_task import make_data, make_task, make_trainer


class OneMap(SegmentationDecoder):
    """Reads the neck's finest map alone, and not even all of its own weights."""

    def __init__(self, shapes: Shapes, taxonomy: Taxonomy) -> None:
        super().__init__()
        self.stride = shapes.strides[0]
        self.classify = nn.Conv2d(shapes.channels[0], taxonomy.num_semantic, 1)
        self.forgotten = nn.Conv2d(3, 3, 1)

    def forward(self, features: Features) -> tuple[Tensor, ...]:
        return (self.classify(features.maps[0]),)


class FinestOnly(AnchorFreeDecoder):
    """Sees nothing in all maps but the finest."""

    def forward(self, features: Sequence[Tensor]) -> DetectionOutput:
        return super().forward([features[0], *(torch.zeros_like(each) for each in features[1:])])


PARTS: dict[str, dict[str, Any]] = {
    "segmentation alone": {"detection": None, "segmentation": OneMap},
    "detection alone": {"detection": FinestOnly, "segmentation": None},
    "both": {"detection": FinestOnly, "segmentation": OneMap},
}


def step(task: Any) -> Output:
    torch.manual_seed(0)
    source = SyntheticSource(length=2, seed=5, size=64)
    data = make_data(source, source, batch_size=2)
    batch = next(iter(data.train_dataloader()))
    output: Output = task(batch.images)
    task.losses(output, batch)[0].backward()
    return output


@pytest.mark.parametrize("name", PARTS)
def test_every_weight_gets_a_gradient(name: str) -> None:
    task = make_task(SyntheticSource(length=1, size=64).taxonomy, **PARTS[name])
    # Also at the second step, for which nothing is looked for any more.
    for _ in range(2):
        task.zero_grad()
        step(task)
        assert [name for name, weight in task.network.named_parameters() if weight.grad is None] == []
    forgotten = [weight for name, weight in task.network.named_parameters() if "forgotten" in name]
    assert all(weight.grad is not None and not weight.grad.any() for weight in forgotten)


@pytest.mark.parametrize("name", PARTS)
def test_values_and_gradients_are_those_without(name: str) -> None:
    found = []
    for looks in (True, False):
        torch.manual_seed(1)
        task = make_task(SyntheticSource(length=1, size=64).taxonomy, **PARTS[name])
        if not looks:
            task.network._unread = Unread([], [])
        output = step(task)
        gradients = {key: weight.grad for key, weight in task.network.named_parameters()}
        first = output.semantic if output.semantic is not None else output.detection and output.detection.confidence
        found.append((first, gradients))
    (one, with_all), (other, without) = found
    assert one is not None and other is not None and torch.equal(one, other)
    assert any(gradient is None for gradient in without.values())
    for key, gradient in without.items():
        own = with_all[key]
        assert own is not None
        assert torch.equal(own, torch.zeros_like(own) if gradient is None else gradient), key


def test_the_projects_own_decoders_leave_nothing_unread() -> None:
    task = make_task(SyntheticSource(length=1, size=64).taxonomy)
    assert isinstance(task.network.segmentation, SubPixelDecoder)
    step(task)
    assert task.network._unread == Unread([], [])


def fit(folder: Path) -> dict[str, Tensor]:
    seed_everything(0, verbose=False)
    source = SyntheticSource(length=8, seed=5, size=64)
    task = make_task(source.taxonomy, **PARTS["segmentation alone"])
    trainer = make_trainer(folder, strategy="ddp", devices=2, limit_val_batches=0)
    # Two steps: it is at the second that a weight without a gradient stops the run.
    trainer.fit(task, make_data(source, source, batch_size=2))
    assert trainer.global_step == 2 and math.isfinite(float(trainer.callback_metrics["train/loss"]))
    return {name: weight.detach() for name, weight in task.named_parameters()}


def test_two_processes_train_a_decoder_that_reads_one_map(tmp_path: Path) -> None:
    first, second = run_together(tmp_path / "results", 2, fit, tmp_path)
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())
