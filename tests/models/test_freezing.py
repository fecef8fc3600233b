"""Frozen stages do not move, cost no backward pass, and train from the given time on."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import AdamW

from ocrnet_pl.models.encoder import TimmEncoder

NAMES = ["test_resnet", "test_efficientnet", "test_convnext", "test_vit2"]


def step(encoder: TimmEncoder, optimizer: AdamW, epoch: int, at: int) -> list[Tensor]:
    """Take a training step as a task does, and return the maps."""
    encoder.begin_step(epoch, at)
    maps = encoder(torch.rand(2, 3, 96, 96))
    torch.stack([each.square().mean() for each in maps]).sum().backward()
    encoder.hold_still()
    optimizer.step()
    optimizer.zero_grad()
    return maps


def moved(encoder: TimmEncoder, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_they_begin_to_train_at_the_given_time(name: str, unit: str) -> None:
    torch.manual_seed(0)
    encoder = TimmEncoder(name, frozen_stages=2, unfreeze_at={unit: 2}).train()
    whole = set(dict(encoder.named_parameters()))
    forever = TimmEncoder(name, frozen_stages=2)
    frozen = {key for key, weight in forever.named_parameters() if not weight.requires_grad}
    assert frozen and frozen < whole
    assert all(weight.requires_grad for weight in encoder.parameters())
    optimizer = AdamW(encoder.parameters(), lr=0.1, weight_decay=0.5)
    start = {key: value.clone() for key, value in encoder.state_dict().items()}
    other = copy.deepcopy(encoder)
    for at in range(2):
        maps = step(encoder, optimizer, *((at, 0) if unit == "epoch" else (9, at)))
        assert maps[0].grad_fn is None or name == "test_vit2"
    changed = moved(encoder, start)
    statistics = {key for key in start if "running_" in key}
    assert changed & whole == whole - frozen
    of_frozen = {key for key in statistics if key.rpartition(".")[0] + ".weight" in frozen}
    assert changed & statistics == statistics - of_frozen
    maps = step(encoder, optimizer, *((2, 0) if unit == "epoch" else (0, 2)))
    assert all(each.grad_fn is not None for each in maps)
    # What a norm adds behind a weight that is 0 at first has no gradient yet, and no decay.
    assert moved(encoder, start) >= {key for key in frozen if not key.endswith("bias")} | statistics
    # A copy of before, such as that of the averaged weights, has a state of its own.
    assert (other.frozen.modules and other.train()(torch.rand(1, 3, 96, 96))[0].grad_fn is None) or name == "test_vit2"


@pytest.mark.slow
def test_a_compiled_encoder_is_compiled_once_more() -> None:
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.manual_seed(0)
    torch._dynamo.reset()
    encoder = TimmEncoder("test_resnet", frozen_stages=2, unfreeze_at={"step": 3}).train()
    encoder.compile(backend=backend, dynamic=False, fullgraph=True)
    optimizer = AdamW(encoder.parameters(), lr=0.1, weight_decay=0.5)
    start = {key: value.clone() for key, value in encoder.state_dict().items()}
    for at, count in enumerate([1, 1, 1, 2, 2]):
        step(encoder, optimizer, 0, at)
        assert len(graphs) == count
        first = encoder.model.conv1[0].weight
        assert torch.equal(first, start["model.conv1.0.weight"]) == (at < 3)


@pytest.mark.parametrize(
    ("stages", "until", "message"),
    [
        (2, {"minute": 3}, "expected an epoch or a step, such as .epoch: 3. or .step: 500., got .'minute': 3."),
        (2, {"step": 3, "epoch": 1}, "expected an epoch or a step"),
        (2, {}, "expected an epoch or a step"),
        (2, {"step": -1}, "expected an epoch or a step"),
        (0, {"step": 1}, "no stages are frozen; set frozen_stages"),
        (9, None, "frozen_stages is 9, the model 5 stages deep"),
    ],
)
def test_what_cannot_be_is_refused(stages: int, until: dict[str, int] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimmEncoder("test_resnet", frozen_stages=stages, unfreeze_at=until)
