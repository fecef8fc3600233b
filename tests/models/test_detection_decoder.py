"""The options of the detection decoder, and decoding without suppression."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from ocrnet_pl.inference.decode import Decode
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.tiled_inference import Tiling
from ocrnet_pl.losses.detection import QualityDetectionLoss
from ocrnet_pl.losses.one_to_one import OneToOneDetectionLoss
from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.models.detection import AnchorFreeDecoder, OneToOneDecoder
from ocrnet_pl.models.necks import BiFPNNeck, FeaturePyramidNeck, PathAggregationNeck
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.models.segmentation import SubPixelDecoder
from ocrnet_pl.structures import DetectionOutput, Placement
from tests.helpers.builders import TAXONOMY, TinyEncoder, make_batch, tiny_network

STRIDES = [4, 8, 16]
KINDS = {
    "default": AnchorFreeDecoder,
    "direct": lambda c, s, t: AnchorFreeDecoder(c, s, t, bins=None),
    "shared": lambda c, s, t: AnchorFreeDecoder(c, s, t, shared=True, depth=2, bins=None),
    "distribution": lambda c, s, t: AnchorFreeDecoder(c, s, t, bins=9),
    "shared distribution": lambda c, s, t: AnchorFreeDecoder(c, s, t, shared=True, bins=9),
    "coarse": lambda c, s, t: AnchorFreeDecoder(c, s, t, min_stride=8, max_stride=8, bins=None),
    "one to one": OneToOneDecoder,
    "one to one, shared distribution": lambda c, s, t: OneToOneDecoder(
        c, s, t, lambda c, s, t: AnchorFreeDecoder(c, s, t, shared=True, bins=9)
    ),
}
BINS = {"default": 16, "one to one": 16, "direct": None, "shared": None, "coarse": None}
"""Those of all others are nine."""
COMPILED = {"coarse", "one to one, shared distribution"}
"""Between them they have every part; the others are slow to trace."""


def maps(width: int = 8, batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(batch, width, 64 // s, 96 // s, generator=generator) for s in STRIDES]


def made(kind: str) -> AnchorFreeDecoder | OneToOneDecoder:
    torch.manual_seed(0)
    return KINDS[kind]([8, 8, 8], STRIDES, TAXONOMY)


def check_shapes(output: DetectionOutput, bins: int | None, strides: list[int]) -> None:
    cells = sum((64 // s) * (96 // s) for s in strides)
    assert output.boxes.shape == (2, cells, 4)
    assert output.confidence.shape == (2, cells)
    assert output.classes.shape == output.scores.shape == (2, cells, TAXONOMY.num_detection)
    if bins is None:
        assert output.distribution is None
    else:
        assert output.distribution is not None and output.distribution.shape == (2, cells, 4, bins)
    assert (output.boxes[..., :2] <= output.points).all() and (output.boxes[..., 2:] >= output.points).all()


@pytest.mark.parametrize("kind", KINDS)
def test_shapes(kind: str) -> None:
    decoder = made(kind)
    bins = BINS.get(kind, 9)
    strides = [8] if kind == "coarse" else STRIDES
    trained, evaluated = decoder(maps()), decoder.eval()(maps())
    check_shapes(trained, bins, strides)
    check_shapes(evaluated, bins, strides)
    assert evaluated.one_to_many is None
    assert (trained.one_to_many is not None) == isinstance(decoder, OneToOneDecoder)
    if trained.one_to_many is not None:
        check_shapes(trained.one_to_many, bins, strides)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind not in COMPILED)) for kind in KINDS]
)
def test_compiles(kind: str) -> None:
    for decoder in (made(kind), made(kind).eval()):
        # In evaluation mode the statistics stay; in training they move, so each call starts from the same weights.
        state = {k: v.clone() for k, v in decoder.state_dict().items()}
        want = decoder(maps())
        decoder.load_state_dict(state)
        torch._dynamo.reset()
        got = torch.compile(decoder, fullgraph=True, backend="eager")(maps())
        torch.testing.assert_close(got.boxes, want.boxes)
        torch.testing.assert_close(got.scores, want.scores)


def test_a_box_is_the_mean_of_its_distribution() -> None:
    decoder = made("distribution").eval()
    for parameter in decoder.parameters():
        parameter.data += torch.randn_like(parameter) * 0.3
    output = decoder(maps())
    assert output.distribution is not None
    for candidate in (0, 17, 300, 400, len(output.points) - 1):
        stride, (x, y) = float(output.strides[candidate]), output.points[candidate].tolist()
        sides = []
        for side in range(4):
            weights = [math.exp(v) for v in output.distribution[1, candidate, side].tolist()]
            sides.append(sum(k * w for k, w in enumerate(weights)) / sum(weights) * stride)
        left, top, right, bottom = sides
        by_hand = torch.tensor([x - left, y - top, x + right, y + bottom])
        torch.testing.assert_close(output.boxes[1, candidate], by_hand, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("kind", ["default", "direct", "shared", "distribution"])
def test_boxes_begin_small(kind: str) -> None:
    with torch.no_grad():
        output = made(kind).eval()(maps())
    widths = (output.boxes[..., 2] - output.boxes[..., 0]) / output.strides
    assert 2.2 < float(widths.mean()) < 2.8


def test_shared_towers_share_all_but_normalisation_and_factor() -> None:
    shared = made("shared").eval()
    one_level = AnchorFreeDecoder([8], [4], TAXONOMY, shared=True, depth=2, bins=None)
    convolutions = [sum(p.numel() for p in d.parameters() if p.ndim == 4) for d in (shared, one_level)]
    assert convolutions[0] == convolutions[1]
    image = torch.randn(1, 8, 12, 12)
    # The same features on every level: the same raw answer until one level's own part changes.
    first = shared([image] * 3)
    per_level = first.confidence.view(3, 144)
    torch.testing.assert_close(per_level[0], per_level[1])
    shared.class_tower.norms[1][0].bias.data += 1.0
    shared.factor.data[2] = 2.0
    second = shared([image] * 3)
    changed = second.confidence.view(3, 144)
    assert torch.equal(changed[0], per_level[0]) and torch.equal(changed[2], per_level[2])
    assert not torch.allclose(changed[1], per_level[1])
    reach = ((second.boxes[0, :, 2:] - second.points) / second.strides[:, None]).view(3, 144, 2)
    raw = torch.log(torch.expm1(reach))
    torch.testing.assert_close(raw[2], raw[0] * 2.0, atol=1e-3, rtol=1e-3)


def test_options_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="bins is 1"):
        AnchorFreeDecoder([8], [8], TAXONOMY, bins=1)
    with pytest.raises(ValueError, match="one width"):
        AnchorFreeDecoder([8, 12], [8, 16], TAXONOMY, shared=True)


def test_one_to_one_evaluates_as_its_branch_alone() -> None:
    decoder = made("one to one")
    called = []
    decoder.one_to_many.register_forward_hook(lambda *_: called.append(1))
    decoder(maps())
    assert called == [1]
    decoder.eval()
    alone = decoder.one_to_one(maps())
    got = decoder(maps())
    assert called == [1]
    assert torch.equal(got.boxes, alone.boxes) and torch.equal(got.scores, alone.scores)
    assert not torch.equal(got.scores, decoder.one_to_many(maps()).scores)


def test_the_one_to_one_branch_does_not_teach_the_maps() -> None:
    decoder = made("one to one")
    features = [feature.requires_grad_() for feature in maps()]
    output = decoder(features)
    (output.boxes.sum() + output.classes.sum()).backward()
    assert all(feature.grad is None for feature in features)
    assert all(p.grad is None for p in decoder.one_to_many.parameters())
    assert any(p.grad is not None and p.grad.any() for p in decoder.one_to_one.parameters())
    (output.one_to_many.boxes.sum() + output.one_to_many.classes.sum()).backward()
    assert all(feature.grad is not None and feature.grad.any() for feature in features)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("neck", "pixels"),
    [
        (PathAggregationNeck, True),
        (FeaturePyramidNeck, False),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (PathAggregationNeck, False),
                (FeaturePyramidNeck, True),
                (BiFPNNeck, True),
                (BiFPNNeck, False),
            )
        ),
    ],
)
def test_every_parameter_gets_a_gradient_in_a_step(kind: str, neck: type, pixels: bool) -> None:
    torch.manual_seed(0)
    network = OCRNet(
        TAXONOMY,
        TinyEncoder(),
        lambda c, s: neck(c, s, width=8),
        KINDS[kind],
        (lambda s, t: SubPixelDecoder(s, t, width=8, detail=4)) if pixels else None,
        FusionPostProcess(),
    )
    batch = make_batch([[[4, 4, 20, 24]], [[30, 10, 60, 50]]], [[0], [2]])
    output = network(batch.images)
    loss = QualityDetectionLoss() if output.detection.one_to_many is None else OneToOneDetectionLoss()
    sum((loss(output, batch) | SegmentationLoss()(output, batch)).values()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("neck", [FeaturePyramidNeck, PathAggregationNeck, BiFPNNeck])
def test_boxes_are_float32_at_half_precision(kind: str, neck: type) -> None:
    torch.manual_seed(0)
    pyramid, decoder = neck([8, 8, 8], STRIDES, width=8), made(kind)
    with torch.autocast("cpu", torch.bfloat16):
        features = pyramid(maps())
        output = decoder(features)
    assert {f.dtype for f in features} == {torch.bfloat16}
    for one in [output] if output.one_to_many is None else [output, output.one_to_many]:
        floats = [one.boxes, one.confidence, one.classes, one.scores, one.points, one.strides]
        floats += [] if one.distribution is None else [one.distribution]
        assert {value.dtype for value in floats} == {torch.float32}
        assert all(value.isfinite().all() for value in floats)


def test_unread_maps_do_not_change_the_answer() -> None:
    features = maps()
    first = made("coarse")(features)
    features[0] = features[0] + 1000.0
    second = made("coarse")(features)
    assert torch.equal(first.confidence, second.confidence) and torch.equal(first.boxes, second.boxes)


def test_decoding_without_suppression_keeps_overlapping_boxes() -> None:
    generator = torch.Generator().manual_seed(1)
    boxes = torch.tensor([[10.0, 10, 50, 50]]).repeat(20, 1) + torch.rand(20, 4, generator=generator)
    scores = torch.rand(1, 20, 3, generator=generator)
    points, strides = torch.zeros(20, 2), torch.ones(20)
    output = DetectionOutput(boxes[None], scores[..., 0], scores, scores, points, strides, ())
    place = [Placement.identity((40, 64))]
    (found,) = Decode(score_threshold=0.3, iou_threshold=None, max_detections=15)(output, place)
    flat = sorted(
        ((float(scores[0, i, k]), i, k) for i in range(20) for k in range(3) if scores[0, i, k] > 0.3), reverse=True
    )[:15]
    assert found.scores.tolist() == pytest.approx([s for s, _, _ in flat])
    assert found.labels.tolist() == [k for _, _, k in flat]
    for box, (_, i, _) in zip(found.boxes, flat, strict=True):
        x1, y1, x2, y2 = boxes[i].tolist()
        assert box.tolist() == pytest.approx([x1, y1, min(x2, 64), min(y2, 40)])
    (suppressed,) = Decode(score_threshold=0.3, iou_threshold=0.6)(output, place)
    assert len(suppressed.scores) == 3


def test_tiles_are_united_without_suppression_inside_them() -> None:
    network = tiny_network()
    network.input_size = (64, 64)
    network.postprocess = FusionPostProcess(Decode(score_threshold=0.0, iou_threshold=None, max_detections=50))
    image = torch.randint(0, 256, (3, 90, 150), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.inference_mode():
        (prediction,) = Tiling()(network.eval(), image).raw
    assert len(prediction.scores) > 1
    overlap = box_iou(prediction.boxes, prediction.boxes).fill_diagonal_(0)
    overlap[prediction.labels[:, None] != prediction.labels] = 0
    assert float(overlap.max()) <= 0.6 + 1e-5
