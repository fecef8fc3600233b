"""How often the host waits for the device in a validation."""

from __future__ import annotations

import torch

from ocrnet_pl.inference.decode import Decode
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.structures import DetectionOutput, Output, Placement, Prediction
from tests.helpers.counted_device import CountedDevice, OnDevice
from tests.helpers.metric_cases import TAXONOMY

IMAGES = 3


def output() -> Output:
    """Some boxes, of which small ones are nested in large ones, and random pixels."""
    random = torch.Generator().manual_seed(0)
    low = torch.rand(IMAGES, 60, 2, generator=random) * 40
    boxes = torch.cat((low, low + 4 + torch.rand(IMAGES, 60, 2, generator=random) * 20), 2)
    boxes[:, :30, :2] = boxes[:, 30:, :2] + 2
    boxes[:, :30, 2:] = (boxes[:, :30, :2] + boxes[:, 30:, 2:]) / 2
    scores = torch.rand(IMAGES, 60, 3, generator=random)
    logits = torch.randn(IMAGES, 60, generator=random)
    detection = DetectionOutput(boxes, logits, scores, scores, low[0], torch.ones(60), ((6, 10, 8),))
    return Output(detection, 3 * torch.randn(IMAGES, 5, 16, 16, generator=random), 4)


def test_the_host_waits_at_most_ten_times_for_each_image() -> None:
    placement = Placement((50, 60), (64, 64), (1.28, 64 / 60), (0.0, 0.0))
    post, plain = FusionPostProcess(Decode(score_threshold=0.3)), output()
    want = post(plain, [placement] * IMAGES, TAXONOMY)
    there = [OnDevice(each) for each in plain.detection or ()[:6] if isinstance(each, torch.Tensor)]
    assert plain.detection is not None and plain.semantic is not None
    moved = plain._replace(
        detection=plain.detection._replace(boxes=there[0], scores=there[3]), semantic=OnDevice(plain.semantic)
    )
    with CountedDevice() as device:
        post(moved, [placement] * IMAGES, TAXONOMY)
        # The tables of the classes are made at the first image.
        device.waits.clear()
        got = post(moved, [placement] * IMAGES, TAXONOMY)
    assert len(device.waits) <= 10 * IMAGES, device.waits
    assert device.waits.count("copy") <= 4 * IMAGES
    for mine, other in ((got.raw, want.raw), (got.fused, want.fused)):
        for a, b in zip(mine or [], other or [], strict=True):
            assert len(a.boxes) > 20 and a.segments == b.segments
            for name in ("boxes", "scores", "labels", "semantic", "instances", "panoptic", "certainty"):
                same(a, b, name)


def same(a: Prediction, b: Prediction, name: str) -> None:
    one, other = getattr(a, name), getattr(b, name)
    assert (one is None) == (other is None), name
    if one is not None:
        assert type(one) is torch.Tensor and torch.equal(one, other), name
