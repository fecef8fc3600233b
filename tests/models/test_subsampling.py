"""Strided convolutions of one pixel on few channels, which oneDNN's backward pass would write past the end for."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from timm.layers import Conv2dSame
from timm.layers.std_conv import StdConv2d
from timm.models.byobnet import MobileOneBlock, RepVggBlock
from timm.utils.model import reparameterize_model
from torch import Tensor, nn
from torch.nn import functional as F

from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.models.detection import AnchorFreeDecoder
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.models.necks import PathAggregationNeck
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.models.subsampling import subsample_first
from tests.helpers.builders import TAXONOMY
from tests.helpers.processes import run_together

STEMS = {"repvgg_a0": 1, "mobileone_s0": 1, "fastvit_t8": 1}
"""Models with such a stem, and how many of the convolutions each has."""


def guarded(convolution: nn.Conv2d) -> nn.Conv2d:
    network = nn.Sequential(convolution).to(memory_format=torch.channels_last)
    subsample_first(network)
    # Without this, what follows may end the process.
    assert convolution.stride == (1, 1)
    return convolution


def network_of(name: str) -> OCRNet:
    torch.manual_seed(0)
    neck = lambda channels, strides: PathAggregationNeck(channels, strides, width=8)  # noqa: E731
    return OCRNet(TAXONOMY, TimmEncoder(name), neck, AnchorFreeDecoder, None, FusionPostProcess(), (64, 64))


def image(channels: int, size: tuple[int, int]) -> Tensor:
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(channels))


@pytest.mark.parametrize("stride", [(2, 2), (3, 3), (1, 2), (3, 1)])
@pytest.mark.parametrize("channels", [*range(1, 9), 15])
def test_values_and_gradients_are_those_of_the_plain_convolution(channels: int, stride: tuple[int, int]) -> None:
    """Sizes that the stride divides are those that oneDNN fails at; the others end in the middle of a step."""
    torch.manual_seed(0)
    convolution = guarded(nn.Conv2d(channels, 20, 1, stride))
    for size in ((48, 36), (31, 47), (1, 2)):
        given = image(channels, size)
        mapped = given.to(memory_format=torch.channels_last).requires_grad_()
        convolution.zero_grad()
        result = convolution(mapped)
        weights = [each.detach().double().contiguous().requires_grad_() for each in convolution.parameters()]
        exact = given.double().requires_grad_()
        with torch.backends.mkldnn.flags(enabled=False):
            want = F.conv2d(exact, *weights, stride=stride)
            send = torch.randn(want.shape, dtype=want.dtype, generator=torch.Generator().manual_seed(1))
            want.backward(send)
        result.backward(send.float())
        torch.testing.assert_close(result.double(), want, rtol=1e-4, atol=1e-5)
        for got, reference in zip([mapped, *convolution.parameters()], [exact, *weights], strict=True):
            assert got.grad is not None and reference.grad is not None
            torch.testing.assert_close(got.grad.double(), reference.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [Conv2dSame, StdConv2d])
def test_convolutions_of_another_kind_keep_what_they_do(kind: type[nn.Conv2d]) -> None:
    torch.manual_seed(0)
    convolution = kind(3, 8, 1, stride=2)
    given = image(3, (15, 18))
    want = convolution(given)
    torch.testing.assert_close(guarded(convolution)(given), want)


def test_all_other_convolutions_are_left_alone() -> None:
    plain = [
        nn.Conv2d(16, 8, 1, stride=2),
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(3, 8, 3, stride=2),
        nn.Conv2d(3, 8, 1, stride=2, padding=1),
        nn.Conv2d(4, 8, 1, stride=2, groups=2),
        nn.ConvTranspose2d(3, 8, 1, stride=2),
    ]
    strides = [each.stride for each in plain]
    subsample_first(nn.ModuleList(plain))
    assert [each.stride for each in plain] == strides
    assert not any(each._forward_pre_hooks for each in plain)


@pytest.mark.parametrize("name", STEMS)
def test_a_network_keeps_its_weights_under_their_names(name: str) -> None:
    encoder = TimmEncoder(name)
    strided = [
        m for m in encoder.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and max(m.stride) > 1
    ]
    before = {f"encoder.{key}": id(value) for key, value in [*encoder.named_parameters(), *encoder.named_buffers()]}
    neck = lambda channels, strides: PathAggregationNeck(channels, strides, width=8)  # noqa: E731
    network = OCRNet(TAXONOMY, encoder, neck, AnchorFreeDecoder, None, FusionPostProcess())
    after = dict([*network.named_parameters(), *network.named_buffers()])
    assert {key: id(value) for key, value in after.items() if key.startswith("encoder.")} == before
    few = [each for each in strided if each.in_channels == 3]
    assert len(few) == STEMS[name] and all(each.stride == (1, 1) for each in few)
    # What is built from the same encoder again skips no pixels twice.
    OCRNet(TAXONOMY, encoder, neck, AnchorFreeDecoder, None, FusionPostProcess())
    assert all(len(each._forward_pre_hooks) == 1 for each in few)


@pytest.mark.parametrize("block", [MobileOneBlock, pytest.param(RepVggBlock, marks=pytest.mark.slow)])
def test_it_is_copied_pickled_compiled_exported_and_reparameterised_along(block: type[nn.Module]) -> None:
    torch.manual_seed(0)
    stem = nn.Sequential(block(3, 8, stride=2)).eval()
    given = image(3, (64, 64))
    with torch.no_grad():
        want = stem(given)
        subsample_first(stem)
        assert sum(bool(each._forward_pre_hooks) for each in stem.modules()) == 1
        ways = {
            "itself": stem,
            "copied": copy.deepcopy(stem),
            "pickled": pickle.loads(pickle.dumps(stem)),
            "compiled": torch.compile(stem, backend="eager", fullgraph=True),
            "exported": torch.export.export(stem, (given,)).module(),
            "reparameterised": reparameterize_model(stem),
        }
        for way, other in ways.items():
            torch.testing.assert_close(
                other(given), want, rtol=1e-4, atol=1e-5, msg=lambda text, way=way: f"{way}: {text}"
            )


def trained(name: str, side: int) -> list[tuple[str, Tensor, Tensor]]:
    """Return the gradients of a model's first weights, and those of the model as timm has it, in the other format."""
    encoder = network_of(name).encoder.train()
    plain = TimmEncoder(name)
    plain.load_state_dict(encoder.state_dict())
    given = image(3, (side, side))
    for model, images in ((plain.train(), given), (encoder, given.to(memory_format=torch.channels_last))):
        for _ in range(2):
            model.zero_grad()
            finest = model(images)[0]
            noise = torch.randn(finest.shape, generator=torch.Generator().manual_seed(1))
            (finest * noise).sum().backward()
    pairs = zip(encoder.named_parameters(), plain.parameters(), strict=True)
    return [(key, one.grad, two.grad) for (key, one), two in pairs if one.grad is not None and two.grad is not None]


@pytest.mark.parametrize("name", ["repvgg_a0", *(pytest.param(n, marks=pytest.mark.slow) for n in list(STEMS)[1:])])
def test_an_encoder_with_such_a_stem_trains(tmp_path: Path, name: str) -> None:
    """In a process of its own: unguarded, this ends it."""
    (found,) = run_together(tmp_path, 1, trained, name, 192)
    assert len(found) > 4
    for key, got, want in found:
        assert got.isfinite().all() and got.any(), key
        assert (got - want).norm() <= 1e-3 * want.norm(), key
