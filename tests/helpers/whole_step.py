"""A whole network on a timm model, one step of its training, and a prediction."""

from __future__ import annotations

import torch

from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.losses.detection import QualityDetectionLoss
from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.models.detection import AnchorFreeDecoder
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.models.necks import PathAggregationNeck
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.models.segmentation import SubPixelDecoder
from tests.helpers.builders import TAXONOMY, make_batch


def network_on(name: str, size: tuple[int, int]) -> OCRNet:
    """Return the default network on an encoder with random weights, for images of this (height, width)."""
    torch.manual_seed(0)
    return OCRNet(
        TAXONOMY,
        TimmEncoder(name, input_size=size),
        PathAggregationNeck,
        AnchorFreeDecoder,
        SubPixelDecoder,
        FusionPostProcess(),
        input_size=size,
    )


def take_step(network: OCRNet, size: tuple[int, int]) -> None:
    """Check that every weight gets a finite gradient from the losses of two images.

    Some models normalise one value per image.
    """
    batch = make_batch([[[4.0, 5.0, 40.0, 33.0]], []], [[1], []], size=size)
    output = network.train()(batch.images)
    losses = {**QualityDetectionLoss()(output, batch), **SegmentationLoss()(output, batch)}
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    network.zero_grad()


def check_maps(encoder: TimmEncoder, size: tuple[int, int]) -> None:
    """Check that the maps are what the encoder says, on the grid of an image of this (height, width)."""
    with torch.no_grad():
        maps = encoder.eval()(torch.rand(1, 3, *size))
    assert [each.shape[1] for each in maps] == encoder.channels
    assert [tuple(each.shape[2:]) for each in maps] == [(size[0] // s, size[1] // s) for s in encoder.strides]


def check_prediction(network: OCRNet, size: tuple[int, int] = (151, 97)) -> None:
    """Check that an image of an odd size gets a prediction of this size."""
    (prediction,) = network.predict(torch.randint(0, 256, (3, *size), dtype=torch.uint8))
    assert prediction.semantic is not None and prediction.semantic.shape == size
    assert prediction.boxes.isfinite().all()
