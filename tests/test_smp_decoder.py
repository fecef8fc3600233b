"""The adapter of segmentation-models-pytorch against the package's own models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.losses.detection import QualityDetectionLoss
from ocrnet_pl.losses.segmentation import CrossEntropyDiceLoss
from ocrnet_pl.models import smp_models
from ocrnet_pl.models.base import Features, Shapes
from ocrnet_pl.models.detection import AnchorFreeDecoder
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.models.necks import FeaturePyramidNeck
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.models.smp_decoder import SmpDecoder
from ocrnet_pl.structures import Taxonomy
from tests.builders import TAXONOMY, TinyEncoder, make_batch

ENCODERS = ["resnet18", "mobilenetv4_conv_small", "convnext_atto"]

# Ours, the package's model, its options where ours read other maps by default, and the stride of the encoder.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], int | None]] = {
    "SmpUnet": ("Unet", {}, {}, None),
    "SmpUnet scse": ("Unet", {"attention": "scse"}, {"decoder_attention_type": "scse"}, None),
    "SmpUnet 16": (
        "Unet",
        {"coarsest": 16, "channels": (64, 32, 16, 8)},
        {"encoder_depth": 4, "decoder_channels": (64, 32, 16, 8)},
        None,
    ),
    "SmpUnetPlusPlus": ("UnetPlusPlus", {}, {}, None),
    "SmpMAnet": ("MAnet", {"attention_channels": 32}, {"decoder_pab_channels": 32}, None),
    "SmpLinknet": ("Linknet", {}, {}, None),
    "SmpFPN": ("FPN", {}, {}, None),
    "SmpFPN cat": ("FPN", {"merge": "cat"}, {"decoder_merge_policy": "cat"}, None),
    "SmpPSPNet": ("PSPNet", {}, {}, None),
    "SmpPSPNet 32": ("PSPNet", {"coarsest": 32}, {"encoder_depth": 5, "upsampling": 32}, None),
    "SmpPAN": ("PAN", {}, {"encoder_depth": 4, "encoder_output_stride": 32}, None),
    "SmpPAN 32": ("PAN", {"coarsest": 32}, {"encoder_output_stride": 32}, None),
    "SmpDeepLabV3": ("DeepLabV3", {"coarsest": 8}, {}, 8),
    "SmpDeepLabV3Plus": ("DeepLabV3Plus", {"coarsest": 16}, {}, 16),
    "SmpUPerNet": ("UPerNet", {}, {}, None),
    "SmpSegformer": ("Segformer", {"width": 64}, {"decoder_segmentation_channels": 64}, None),
}
NAMES = sorted({case.partition(" ")[0] for case in CASES})


def smp_decoder(name: str) -> type[SmpDecoder]:
    kind: type[SmpDecoder] = getattr(smp_models, name)
    return kind


def shapes_of(encoder: TimmEncoder | TinyEncoder) -> Shapes:
    return Shapes([], [], encoder.channels, encoder.strides)


def encoder_maps(shapes: Shapes, size: tuple[int, int] = (256, 320), batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [
        torch.randn(batch, c, size[0] // s, size[1] // s, generator=generator)
        for c, s in zip(shapes.encoder_channels, shapes.encoder_strides, strict=True)
    ]


def test_there_is_a_class_for_each_decoder_of_the_package() -> None:
    own = {n for n, v in vars(smp_models).items() if isinstance(v, type) and issubclass(v, SmpDecoder)}
    assert own - {"SmpDecoder"} == set(NAMES)
    assert len(NAMES) == 11


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ENCODERS)
def test_equal_weights_give_the_logits_of_the_packages_model(case: str, name: str) -> None:
    import segmentation_models_pytorch as smp

    model_name, own_options, their_options, output_stride = CASES[case]
    encoder = TimmEncoder(name, output_stride=output_stride).eval()
    own = smp_decoder(case.partition(" ")[0])(shapes_of(encoder), TAXONOMY, **own_options).eval()
    model = getattr(smp, model_name)(
        f"tu-{name}", encoder_weights=None, classes=TAXONOMY.num_semantic, **their_options
    ).eval()
    # The package builds no more of the encoder than it reads.
    wanted = model.encoder.model.state_dict()
    given = encoder.model.state_dict()
    model.encoder.model.load_state_dict({key: given[key] for key in wanted})
    model.decoder.load_state_dict(own.decoder.state_dict())
    model.segmentation_head[0].load_state_dict(own.classify.state_dict())
    # The pyramid attention halves its map three times more.
    size = (256, 320) if case == "SmpPAN 32" else (128, 160)
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (logits,) = own(Features([], encoder(images)))
        want = model.segmentation_head[0](model.decoder(model.encoder(images)))
        whole = model(images)
    torch.testing.assert_close(logits, want)
    assert logits.std() > 0
    assert [side * own.stride for side in logits.shape[-2:]] == list(size) == list(whole.shape[-2:])


def test_deeplab_reads_encoders_that_are_not_dilated() -> None:
    encoder = TimmEncoder("resnet18").eval()
    maps = encoder_maps(shapes_of(encoder), (96, 160))
    for decoder, stride in (
        (smp_models.SmpDeepLabV3(shapes_of(encoder), TAXONOMY), 32),
        (smp_models.SmpDeepLabV3Plus(shapes_of(encoder), TAXONOMY), 4),
    ):
        (logits,) = decoder(Features([], maps))
        assert decoder.stride == stride
        assert logits.shape == (2, TAXONOMY.num_semantic, 96 // stride, 160 // stride)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("encoder_name", ["resnet18", "convnext_atto"])
def test_a_joint_step_reaches_every_parameter(name: str, encoder_name: str) -> None:
    torch.manual_seed(0)
    network = OCRNet(
        TAXONOMY,
        TimmEncoder(encoder_name),
        lambda c, s: FeaturePyramidNeck(c, s, width=8),
        AnchorFreeDecoder,
        smp_decoder(name),
        FusionPostProcess(),
    )
    # No multiple of 32: the network pads to 160 x 224.
    batch = make_batch([[[4, 4, 20, 24]], [[30, 10, 60, 50]]], [[0], [2]], size=(150, 200))
    output = network(batch.images)
    sum((QualityDetectionLoss()(output, batch) | CrossEntropyDiceLoss()(output, batch)).values()).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    own = [p.grad for p in network.segmentation.parameters()]
    assert sum(bool(g.any()) for g in own) > 0.8 * len(own)


@pytest.mark.parametrize("name", ["SmpUnet", "SmpPSPNet", "SmpPAN"])
def test_segmentation_alone_leaves_no_weight_without_gradient(name: str) -> None:
    network = OCRNet(
        TAXONOMY, TimmEncoder("resnet18"), FeaturePyramidNeck, None, smp_decoder(name), FusionPostProcess()
    )
    assert network.neck is None
    network(torch.rand(2, 3, 128, 160) * 255).semantic.square().mean().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_compiles(name: str) -> None:
    shapes = Shapes([], [], [8, 12, 16, 24], [4, 8, 16, 32])
    decoder = smp_decoder(name)(shapes, TAXONOMY).eval()
    features = Features([], encoder_maps(shapes, (128, 160)))
    torch._dynamo.reset()
    with torch.no_grad():
        (want,) = decoder(features)
        (got,) = torch.compile(decoder, fullgraph=True, backend="eager")(features)
        (exported,) = torch.export.export(decoder, (features,)).module()(features)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(exported, want)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_after_channels_last(name: str) -> None:
    """The network keeps its maps in this memory format."""
    shapes = Shapes([], [], [8, 12, 16, 24, 32], [2, 4, 8, 16, 32])
    decoder = smp_decoder(name)(shapes, TAXONOMY).eval()
    maps = encoder_maps(shapes, (128, 160))
    with torch.no_grad():
        (want,) = decoder(Features([], maps))
        decoder.to(memory_format=torch.channels_last)
        (got,) = decoder(Features([], [m.contiguous(memory_format=torch.channels_last) for m in maps]))
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision(name: str) -> None:
    shapes = Shapes([], [], [8, 12, 16, 24], [4, 8, 16, 32])
    decoder = smp_decoder(name)(shapes, TAXONOMY).eval()
    features = Features([], encoder_maps(shapes, (128, 160)))
    with torch.no_grad():
        (want,) = decoder(features)
        with torch.autocast("cpu", torch.bfloat16):
            (got,) = decoder(features)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), want, atol=0.05 * float(want.std()) + 0.02, rtol=0.1)


MISTAKES: list[tuple[Callable[[], object], str]] = [
    (lambda: smp_models.SmpUnet(shapes_of(TinyEncoder()), TAXONOMY), r"\[4, 8, 16\], this decoder also reads \[32\]"),
    (lambda: smp_models.SmpFPN(shapes_of(TinyEncoder()), TAXONOMY), r"also reads \[32\]"),
    (lambda: smp_models.SmpPSPNet(shapes_of(TinyEncoder()), TAXONOMY, coarsest=12), "coarsest is 12; give 8, 16 or 32"),
    (lambda: smp_models.SmpUnet(shapes_of(TinyEncoder()), TAXONOMY, coarsest=16), "channels has 5 values .* are 4 hal"),
    (lambda: smp_models.SmpLinknet(shapes_of(TinyEncoder()), Taxonomy.build(["a"], segmented=[]), 16), "no segm"),
]


@pytest.mark.parametrize(("make", "message"), MISTAKES)
def test_mistakes_are_told_when_the_network_is_built(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", NAMES)
def test_one_image_a_batch_trains_or_says_why_not(name: str) -> None:
    shapes = Shapes([], [], [8, 12, 16, 24], [4, 8, 16, 32])
    decoder = smp_decoder(name)(shapes, TAXONOMY)
    features = Features([], encoder_maps(shapes, (128, 160), batch=1))
    if name in ("SmpPAN", "SmpDeepLabV3", "SmpDeepLabV3Plus", "SmpUPerNet"):
        with pytest.raises(ValueError, match="at least 2"):
            decoder(features)
    else:
        decoder(features)
    decoder.eval()(features)


def test_an_encoder_that_cannot_be_dilated_is_refused() -> None:
    assert TimmEncoder("resnet18", output_stride=16).strides == [2, 4, 8, 16, 16]
    with pytest.raises(ValueError, match="cannot be dilated to output_stride=16"):
        TimmEncoder("hgnetv2_b0", output_stride=16)
