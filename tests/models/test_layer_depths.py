"""The layers of an encoder are those by which timm's own optimisers tell rates apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay

from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.training.optimizers import EncoderRates
from tests.helpers.builders import TinyEncoder

NAMES = ["test_resnet", "test_convnext", "test_efficientnet", "mobilenetv4_conv_small", "test_vit2", "test_maxvit"]


@pytest.mark.parametrize("name", NAMES)
def test_rates_are_those_of_timm(name: str, tmp_path: Path) -> None:
    model = timm.create_model(name)
    groups = param_groups_layer_decay(model, layer_decay=0.7)
    # Each weight is filled with its factor, and comes into the encoder by its name.
    with torch.no_grad():
        for group in groups:
            for parameter in group["params"]:
                parameter.fill_(group["lr_scale"])
    torch.save(model.state_dict(), tmp_path / "w.pt")
    encoder = TimmEncoder(name, str(tmp_path / "w.pt"))
    rates = EncoderRates(encoder, 0.5, 0.7)
    depths = rates.depths()
    assert len(set(depths.values())) > 3
    for own, parameter in encoder.named_parameters():
        if id(parameter) in depths:
            torch.testing.assert_close(torch.full_like(parameter, rates.factor(depths[id(parameter)]) / 0.5), parameter)
        else:
            assert not own.startswith("model."), own


def test_an_encoder_without_layers_or_without_weights() -> None:
    assert EncoderRates(TinyEncoder(), 0.5, 0.7).depths() == {}
    encoder = TinyEncoder()
    encoder.pretrained = True
    with pytest.raises(ValueError, match=r"model\.layer_decay: TinyEncoder names no layers"):
        EncoderRates(encoder, 0.5, 0.7).depths()
    assert EncoderRates(encoder, 0.5).factor(0) == 0.5
    for decay in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"model\.layer_decay: expected above 0 and at most 1"):
            EncoderRates(encoder, 0.5, decay)
