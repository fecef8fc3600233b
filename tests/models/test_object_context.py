from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import Tensor, nn

from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.models.base import Features, Shapes
from ocrnet_pl.models.detection import AnchorFreeDecoder, make_points
from ocrnet_pl.models.necks import PathAggregationNeck
from ocrnet_pl.models.object_context import (
    GuidedObjectContextDecoder,
    ObjectContext,
    ObjectContextDecoder,
    box_evidence,
)
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.structures import DetectionOutput, Taxonomy
from tests.helpers.builders import TAXONOMY, TinyEncoder

SHAPES = Shapes([8, 8], [4, 8], [8, 12, 16], [4, 8, 16])


def naive_context(module: ObjectContext, pixels: Tensor, membership: Tensor) -> Tensor:
    """The paper's equations 1 to 4, a pixel and a region at a time; ``module`` gives the learned transforms."""
    batch, width, height, columns = pixels.shape
    places = [(y, x) for y in range(height) for x in range(columns)]
    context = torch.zeros(batch, module.region_value[0].out_channels, height, columns)
    representations = torch.zeros(batch, width, membership.shape[1], 1)
    for b in range(batch):
        for region in range(membership.shape[1]):
            weights = {place: math.exp(membership[b, region, place[0], place[1]]) for place in places}
            total = sum(weights.values())
            for y, x in places:
                representations[b, :, region, 0] += weights[y, x] / total * pixels[b, :, y, x]
    keys, values = module.region_key(representations), module.region_value(representations)
    queries = module.pixel_key(pixels)
    for b in range(batch):
        for y, x in places:
            relation = [
                math.exp(float(queries[b, :, y, x] @ keys[b, :, r, 0]) / math.sqrt(keys.shape[1]))
                for r in range(keys.shape[2])
            ]
            for r, value in enumerate(relation):
                context[b, :, y, x] += value / sum(relation) * values[b, :, r, 0]
    joined: Tensor = module.join(torch.cat((pixels, module.context(context)), 1))
    return joined


def test_object_context_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    module = ObjectContext(width=6, key=4).eval()
    pixels, membership = torch.randn(2, 6, 5, 4), torch.randn(2, 3, 5, 4) * 3
    with torch.no_grad():
        torch.testing.assert_close(
            module(pixels, membership), naive_context(module, pixels, membership), atol=1e-5, rtol=1e-4
        )


def detection_of(boxes: list[list[float]], scores: list[list[float]]) -> DetectionOutput:
    count = len(boxes)
    logits = torch.zeros(1, count, len(scores[0]))
    points, strides = make_points([(1, count, 8)], logits)
    return DetectionOutput(
        torch.tensor([boxes]), torch.zeros(1, count), logits, torch.tensor([scores]), points, strides, ((1, count, 8),)
    )


def test_evidence_is_drawn_where_the_boxes_are() -> None:
    # A box of 16 x 8 pixels of class 1, sure; a weaker one of class 0.
    detection = detection_of([[8, 8, 24, 16], [40, 24, 48, 32]], [[0.0, 1.0], [0.25, 0.0]])
    evidence = box_evidence(detection, (10, 16), 4, count=5)
    assert evidence.shape == (1, 2, 10, 16)
    # Cell (row 2, column 3): its centre (14, 10) is 2 of 8 from the box's centre (16, 12) across, 2 of 4 down.
    expected = 1 - math.exp(-math.exp(-((2 / 8) ** 2)) * math.exp(-((2 / 4) ** 2)))
    assert float(evidence[0, 1, 2, 3]) == pytest.approx(expected, abs=1e-6)
    assert evidence[0, 1].argmax().item() in {2 * 16 + 3, 2 * 16 + 4, 3 * 16 + 3, 3 * 16 + 4}
    assert evidence[0, 0].argmax().item() in {6 * 16 + 10, 6 * 16 + 11, 7 * 16 + 10, 7 * 16 + 11}
    assert float(evidence[0, 1, 9, 15]) < 1e-3


def test_many_candidates_of_one_object_are_no_more_than_sure() -> None:
    many = box_evidence(detection_of([[0, 0, 32, 32]] * 50, [[0.9]] * 50), (8, 8), 4, count=50)
    assert 0.99 < float(many.max()) <= 1


def test_only_the_best_candidates_give_evidence() -> None:
    detection = detection_of([[0, 0, 16, 16], [16, 16, 32, 32]], [[0.9], [0.5]])
    torch.testing.assert_close(
        box_evidence(detection, (8, 8), 4, count=1),
        box_evidence(detection_of([[0, 0, 16, 16]], [[0.9]]), (8, 8), 4, count=1),
    )


def test_boxes_raise_the_regions_of_their_own_class() -> None:
    torch.manual_seed(0)
    decoder = GuidedObjectContextDecoder(SHAPES, TAXONOMY, width=8, key=4).eval()
    maps = [torch.randn(1, 8, 8, 8), torch.randn(1, 8, 4, 4)]
    square = TAXONOMY.detection_categories[1]
    detection = detection_of([[0, 0, 16, 16]], [[0.0, 1.0, 0.0]])
    regions = torch.zeros(1, TAXONOMY.num_semantic, 8, 8)
    raised = decoder.membership(regions, Features(maps, [], detection))
    changed = raised.abs().amax((0, 2, 3)) > 1e-3
    assert changed.nonzero()[:, 0].tolist() == [square.semantic]
    assert float(raised[0, square.semantic, 1, 1]) > 1
    # Without a detection decoder nothing is raised.
    torch.testing.assert_close(decoder.membership(regions, Features(maps, [])), regions)


def test_the_pixels_do_not_teach_the_boxes() -> None:
    network = context_network(GuidedObjectContextDecoder)
    output = network(torch.rand(2, 3, 64, 64) * 255)
    output.semantic.sum().backward()
    assert network.detection is not None
    assert all(p.grad is None for p in network.detection.parameters())
    assert network.segmentation.guide.weight.grad.abs().sum() > 0


def context_network(decoder: type[ObjectContextDecoder], taxonomy: Taxonomy = TAXONOMY, boxes: bool = True) -> OCRNet:
    torch.manual_seed(0)
    return OCRNet(
        taxonomy,
        TinyEncoder(),
        functools.partial(PathAggregationNeck, width=8),
        AnchorFreeDecoder if boxes else None,
        functools.partial(decoder, width=8, key=4),
        FusionPostProcess(),
        input_size=(64, 64),
    )


@pytest.mark.parametrize("decoder", [ObjectContextDecoder, GuidedObjectContextDecoder])
@pytest.mark.parametrize("boxes", [True, False])
def test_every_weight_learns(decoder: type[ObjectContextDecoder], boxes: bool) -> None:
    network = context_network(decoder, boxes=boxes)
    output = network(torch.rand(2, 3, 64, 64) * 255)
    assert output.semantic.shape == (2, TAXONOMY.num_semantic, 32, 32)
    (regions,) = output.auxiliary
    assert regions.shape == (2, TAXONOMY.num_semantic, 16, 16)
    total = output.semantic.square().sum() + regions.square().sum()
    if output.detection is not None:
        total = (
            total + output.detection.boxes.sum() + output.detection.confidence.sum() + output.detection.classes.sum()
        )
    total.backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name


def test_context_compiles_without_a_break() -> None:
    network = context_network(GuidedObjectContextDecoder).eval()
    decoder = network.segmentation
    maps = [torch.randn(1, 8, side, side) for side in (16, 8, 4)]
    features = Features(maps, [], detection_of([[0, 0, 16, 16]], [[0.0, 1.0, 0.0]]))
    with torch.no_grad():
        compiled = torch.compile(decoder, fullgraph=True, backend="eager")(features)
        torch.testing.assert_close(compiled, decoder(features))


def test_a_taxonomy_without_segmentation_classes_is_refused() -> None:
    taxonomy = Taxonomy.build(things=["a"], segmented=[])
    with pytest.raises(ValueError, match="no segmentation class"):
        ObjectContextDecoder(SHAPES, taxonomy)
    assert isinstance(ObjectContextDecoder(SHAPES, TAXONOMY), nn.Module)
