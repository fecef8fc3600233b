"""Batch norms folded into convolutions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.models.detection import AnchorFreeDecoder
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.models.folding import fold_norms
from ocrnet_pl.models.necks import PathAggregationNeck
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.models.segmentation import SubPixelDecoder
from tests.helpers.builders import TAXONOMY


def lived(network: nn.Module) -> None:
    """Give all batch norms statistics and weights of their own."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(value, 1.0, 0.3)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    network.eval()


@pytest.mark.parametrize(("name", "skip"), [("test_resnet", False), ("test_efficientnet", True)])
def test_a_fused_network_gives_the_same_with_fewer_norms(name: str, skip: bool) -> None:
    network = OCRNet(
        TAXONOMY,
        TimmEncoder(name, weights=None),
        lambda c, s: PathAggregationNeck(c, s, width=8),
        AnchorFreeDecoder,
        lambda s, t: SubPixelDecoder(s, t, width=8, detail=4, skip=skip),
        FusionPostProcess(),
        input_size=(64, 64),
    )
    lived(network)
    before = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    fused = network.fuse()
    after = sum(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert before > 10
    assert after <= before // 10
    assert not fused.training
    # The network itself is as it was.
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())
    assert len(weights) == len(network.state_dict())
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        wanted, got = network(images), fused(images)
    torch.testing.assert_close(got.detection.scores, wanted.detection.scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(got.detection.boxes, wanted.detection.boxes, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(got.semantic.softmax(1), wanted.semantic.softmax(1), rtol=0, atol=1e-5)


def test_a_norm_behind_a_pixel_shuffle_is_folded() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 12, 1, bias=False), nn.PixelShuffle(2), nn.BatchNorm2d(3), nn.SiLU())
    lived(network)
    images = torch.randn(2, 3, 5, 7)
    with torch.no_grad():
        wanted = network(images)
        assert fold_norms(network, images) == 1
        torch.testing.assert_close(network(images), wanted, rtol=1e-5, atol=1e-5)
    assert isinstance(network[2], nn.Identity)


class Shared(nn.Module):
    """A convolution with two norms, and one whose output something else reads as well."""

    def __init__(self, also: bool) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.last, self.norm, self.also = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), also

    def forward(self, images: Tensor) -> Tensor:
        found = self.last(self.one(self.conv(images)) + self.two(self.conv(images + 1)))
        return self.norm(found) + found * self.also


def test_a_convolution_that_runs_twice_keeps_its_norms() -> None:
    module, images = Shared(also=False), torch.rand(1, 3, 8, 8)
    lived(module)
    wanted = module(images)
    assert fold_norms(module, images) == 1
    assert isinstance(module.one, nn.BatchNorm2d)
    torch.testing.assert_close(module(images), wanted, rtol=1e-5, atol=1e-5)


def test_a_fold_that_would_change_the_output_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.helpers.builders import tiny_network

    network = tiny_network()
    monkeypatch.setattr(
        "ocrnet_pl.models.ocrnet.fold_norms", lambda net, _: next(net.segmentation.parameters()).mul_(3.0)
    )
    fused, images = network.fuse(), torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(fused(images).semantic, network.eval()(images).semantic)
