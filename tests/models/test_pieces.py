"""Batches that are cut on a CPU."""

from __future__ import annotations

import pytest
import torch

from ocrnet_pl.models import pieces
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.structures import Output
from tests.helpers.builders import tiny_network


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> tuple[OCRNet, list[int]]:
    """Return a network of which two images of 64 pixels are a piece, and the numbers of images that it computes."""
    monkeypatch.setattr(pieces, "_PIXELS", 2 * 64 * 64)
    network, seen = tiny_network().eval(), []
    network.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    return network, seen


def images(count: int, side: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def require_equal(found: Output, wanted: Output) -> None:
    assert found.stride == wanted.stride
    assert found.detection is not None and wanted.detection is not None
    for name in DETECTION:
        own, other = getattr(found.detection, name), getattr(wanted.detection, name)
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    assert found.detection.grids == wanted.detection.grids
    torch.testing.assert_close(found.semantic, wanted.semantic, rtol=1e-5, atol=1e-5)


DETECTION = ("boxes", "confidence", "classes", "scores", "points", "strides")


def test_a_batch_is_computed_in_pieces_with_the_same_output(batches: tuple[OCRNet, list[int]]) -> None:
    network, seen = batches
    five = images(5)
    # With gradients it is one piece.
    wanted = network(five)
    assert seen == [5]
    with torch.inference_mode():
        found = network(five)
        assert seen == [5, 2, 2, 1]
        require_equal(found, wanted)
        # An image that is larger than a piece is one.
        network(images(2, side=128))
        assert seen == [5, 2, 2, 1, 1, 1]


def test_each_image_has_its_own_predictions(batches: tuple[OCRNet, list[int]]) -> None:
    network, _ = batches
    every = [image.permute(1, 2, 0).numpy() for image in images(5)]
    alone, together = network.predict(every, batch_size=1), network.predict(every, batch_size=5)
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.boxes, other.boxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_training_and_graphs_see_the_whole_batch(
    batches: tuple[OCRNet, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, seen = batches
    network.train()(images(5))
    assert seen == [5]
    network.eval()
    with monkeypatch.context() as patched:
        # As torch.export and torch.compile say it while they look on.
        patched.setattr(torch.compiler, "is_compiling", lambda: True)
        network(images(5))
    assert seen == [5, 5]
    # A part that was compiled alone.
    network.encoder._compiled_call_impl = network.encoder._call_impl
    network(images(5))
    assert seen == [5, 5, 5]


def test_without_a_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_PIXELS", 64 * 64)
    with torch.inference_mode():
        pixels = tiny_network(detection=False).eval()(images(3))
        boxes = tiny_network(segmentation=False).eval()(images(3))
    assert pixels.detection is None and pixels.semantic is not None and len(pixels.semantic) == 3
    assert boxes.semantic is None and boxes.detection is not None and len(boxes.detection.boxes) == 3
