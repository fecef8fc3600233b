from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from ocrnet_pl.training.optimizers import FACTOR, EncoderRates, fuse_on_cpu, parameter_groups
from tests.helpers.whole_step import network_on


def trained(kind: type[Optimizer], fuse: bool, assigned: bool) -> list[torch.Tensor]:
    """Take steps on weights of which some lie channels last, with gradients of a backward pass or assigned ones."""
    random = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 4, 1))
    layers = layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    options: dict[str, Any] = {"momentum": 0.9} if kind is SGD else {}
    optimizer = kind(layers.parameters(), lr=0.01, weight_decay=0.1, **options)
    if fuse:
        fuse_on_cpu(optimizer)
        assert optimizer.param_groups[0]["fused"] is True
    for _ in range(5):
        optimizer.zero_grad()
        if assigned:
            for parameter in layers.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=random)
        else:
            layers(torch.rand(2, 3, 9, 9, generator=random)).square().mean().backward()
        optimizer.step()
    return [parameter.detach() for parameter in layers.parameters()]


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
@pytest.mark.parametrize("assigned", [False, True])
def test_the_fused_step_is_the_step(kind: type[Optimizer], assigned: bool) -> None:
    plain, fused = trained(kind, False, assigned), trained(kind, True, assigned)
    for one, other in zip(plain, fused, strict=True):
        torch.testing.assert_close(other, one)


def test_what_was_chosen_or_cannot_be_fused_stays() -> None:
    weights = [nn.Parameter(torch.ones(3))]
    for optimizer in (AdamW(weights, foreach=True), AdamW(weights, fused=False), RMSprop(weights)):
        before = dict(optimizer.param_groups[0])
        fuse_on_cpu(optimizer)
        assert optimizer.param_groups[0] == before


def test_the_new_pyramid_of_a_pretrained_transformer_learns_with_the_decoders() -> None:
    network = network_on("test_vit", (64, 64))
    groups = parameter_groups(network, nn.Module(), EncoderRates(network.encoder, 0.3))
    place = {id(p): group["name"] for group in groups for p in group["params"]}
    assert network.encoder.pyramid is not None
    assert {place[id(p)] for p in network.encoder.model.parameters()} == {"encoder", "encoder_no_decay"}
    assert {place[id(p)] for p in network.encoder.pyramid.parameters()} == {"decoders", "decoders_no_decay"}
    # At random weights, the encoder learns at their rate as well.
    for pretrained, factor in ((False, 1.0), (True, 0.3)):
        network.encoder.pretrained = pretrained
        groups = parameter_groups(network, nn.Module(), EncoderRates(network.encoder, 0.3, None))
        assert {group[FACTOR] for group in groups if FACTOR in group} == {factor}
