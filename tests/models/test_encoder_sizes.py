"""Encoders of every kind at every size, or one line that says which size they take."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from torch.nn import functional as F

from ocrnet_pl.errors import DataError
from ocrnet_pl.models.encoder import TimmEncoder
from tests.helpers.project import ROOT
from tests.helpers.whole_step import check_maps, check_prediction, network_on, take_step

PAGE = (ROOT / "docs" / "encoders.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| [\d.]+ \| ([\d, ]+) \| ([^|]+) \|$", re.MULTILINE)
TABLE = {
    name: ([int(stride) for stride in strides.split(", ")], size.strip()) for name, strides, size in ROW.findall(PAGE)
}
"""Strides and input size of the models in the page's table."""

SMALL = ("test_vit", "eva02_tiny_patch14_224", "xcit_nano_12_p8_224", "test_vit_relpos", "test_coatnet", "test_maxvit")
COARSE = "efficientvit_m0"
"""A network whose maps begin at stride 16."""
EVEN, ODD = (224, 224), (193, 227)


def check(name: str, kind: str, even: tuple[int, int], odd: tuple[int, int]) -> list[int]:
    """Train and predict at both sizes as far as a model of this kind takes them, and return its strides."""
    if kind == "any":
        network = network_on(name, even)
        for size in (even, odd):
            take_step(network, size)
        check_maps(network.encoder, (256, 128))
    elif kind in ("of the run", "of the run, square"):
        network = network_on(name, even)
        take_step(network, even)
        with pytest.raises(DataError, match=r"takes images of \d+x\d+ only"):
            network(torch.zeros(1, 3, 256, 448))
        square = kind != "of the run"
        if square:
            with pytest.raises(ValueError, match=r"set data.size to \d+, data.scales to \[1.0\]"):
                network_on(name, odd)
            odd = (250, 250)
        network = network_on(name, odd)
        take_step(network, odd)
        check_maps(network.encoder, network.encoder.fixed_size)
    else:
        own = (int(kind), int(kind))
        with pytest.raises(
            ValueError, match=rf"takes images of {kind}x{kind} only, not 321x400; set data.size to {kind}"
        ):
            network_on(name, (321, 400))
        network = network_on(name, own)
        take_step(network, own)
        check_maps(network.encoder, own)
    check_prediction(network)
    return network.encoder.strides


@pytest.mark.parametrize("name", [*SMALL, COARSE])
def test_a_small_encoder_of_each_kind_trains_and_predicts(name: str) -> None:
    strides, kind = TABLE[name]
    assert check(name, kind, (96, 96), (70, 100)) == strides


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_an_encoder_trains_and_predicts(name: str) -> None:
    strides, kind = TABLE[name]
    assert check(name, kind, EVEN, ODD) == strides


def test_the_table_has_many_models_and_all_kinds() -> None:
    assert len(TABLE) >= 60 and set(SMALL) <= set(TABLE)
    assert {kind for _, kind in TABLE.values()} > {"any", "of the run", "of the run, square"}


@pytest.mark.parametrize(("name", "scaled"), [("test_vit", (96, 128)), ("eva02_tiny_patch14_224", (84, 112))])
def test_the_pyramid_reads_blocks_at_even_distances_of_a_whole_number_of_patches(
    name: str, scaled: tuple[int, int]
) -> None:
    encoder = TimmEncoder(name).eval()
    whole = timm.create_model(name, dynamic_img_size=True, num_classes=0).eval()
    own = {key.removeprefix("model."): value for key, value in encoder.model.state_dict().items()}
    whole.load_state_dict(own, strict=False)
    read: list[list[torch.Tensor]] = []
    encoder.pyramid.register_forward_pre_hook(lambda module, inputs: read.append(list(inputs[1])))
    image = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        encoder(image)
        depth = len(whole.blocks)
        blocks = [depth // 4 - 1, depth // 2 - 1, 3 * depth // 4 - 1, depth - 1]
        resized = F.interpolate(image, scaled, mode="bilinear", align_corners=False)
        want = whole.forward_intermediates(resized, indices=blocks, intermediates_only=True)
    assert [tuple(each.shape[2:]) for each in read[0]] == [(6, 8)] * 4
    for got, expected in zip(read[0], want, strict=True):
        torch.testing.assert_close(got, expected)


def test_what_is_in_one_place_stays_there_in_the_pyramid() -> None:
    encoder = TimmEncoder("test_vit").eval()
    torch.manual_seed(0)
    maps = [torch.zeros(1, 64, 4, 6) for _ in range(4)]
    image = torch.zeros(1, encoder_channels := 3, 64, 96)
    with torch.no_grad():
        before = encoder.pyramid(image, maps)
        for each in maps:
            each[0, :, 2, 3] = torch.randn(64)
        image[0, :encoder_channels, 36:44, 52:60] = 1.0
        after = encoder.pyramid(image, maps)
    for old, new, stride in zip(before, after, encoder.strides, strict=True):
        change = (new - old).abs().sum((0, 1))
        rows, columns = (change > 0.02 * change.max()).nonzero().unbind(1)
        # Token (2, 3) covers the rows from 32 to 48 and the columns from 48 to 64, and one 3 x 3 kernel more.
        assert (
            rows.min() * stride >= 32 - 2 * stride
            and (rows.max() + 1) * stride <= max(48, 64 if stride == 32 else 48) + 2 * stride
        )
        assert columns.min() * stride >= 32 - 2 * stride and (columns.max() + 1) * stride <= 64 + 2 * stride


def test_a_network_that_begins_at_stride_16_keeps_its_maps_behind_finer_ones() -> None:
    encoder = TimmEncoder(COARSE).eval()
    own = timm.create_model(COARSE, features_only=True).eval()
    own.load_state_dict(encoder.model.state_dict())
    image = torch.rand(1, 3, 128, 192)
    with torch.no_grad():
        maps, want = encoder(image), own(image)
        darker = encoder(image * 0.5)
    assert encoder.strides == [4, 8, 16, 32, 64] and encoder.channels[2:] == own.feature_info.channels()
    for got, expected in zip(maps[2:], want, strict=True):
        torch.testing.assert_close(got, expected)
    for level, stride in zip(maps[:2], (4, 8), strict=True):
        assert level.shape[2:] == (128 // stride, 192 // stride)
    assert all(not torch.equal(one, other) for one, other in zip(maps, darker, strict=True))
    assert {id(p) for p in encoder.new_parameters()} == {id(p) for p in encoder.parameters()} - {
        id(p) for p in encoder.model.parameters()
    }


def test_weights_of_another_size_are_resampled_or_the_size_is_named(tmp_path) -> None:
    for name in ("test_coatnet", "gmlp_ti16_224"):
        torch.save(timm.create_model(name).state_dict(), tmp_path / f"{name}.pt")
    assert TimmEncoder("test_coatnet", str(tmp_path / "test_coatnet.pt"), input_size=(96, 130)).fixed_size == (96, 160)
    # As a forged file may say it.
    assert TimmEncoder("test_coatnet", input_size=65_536).fixed_size == TimmEncoder("test_coatnet").fixed_size
    mixer = TimmEncoder("gmlp_ti16_224", str(tmp_path / "gmlp_ti16_224.pt"), input_size=320)
    assert mixer.fixed_size == (224, 224)


def test_recomputed_blocks_of_a_transformer_give_the_same_gradients() -> None:
    torch.manual_seed(0)
    kept, again = TimmEncoder("test_vit"), TimmEncoder("test_vit", checkpointing=True)
    again.load_state_dict(kept.state_dict())
    image = torch.rand(2, 3, 64, 64)
    for encoder in (kept, again):
        torch.stack([each.square().mean() for each in encoder.train()(image)]).sum().backward()
    for one, other in zip(kept.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.slow
def test_a_plain_transformer_exports_and_compiles() -> None:
    encoder = TimmEncoder("test_vit").eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        want = encoder(image)
        exported = torch.export.export(encoder, (image,)).module()(image)
        # Dynamo's own backend runs the traced graph as it is.
        compiled = torch.compile(encoder, backend="eager", fullgraph=True, dynamic=False)(image)
    for got in (exported, compiled):
        for one, other in zip(got, want, strict=True):
            torch.testing.assert_close(one, other)
