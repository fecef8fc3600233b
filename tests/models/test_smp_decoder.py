"""The adapter of segmentation-models-pytorch against the package's own models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.losses.detection import QualityDetectionLoss
from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.models import smp_models
from ocrnet_pl.models.base import Features, Shapes
from ocrnet_pl.models.detection import AnchorFreeDecoder
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.models.necks import FeaturePyramidNeck
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.models.segmentation import SubPixelDecoder
from ocrnet_pl.models.smp_decoder import SmpDecoder
from ocrnet_pl.models.unread import find_unread
from ocrnet_pl.structures import Output, Taxonomy
from tests.helpers.builders import TAXONOMY, TinyEncoder, make_batch

ENCODERS = ["test_resnet", "mobilenetv4_conv_small", "convnext_atto"]

NARROW, THEIR_NARROW = {"channels": (32, 16, 16, 16, 16)}, {"decoder_channels": (32, 16, 16, 16, 16)}

# The package's model, our options, its options for the same, and the stride of the encoder. Narrow: the same code at a
# fraction of the cost; the defaults are compared by their shapes.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], int | None]] = {
    "SmpUnet": ("Unet", NARROW, THEIR_NARROW, None),
    "SmpUnet scse": ("Unet", NARROW | {"attention": "scse"}, THEIR_NARROW | {"decoder_attention_type": "scse"}, None),
    "SmpUnet 16": (
        "Unet",
        {"coarsest": 16, "channels": (64, 32, 16, 8)},
        {"encoder_depth": 4, "decoder_channels": (64, 32, 16, 8)},
        None,
    ),
    "SmpUnetPlusPlus": ("UnetPlusPlus", NARROW, THEIR_NARROW, None),
    "SmpMAnet": ("MAnet", NARROW | {"attention_channels": 32}, THEIR_NARROW | {"decoder_pab_channels": 32}, None),
    "SmpLinknet": ("Linknet", {}, {}, None),
    "SmpFPN": (
        "FPN",
        {"pyramid_channels": 64, "width": 32},
        {"decoder_pyramid_channels": 64, "decoder_segmentation_channels": 32},
        None,
    ),
    "SmpFPN cat": (
        "FPN",
        {"width": 32, "merge": "cat"},
        {"decoder_segmentation_channels": 32, "decoder_merge_policy": "cat"},
        None,
    ),
    "SmpPSPNet": ("PSPNet", {"width": 64}, {"psp_out_channels": 64}, None),
    "SmpPSPNet 32": (
        "PSPNet",
        {"coarsest": 32, "width": 64},
        {"encoder_depth": 5, "upsampling": 32, "psp_out_channels": 64},
        None,
    ),
    "SmpPAN": ("PAN", {}, {"encoder_depth": 4, "encoder_output_stride": 32}, None),
    "SmpPAN 32": ("PAN", {"coarsest": 32}, {"encoder_output_stride": 32}, None),
    "SmpDeepLabV3": ("DeepLabV3", {"coarsest": 8, "width": 32}, {"decoder_channels": 32}, 8),
    "SmpDeepLabV3Plus": ("DeepLabV3Plus", {"coarsest": 16, "width": 32}, {"decoder_channels": 32}, 16),
    "SmpUPerNet": ("UPerNet", {"width": 32}, {"decoder_channels": 32}, None),
    "SmpSegformer": ("Segformer", {"width": 32}, {"decoder_segmentation_channels": 32}, None),
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


# Each option with the first encoder, each decoder with all of them.
PAIRS = [
    pytest.param(case, name, marks=[pytest.mark.slow] * (name != ENCODERS[0]))
    for case in CASES
    for name in ENCODERS
    if " " not in case or name == ENCODERS[0]
]


@pytest.mark.parametrize(("case", "name"), PAIRS)
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


@pytest.mark.parametrize("name", NAMES)
def test_the_defaults_are_the_packages(name: str) -> None:
    import segmentation_models_pytorch as smp

    # Our pyramid attention stops at stride 16, where the package's dilated encoder does.
    options = {"encoder_depth": 4} if name == "SmpPAN" else {}
    with torch.device("meta"):
        own = smp_decoder(name)(shapes_of(TimmEncoder("resnet18")), TAXONOMY)
        model = getattr(smp, name.removeprefix("Smp"))("tu-resnet18", encoder_weights=None, classes=5, **options)
    shapes = [
        {key: value.shape for key, value in module.state_dict().items()} for module in (own.decoder, model.decoder)
    ]
    assert shapes[0] == shapes[1]
    assert own.classify.weight.shape == model.segmentation_head[0].weight.shape

    def dropouts(module: torch.nn.Module) -> list[float]:
        return [m.p for m in module.modules() if isinstance(m, torch.nn.Dropout | torch.nn.Dropout2d)]

    assert dropouts(own.decoder) == dropouts(model.decoder)
    dilations = [
        [m.dilation for m in d.modules() if isinstance(m, torch.nn.Conv2d)] for d in (own.decoder, model.decoder)
    ]
    assert dilations[0] == dilations[1]


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


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (number % 3 > 0)) for number, name in enumerate(NAMES)]
)
def test_a_joint_step_reaches_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    # One encoder that begins at stride 2 and one that begins at 4.
    encoder_name = ENCODERS[1 + NAMES.index(name) % 2]
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
    sum((QualityDetectionLoss()(output, batch) | SegmentationLoss()(output, batch)).values()).backward()
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


@pytest.mark.parametrize("joint", [False, True])
def test_maps_with_weights_of_their_own_keep_them_in_the_graph(joint: bool) -> None:
    """HRNet's maps stand side by side: no coarser one leads to the weights of a finer one that nothing reads."""

    def neck(channels: list[int], strides: list[int]) -> FeaturePyramidNeck:
        return FeaturePyramidNeck(channels, strides, width=8, finest=8)

    decoder = (lambda s, t: SubPixelDecoder(s, t, width=8)) if joint else smp_models.SmpPSPNet
    network = OCRNet(
        TAXONOMY,
        TimmEncoder("hrnet_w18_small"),
        neck,
        AnchorFreeDecoder if joint else None,
        decoder,
        FusionPostProcess(),
    )
    batch = make_batch([[[4, 4, 20, 24]], [[30, 10, 60, 50]]], [[0], [2]])
    output = network(batch.images)
    sum((QualityDetectionLoss()(output, batch) | SegmentationLoss()(output, batch)).values()).backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


COMPILED = {"SmpUnet", "SmpDeepLabV3Plus", "SmpSegformer"}
"""One of each kind: step by step, pooled, all maps at once. The others are slow to trace."""


def test_only_maps_side_by_side_are_tied() -> None:
    tied = {}
    for name in ("resnet18", "hrnet_w18_small"):
        encoder = TimmEncoder(name)
        maps = encoder(torch.zeros(2, 3, 64, 64))
        tied[name] = [encoder.strides[i] for i in find_unread(Output(None, maps[-1]), maps, {}).maps]
    assert tied == {"resnet18": [], "hrnet_w18_small": [16, 8, 4]}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in COMPILED)) for name in NAMES]
)
def test_compiles(name: str) -> None:
    shapes = Shapes([], [], [8, 12, 16, 24], [4, 8, 16, 32])
    decoder = smp_decoder(name)(shapes, TAXONOMY, **CASES[name][1]).eval()
    features = Features([], encoder_maps(shapes, (128, 160)))
    torch._dynamo.reset()
    with torch.no_grad():
        (want,) = decoder(features)
        (got,) = torch.compile(decoder, fullgraph=True, backend="eager")(features)
    torch.testing.assert_close(got, want)


def test_exports() -> None:
    shapes = Shapes([], [], [8, 12, 16, 24], [4, 8, 16, 32])
    decoder = smp_models.SmpSegformer(shapes, TAXONOMY, width=16).eval()
    features = Features([], encoder_maps(shapes, (64, 96)))
    with torch.no_grad():
        (want,) = decoder(features)
        (exported,) = torch.export.export(decoder, (features,)).module()(features)
    torch.testing.assert_close(exported, want)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_after_channels_last(name: str) -> None:
    """The network keeps its maps in this memory format."""
    shapes = Shapes([], [], [8, 12, 16, 24, 32], [2, 4, 8, 16, 32])
    decoder = smp_decoder(name)(shapes, TAXONOMY, **CASES[name][1]).eval()
    maps = encoder_maps(shapes, (128, 160))
    with torch.no_grad():
        (want,) = decoder(Features([], maps))
        decoder.to(memory_format=torch.channels_last)
        (got,) = decoder(Features([], [m.contiguous(memory_format=torch.channels_last) for m in maps]))
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision(name: str) -> None:
    torch.manual_seed(0)
    shapes = Shapes([], [], [8, 12, 16, 24], [4, 8, 16, 32])
    # Attention in few channels would amplify what is rounded.
    options = NARROW if name == "SmpMAnet" else CASES[name][1]
    decoder = smp_decoder(name)(shapes, TAXONOMY, **options).eval()
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
    (
        lambda: smp_models.SmpUnet(
            shapes_of(TinyEncoder()), TAXONOMY, coarsest=16, channels=(32, 16, 8, 8), attention="scse"
        ),
        "fewer than 16",
    ),
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
