from __future__ import annotations

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from ocrnet_pl.losses.base import compiled_measure, joint_terms
from ocrnet_pl.losses.detection import QualityDetectionLoss
from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.structures import Batch
from tests.helpers.builders import make_batch, tiny_network


def gradients(checkpointing: bool) -> list[torch.Tensor]:
    torch.manual_seed(0)
    encoder = TimmEncoder("test_resnet", checkpointing=checkpointing)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    sum(m.square().mean() for m in encoder(images)).backward()
    return [p.grad for p in encoder.parameters() if p.grad is not None]


def test_gradients_are_the_same_with_checkpointing() -> None:
    kept, anew = gradients(False), gradients(True)
    assert len(kept) == len(anew) > 0
    for a, b in zip(kept, anew, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("name", "frozen"),
    [("test_resnet", 0), ("test_efficientnet", 2), pytest.param("regnetx_002", 0, marks=pytest.mark.slow)],
)
def test_statistics_of_norms_move_once_a_step(name: str, frozen: int) -> None:
    def statistics(checkpointing: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        encoder = TimmEncoder(name, checkpointing=checkpointing, frozen_stages=frozen, drop_path=0.0)
        # Building one leaves no trace of the run that it was tried in.
        fresh = {key: value.clone() for key, value in encoder.named_buffers() if "running" in key}
        assert all(torch.equal(value, torch.full_like(value, float("var" in key))) for key, value in fresh.items())
        encoder.train()
        random = torch.Generator().manual_seed(1)
        for _ in range(3):
            maps = encoder(torch.rand(2, 3, 64, 64, generator=random))
            torch.stack([each.square().mean() for each in maps]).sum().backward()
        return {key: value for key, value in encoder.named_buffers() if "running" in key}

    kept, anew = statistics(False), statistics(True)
    assert kept.keys() == anew.keys()
    for key, value in kept.items():
        torch.testing.assert_close(anew[key], value, msg=key)


def test_a_model_that_cannot_be_checkpointed_is_named(monkeypatch) -> None:
    def refuse(self: torch.nn.Module, enable: bool = True) -> None:
        raise AssertionError("no checkpointing here")

    monkeypatch.setattr("timm.models._features.FeatureDictNet.set_grad_checkpointing", refuse)
    with pytest.raises(ValueError, match="cannot checkpoint 'resnet18'"):
        TimmEncoder("resnet18", checkpointing=True)


@pytest.mark.parametrize(
    ("measuring", "sizes"),
    [
        (False, [(64, 64)]),
        pytest.param(False, [(64, 64), (64, 96)], marks=pytest.mark.slow),
        pytest.param(True, [(64, 64), (64, 96)], marks=pytest.mark.slow),
    ],
)
def test_each_size_is_compiled_once_and_gives_the_same_gradients(measuring: bool, sizes: list[tuple[int, int]]) -> None:
    torch._dynamo.reset()
    eager, compiled = tiny_network(), tiny_network()
    names = list(compiled.state_dict())
    counter = CompileCounter()
    compiled.compile_parts(counter)
    for _ in range(2):
        for height, width in sizes:
            images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
            for network in (eager, compiled):
                network.split.measuring = measuring
                network.zero_grad()
                output = network(images)
                loss = output.detection.scores.sigmoid().mean() + output.detection.boxes.mean() / 64
                (loss + output.semantic.square().mean()).backward()
            for a, b in zip(eager.parameters(), compiled.parameters(), strict=True):
                if a.grad is None:
                    assert b.grad is None
                else:
                    torch.testing.assert_close(a.grad, b.grad)
    # Encoder, neck and two decoders, for each size; fullgraph makes a break an error.
    assert counter.frame_count == 4 * len(sizes)
    assert list(compiled.state_dict()) == names
    assert list(copy.deepcopy(compiled).state_dict()) == names


@pytest.mark.parametrize(
    "sizes", [[(64, 64)] * 2, pytest.param([(64, 64), (64, 96), (64, 64), (64, 96)], marks=pytest.mark.slow)]
)
def test_the_losses_are_one_graph_a_size_however_many_boxes_there_are(sizes: list[tuple[int, int]]) -> None:
    torch._dynamo.reset()
    network, losses = tiny_network(), [QualityDetectionLoss(), SegmentationLoss()]
    counter = CompileCounter()
    measure = compiled_measure(counter)
    for turn, size in enumerate(sizes):
        batch = make_batch([[[4.0, 6.0, 40.0, 50.0]], []], [[1], []], size, rows=8 * (turn + 1), seed=turn)
        batch.has_crowds = False
        output = network(batch.images)
        for mine, eager in zip(
            joint_terms(losses, output, batch, measure), joint_terms(losses, output, batch), strict=True
        ):
            for name, value in eager.items():
                torch.testing.assert_close(mine[name], value)
    assert counter.frame_count == len(set(sizes))


@pytest.mark.slow
def test_a_training_step_is_one_graph_a_size() -> None:
    """Network, assignment and losses together; boxes in one image, none in the other."""
    torch._dynamo.reset()
    network, detection, segmentation = tiny_network(), QualityDetectionLoss(), SegmentationLoss()

    def loss(batch: Batch) -> torch.Tensor:
        output = network(batch.images)
        return sum((detection(output, batch) | segmentation(output, batch)).values())  # type: ignore[return-value]

    counter = CompileCounter()
    compiled = torch.compile(loss, backend=counter, fullgraph=True, dynamic=False)
    sizes = [(64, 64), (64, 96), (64, 64), (64, 96)]
    for turn, size in enumerate(sizes):
        batch = make_batch([[[4.0, 6.0, 40.0, 50.0], [20.0, 20.0, 60.0, 60.0]], []], [[0, 2], []], size, seed=turn)
        gradients = []
        for step in (loss, compiled):
            network.zero_grad()
            step(batch).backward()
            gradients.append([parameter.grad for parameter in network.parameters()])
        for eager, traced in zip(*gradients, strict=True):
            torch.testing.assert_close(eager, traced)
    assert counter.frame_count == len(set(sizes))
