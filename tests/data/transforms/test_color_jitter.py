"""Brightness, contrast, saturation and hue, against torchvision and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from ocrnet_pl.data.transforms import ColorJitter, adjust_colors
from tests.helpers.painted import generator
from tests.helpers.shapes import blobs


@pytest.mark.parametrize(
    ("brightness", "contrast", "saturation"),
    [(1.2, 1.0, 1.0), (1.0, 1.3, 1.0), (1.0, 1.0, 1.4), (0.8, 0.7, 0.6), (1.1, 1.2, 0.5)],
)
def test_colors_as_torchvision_changes_them(brightness: float, contrast: float, saturation: float) -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(90, 150, (3, 31, 17), dtype=np.uint8))
    # In floating point and mid range, so that torchvision neither clips nor rounds between the steps.
    expected = F.adjust_saturation(image.float() / 255, saturation)
    expected = F.adjust_contrast(F.adjust_brightness(expected, brightness), contrast) * 255
    got = adjust_colors(image, brightness, contrast, saturation, 0.0).float()
    assert (got - expected).abs().max() <= 0.7  # rounding, and the ten bits of the fixed-point product


def test_hue_turns_the_color_circle() -> None:
    color = torch.tensor([180, 100, 90], dtype=torch.uint8)[:, None, None].expand(3, 2, 2)
    assert (adjust_colors(color, 1, 1, 1, 0.0).int() - color.int()).abs().max() == 0
    half = adjust_colors(color, 1, 1, 1, 0.5).float()[:, 0, 0]
    weights = torch.tensor([0.299, 0.587, 0.114])
    luma = float(weights @ color[:, 0, 0].float())
    assert float(weights @ half) == pytest.approx(luma, abs=1)  # as bright as before
    assert torch.allclose(half, 2 * luma - color[:, 0, 0].float(), atol=1.1)  # opposite on the circle


def test_color_jitter_leaves_geometry_and_other_channel_counts_alone() -> None:
    sample = blobs(20, 20, 0)
    after = ColorJitter(p=1.0)(sample, (20, 20), generator(1))
    assert after.boxes is sample.boxes and after.semantic is sample.semantic
    assert not torch.equal(after.image, sample.image)
    assert ColorJitter(p=0.0)(sample, (20, 20), generator(1)) is sample
    mono = torch.full((1, 4, 4), 100, dtype=torch.uint8)
    assert adjust_colors(mono, 1.5, 1.0, 1.0, 0.1).unique().tolist() == [150]
