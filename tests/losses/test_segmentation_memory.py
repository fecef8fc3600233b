"""The segmentation loss of several images at a time: what it keeps for the backward pass, and that nothing changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ocrnet_pl.losses import segmentation
from ocrnet_pl.losses.boundary import Boundary
from ocrnet_pl.losses.pixels import CrossEntropy, Focal, OHEMCrossEntropy, PixelLoss
from ocrnet_pl.losses.regions import Dice, Lovasz, Tversky
from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.structures import Batch, Output

IMAGES, CLASSES, SIZE, STRIDE = 8, 21, 64, 4


def case() -> tuple[Tensor, Batch]:
    random = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(IMAGES, CLASSES, SIZE // STRIDE, SIZE // STRIDE, generator=random)
    semantic = torch.randint(0, CLASSES, (IMAGES, SIZE, SIZE), generator=random, dtype=torch.uint8)
    semantic[:, :9], semantic[3] = 255, 255
    known = torch.ones(IMAGES, CLASSES, dtype=torch.bool)
    known[2, ::2] = False
    nothing, none = torch.zeros(IMAGES, 8, 4), torch.zeros(IMAGES, 8, dtype=torch.bool)
    images = torch.zeros(IMAGES, 3, SIZE, SIZE, dtype=torch.uint8)
    return logits, Batch(images, nothing, none.long(), none, none, semantic, none, known)


def step(loss: SegmentationLoss, logits: Tensor, batch: Batch) -> tuple[dict[str, Tensor], Tensor, int]:
    """Return the terms, the gradient, and the bytes that were kept for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    logits = logits.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        terms = loss(Output(None, logits, STRIDE, (logits * 0.5,)), batch)
    sum(terms.values(), torch.zeros(())).backward()
    assert logits.grad is not None
    return terms, logits.grad, sum(kept.values())


WEIGHTS = [1.0 + i for i in range(CLASSES)]
every_kind = pytest.mark.parametrize(
    "terms",
    [
        [CrossEntropy(label_smoothing=0.1), Dice()],
        [CrossEntropy(rare=0.1, class_weights=WEIGHTS)],
        [Focal(class_weights=WEIGHTS), Tversky(), Boundary()],
        [OHEMCrossEntropy(threshold=0.3), Lovasz()],
    ],
)


@every_kind
def test_images_in_parts_give_the_same_loss_and_gradient(
    terms: Sequence[PixelLoss], monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, batch = case()
    loss = SegmentationLoss(terms)
    whole, gradient, _ = step(loss, logits, batch)
    for together in (1, 3 * CLASSES * SIZE**2):
        monkeypatch.setattr(segmentation, "_TOGETHER", together)
        parts, other, _ = step(loss, logits, batch)
        assert parts.keys() == whole.keys()
        for name, value in whole.items():
            torch.testing.assert_close(parts[name], value, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(other, gradient, rtol=1e-6, atol=0.0)


@every_kind
def test_bands_of_rows_give_the_same_loss(terms: Sequence[PixelLoss], monkeypatch: pytest.MonkeyPatch) -> None:
    logits, batch = case()
    # The rows below the image are padding, and the last band has fewer rows than the others.
    batch = replace(batch, semantic=batch.semantic[:, : SIZE - 9, : SIZE - 3])
    loss = SegmentationLoss(terms)
    whole, _, _ = step(loss, logits, batch)
    for rows in (STRIDE, 3 * STRIDE, SIZE):
        monkeypatch.setattr(segmentation, "_CACHED", rows * CLASSES * SIZE)
        with torch.no_grad():
            bands = loss(Output(None, logits, STRIDE, (logits * 0.5,)), batch)
        for name, value in whole.items():
            torch.testing.assert_close(bands[name], value.detach(), rtol=1e-6, atol=1e-6)


def test_parts_keep_less_than_a_quarter(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, batch = case()
    loss = SegmentationLoss()
    _, _, whole = step(loss, logits, batch)
    monkeypatch.setattr(segmentation, "_TOGETHER", 1)
    _, _, parts = step(loss, logits, batch)
    probabilities = 4 * IMAGES * CLASSES * SIZE**2
    assert whole > 2 * probabilities
    assert parts < whole / 4 and parts < probabilities / 2
