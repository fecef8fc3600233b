"""A plain transformer with every neck and decoder of the package."""

from __future__ import annotations

import inspect

import pytest
import torch

from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.models import necks, object_context, segmentation, smp_models
from ocrnet_pl.models.base import Neck, SegmentationDecoder
from ocrnet_pl.models.detection import AnchorFreeDecoder, OneToOneDecoder
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.models.ocrnet import OCRNet
from tests.helpers.builders import TAXONOMY


def classes(module: object, base: type) -> list[type]:
    found = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, base)]
    return [kind for kind in found if kind.__module__ == module.__name__ and "Base" not in kind.__name__]


NECKS = [kind for kind in classes(necks, Neck) if kind is not necks.PyramidNeck]
DECODERS = [
    kind for module in (segmentation, object_context, smp_models) for kind in classes(module, SegmentationDecoder)
]


@pytest.fixture(scope="module")
def encoder() -> TimmEncoder:
    return TimmEncoder("test_vit")


@pytest.mark.parametrize("neck", NECKS)
@pytest.mark.parametrize("detection", [AnchorFreeDecoder, OneToOneDecoder])
def test_every_neck_and_detection_decoder_finds_boxes_at_strides_from_8_to_32(
    encoder: TimmEncoder, neck: type[Neck], detection: type
) -> None:
    network = OCRNet(
        TAXONOMY, encoder, neck, detection, segmentation.SubPixelDecoder, FusionPostProcess(), input_size=(64, 96)
    ).eval()
    with torch.no_grad():
        output = network(torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8))
    assert set(output.detection.strides.tolist()) == {4, 8, 16, 32}
    assert output.detection.boxes.shape[1] == sum((64 // s) * (96 // s) for s in (4, 8, 16, 32))


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_segmentation_decoder_reads_it(encoder: TimmEncoder, decoder: type[SegmentationDecoder]) -> None:
    network = OCRNet(TAXONOMY, encoder, necks.PathAggregationNeck, None, decoder, FusionPostProcess())
    output = network.train()(torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8))
    output.semantic.mean().backward()
    assert output.semantic.shape[-1] * output.stride == 128
    assert all(p.grad is not None for p in encoder.parameters())
    encoder.zero_grad(set_to_none=True)
