"""The necks against independent references."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork

from ocrnet_pl.models.base import Neck
from ocrnet_pl.models.necks import BiFPNNeck, FeaturePyramidNeck, PathAggregationNeck, WeightedFusion

NECKS: list[type[Neck]] = [FeaturePyramidNeck, PathAggregationNeck, BiFPNNeck]
CHANNELS, STRIDES = [6, 8, 12, 16, 20], [2, 4, 8, 16, 32]


def encoder_maps(height: int = 96, width: int = 160, batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randn(batch, c, height // s, width // s, generator=generator)
        for c, s in zip(CHANNELS, STRIDES, strict=True)
    ]


def randomised(neck: nn.Module) -> nn.Module:
    """Give every parameter and statistic a value of its own, so that no two terms can stand for one another."""
    torch.manual_seed(7)
    for name, value in neck.state_dict().items():
        if value.is_floating_point():
            # Variances and weights of a fusion are positive.
            positive = "var" in name or (name.endswith("weight") and value.numel() <= 3)
            value.copy_(torch.rand_like(value) + 0.5 if positive else torch.randn_like(value) * 0.3)
    return neck.eval()


@pytest.mark.parametrize("kind", NECKS)
@pytest.mark.parametrize("finest", [2, 4, 8, 32])
def test_one_width_at_every_kept_stride(kind: type[Neck], finest: int) -> None:
    neck = kind(CHANNELS, STRIDES, width=16, finest=finest)
    # 3 x 5 cells of the coarsest map: odd at stride 32.
    maps = neck(encoder_maps())
    assert neck.strides == [s for s in STRIDES if s >= finest]
    assert neck.channels == [16] * len(neck.strides)
    assert [tuple(m.shape) for m in maps] == [(2, 16, 96 // s, 160 // s) for s in neck.strides]


@pytest.mark.parametrize("kind", NECKS)
def test_every_parameter_gets_a_gradient(kind: type[Neck]) -> None:
    neck = kind(CHANNELS, STRIDES, width=8)
    sum(m.square().mean() for m in neck(encoder_maps())).backward()
    for name, parameter in neck.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # Normalisation's scale and shift stand behind everything, so no gradient may vanish.
        assert parameter.grad.any(), name


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind is not PathAggregationNeck)) for kind in NECKS]
)
def test_compiles_and_exports(kind: type[Neck]) -> None:
    neck = randomised(kind(CHANNELS, STRIDES, width=8))
    maps = encoder_maps()
    with torch.no_grad():
        want = neck(maps)
        torch._dynamo.reset()
        compiled = torch.compile(neck, fullgraph=True, backend="eager")(maps)
        exported = torch.export.export(neck, (maps,)).module()(maps)
    torch.testing.assert_close(compiled, want)
    torch.testing.assert_close(exported, want)


@pytest.mark.parametrize("kind", NECKS)
def test_of_several_maps_of_a_stride_the_last_is_read(kind: type[Neck]) -> None:
    neck = randomised(kind([6, 8, 12, 16], [4, 8, 16, 16], width=8))
    maps = [torch.randn(1, c, 32 // s * 4, 32 // s * 4) for c, s in zip([6, 8, 12, 16], [4, 8, 16, 16], strict=True)]
    assert neck.strides == [4, 8, 16]
    with torch.no_grad():
        first = neck(maps)
        maps[2] = torch.zeros_like(maps[2])
        torch.testing.assert_close(neck(maps), first, atol=0, rtol=0)
        maps[3] = torch.zeros_like(maps[3])
        assert not torch.equal(neck(maps)[0], first[0])


@pytest.mark.parametrize("kind", NECKS)
def test_a_neck_needs_a_map(kind: type[Neck]) -> None:
    with pytest.raises(ValueError, match="finest=64"):
        kind(CHANNELS, STRIDES, finest=64)


def test_bifpn_needs_a_layer() -> None:
    with pytest.raises(ValueError, match="repeats is 0"):
        BiFPNNeck(CHANNELS, STRIDES, repeats=0)


def test_the_feature_pyramid_equals_torchvisions() -> None:
    neck = randomised(FeaturePyramidNeck(CHANNELS, STRIDES, width=16))
    theirs = FeaturePyramidNetwork(CHANNELS[1:], 16, norm_layer=nn.BatchNorm2d).eval()
    for blocks, own in ((theirs.inner_blocks, neck.lateral), (theirs.layer_blocks, neck.smooth)):
        for block, convolution in zip(blocks, own, strict=True):
            block.load_state_dict(convolution.state_dict())
    maps = encoder_maps()
    with torch.no_grad():
        want = theirs(OrderedDict((str(i), m) for i, m in enumerate(maps[1:])))
        got = neck(maps)
    for own, other in zip(got, want.values(), strict=True):
        torch.testing.assert_close(own, other)


def fused_by_hand(fusion: WeightedFusion, maps: list[Tensor]) -> Tensor:
    """Equation 3 of the paper, one number at a time, then the layers by their functions."""
    weights = [max(float(w), 0.0) for w in fusion.weight]
    mixed = torch.zeros_like(maps[0])
    for weight, feature in zip(weights, maps, strict=True):
        mixed += weight / (1e-4 + sum(weights)) * feature
    mixed = mixed * torch.sigmoid(mixed)
    _, depthwise, (pointwise, norm) = fusion.convolve
    mixed = F.conv2d(mixed, depthwise.weight, padding=1, groups=mixed.shape[1])
    mixed = F.conv2d(mixed, pointwise.weight)
    return F.batch_norm(mixed, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def test_bifpn_equals_the_paper_by_hand() -> None:
    neck = randomised(BiFPNNeck(CHANNELS, STRIDES, width=8, repeats=2))
    for module in neck.modules():
        if isinstance(module, WeightedFusion):
            # Of both signs: a negative one counts as zero.
            module.weight.data = torch.tensor([0.7, 1.9, -0.4][: len(module.weight)])
    maps = encoder_maps()
    with torch.no_grad():
        got = neck(maps)
        p2, p3, p4, p5 = (lateral(m) for lateral, m in zip(neck.lateral, maps[1:], strict=True))

        def up(x: Tensor) -> Tensor:
            return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

        def down(x: Tensor) -> Tensor:
            padded = F.pad(x, (1, 1, 1, 1), value=-torch.inf)
            windows = padded.unfold(2, 3, 2).unfold(3, 3, 2)
            return windows.amax((-2, -1))

        for layer in neck.layers:
            t4 = fused_by_hand(layer.top_down[2], [p4, up(p5)])
            t3 = fused_by_hand(layer.top_down[1], [p3, up(t4)])
            o2 = fused_by_hand(layer.top_down[0], [p2, up(t3)])
            o3 = fused_by_hand(layer.bottom_up[0], [p3, t3, down(o2)])
            o4 = fused_by_hand(layer.bottom_up[1], [p4, t4, down(o3)])
            o5 = fused_by_hand(layer.bottom_up[2], [p5, down(o4)])
            p2, p3, p4, p5 = o2, o3, o4, o5
    for own, by_hand in zip(got, (p2, p3, p4, p5), strict=True):
        torch.testing.assert_close(own, by_hand)


@pytest.mark.parametrize("groups", [1, 2])
def test_path_aggregation_by_hand(groups: int) -> None:
    neck = randomised(PathAggregationNeck(CHANNELS, STRIDES, width=8, groups=groups))
    maps = encoder_maps()

    def up(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def top_down(x: Tensor, level: int) -> Tensor:
        conv, norm, _ = neck.top_down[level]
        # Each group sees its own channels only.
        parts = zip(x.chunk(groups, 1), conv.weight.chunk(groups), strict=True)
        x = torch.cat([F.conv2d(part, weight, padding=1) for part, weight in parts], 1)
        return F.silu(F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps))

    with torch.no_grad():
        got = neck(maps)
        p2, p3, p4, p5 = (lateral(m) for lateral, m in zip(neck.lateral, maps[1:], strict=True))
        p4 = top_down(p4 + up(p5), 2)
        p3 = top_down(p3 + up(p4), 1)
        o2 = top_down(p2 + up(p3), 0)
        o3 = neck.bottom_up[0](p3 + neck.down[0](o2))
        o4 = neck.bottom_up[1](p4 + neck.down[1](o3))
        o5 = neck.bottom_up[2](p5 + neck.down[2](o4))
    for own, by_hand in zip(got, (o2, o3, o4, o5), strict=True):
        torch.testing.assert_close(own, by_hand)


@pytest.mark.parametrize("groups", [0, 3, -2])
def test_groups_divide_the_width(groups: int) -> None:
    with pytest.raises(ValueError, match=f"groups is {groups}, which does not divide width=8"):
        PathAggregationNeck(CHANNELS, STRIDES, width=8, groups=groups)


def test_more_repeats_are_more_layers() -> None:
    counts = [sum(p.numel() for p in BiFPNNeck(CHANNELS, STRIDES, width=8, repeats=n).parameters()) for n in (1, 2, 3)]
    assert counts[2] - counts[1] == counts[1] - counts[0] > 0
