"""Gamma, grey, blur and noise against torchvision and by their statistics; turning by small angles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from ocrnet_pl.data.records import make_sample
from ocrnet_pl.data.transforms import RandomBlur, RandomGamma, RandomGrayscale, RandomNoise, RandomRotate, Transform
from ocrnet_pl.data.transforms.quality import blur
from ocrnet_pl.data.transforms.rotation import rotate
from ocrnet_pl.structures import Sample, Supervision
from tests.helpers.painted import TAXONOMY, array, bounds, generator, painted
from tests.helpers.shapes import flat


def _noisy(channels: int = 3, height: int = 40, width: int = 56) -> Sample:
    image = torch.randint(0, 256, (channels, height, width), generator=generator(3), dtype=torch.uint8)
    sample = painted(height, width, 0)
    return sample.replace(image=type(sample.image)(image))


ALWAYS: list[Transform] = [RandomGamma(p=1.0), RandomGrayscale(p=1.0), RandomBlur(p=1.0), RandomNoise(p=1.0)]


@pytest.mark.parametrize("transform", ALWAYS, ids=lambda transform: type(transform).__name__)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_only_the_image_changes(transform: Transform, channels: int) -> None:
    sample = _noisy(channels)
    after = transform(sample, (1, 1), generator(2))
    assert after.boxes is sample.boxes and after.semantic is sample.semantic and after.instances is sample.instances
    assert after.image.shape == sample.image.shape and after.image.dtype == torch.uint8
    changed = not torch.equal(after.image, sample.image)
    assert changed == (channels == 3 or not isinstance(transform, RandomGrayscale))
    assert type(transform)(p=0.0)(sample, (1, 1), generator(2)) is sample


def test_gamma_as_torchvision_changes_it() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).expand(3, 2, 256)
    sample = _noisy()
    sample = sample.replace(image=type(sample.image)(ramp.contiguous()))
    exponents = []
    for seed in range(40):
        got = RandomGamma(2.0, p=1.0)(sample, (1, 1), generator(seed)).image.as_subclass(Tensor).float()
        exponent = float(torch.log(got[0, 0, 128] / 255) / np.log(128 / 255))
        exponents.append(exponent)
        expected = F.adjust_gamma(ramp.float() / 255, exponent) * 255
        # The exponent was read off a rounded value.
        assert (got - expected).abs().max() <= 1.6
    assert 0.5 <= min(exponents) < 0.6 and 1.7 < max(exponents) <= 2.02


def test_grayscale_as_torchvision_does_it() -> None:
    sample = _noisy()
    got = RandomGrayscale(p=1.0)(sample, (1, 1), generator()).image.as_subclass(Tensor)
    expected = F.rgb_to_grayscale(sample.image.as_subclass(Tensor), num_output_channels=3)
    assert (got.int() - expected.int()).abs().max() <= 1
    assert torch.equal(got[0], got[1]) and torch.equal(got[0], got[2])


@pytest.mark.parametrize("sigma", [0.3, 0.8, 1.5])
def test_blur_as_torchvision_does_it(sigma: float) -> None:
    image = _noisy().image.as_subclass(Tensor)
    radius = max(1, int(np.ceil(3 * sigma)))
    expected = F.gaussian_blur(image, [2 * radius + 1] * 2, [sigma] * 2)
    inside = (..., slice(radius, -radius), slice(radius, -radius))  # the edges are continued in another way
    assert (blur(image, sigma)[inside].int() - expected[inside].int()).abs().max() <= 1
    flat = torch.full((3, 2, 3), 77, dtype=torch.uint8)  # smaller than the kernel, and nothing to blur
    assert torch.equal(blur(flat, sigma), flat)


def test_noise_has_the_strength_it_says() -> None:
    sample = _noisy()
    gray = sample.replace(image=type(sample.image)(torch.full((3, 100, 100), 128, dtype=torch.uint8)))
    spreads = []
    for seed in range(40):
        values = array(RandomNoise(20.0, p=1.0)(gray, (1, 1), generator(seed)).image).astype(float)
        assert values.mean() == pytest.approx(128, abs=0.6)
        spreads.append(values.std())
    assert min(spreads) < 3 and 17 < max(spreads) < 20.5 and np.mean(spreads) == pytest.approx(10, abs=2.5)


@pytest.mark.parametrize("degrees", [-33.0, -7.5, 4.0, 20.0])
def test_rotation_as_torchvision_does_it(degrees: float) -> None:
    sample = painted(61, 84, 4)
    after = rotate(sample, degrees, 0.0)
    expected = F.rotate_image(
        sample.image.as_subclass(Tensor), degrees, interpolation=InterpolationMode.BILINEAR, fill=[114.0] * 3
    )
    # torchvision blends the border with the fill in its own way; elsewhere both are the same.
    assert ((after.image.int() - expected.int()).abs() <= 2).float().mean() > 0.985
    for plane, source, fill in ((after.semantic, sample.semantic, 255), (after.instances, sample.instances, 0)):
        assert plane is not None and source is not None
        turned = F.rotate_mask(source.as_subclass(Tensor)[None], degrees, fill=[float(fill)])[0]
        assert (array(plane) == turned.numpy()).mean() > 0.99  # pixels exactly between two may go to either
    boxes = array(after.boxes)
    for row in range(len(boxes)):
        assert boxes[row].tolist() == bounds(array(after.instances) == row + 1)


def _disc(
    instances: bool, crowd: bool = False, center: tuple[float, float] = (50.0, 60.0), radius: float = 20.0
) -> Sample:
    y, x = np.mgrid[:100, :120] + 0.5
    mask = (y - center[0]) ** 2 + (x - center[1]) ** 2 <= radius**2
    return make_sample(
        torch.zeros(3, 100, 120, dtype=torch.uint8),
        boxes=[bounds(mask)],
        labels=[0],
        crowd=[crowd],
        semantic=mask.astype(np.uint8),
        instances=mask.astype(np.int32) if instances else None,
        supervision=Supervision.full(TAXONOMY),
    )


def test_turned_boxes_without_pixels_are_those_of_ellipses() -> None:
    """A disc stays a disc: its box is the same at any angle about its middle; a crowd's grows to its corners."""
    for degrees in (10.0, 30.0, 45.0):
        assert np.allclose(array(rotate(_disc(False), degrees, 0.2).boxes), [[40, 30, 80, 70]], atol=1e-3)
        assert np.abs(array(rotate(_disc(True), degrees, 0.2).boxes) - [[40, 30, 80, 70]]).max() <= 1
    grown = array(rotate(_disc(False, crowd=True), 45.0, 0.2).boxes)[0]
    assert np.allclose(grown, [60 - 20 * 2**0.5, 50 - 20 * 2**0.5, 60 + 20 * 2**0.5, 50 + 20 * 2**0.5], atol=1e-3)


def test_an_object_of_which_just_the_limit_is_turned_in_remains_a_target() -> None:
    """A bar from the left edge to the middle, stood up in an image half as high: five of its ten columns fit."""
    bar = flat((10, 20), 20, [(0, 4, 10, 6, 0)])
    assert array(rotate(bar, 90.0, 0.5).boxes).tolist() == [[9, 5, 11, 10]]
    assert [rotate(bar, 90.0, limit).crowd.tolist() for limit in (0.5, 0.51)] == [[False], [True]]


@pytest.mark.parametrize("instances", [True, False])
def test_objects_turned_out_of_the_image(instances: bool) -> None:
    """A disc at the left edge, turned down and out: by hand, its middle moves to (x, y) about the image's."""
    sample = _disc(instances, center=(50.0, 20.0))
    after = rotate(sample, 60.0, 0.2)
    middle = np.array([60 - 40 * np.cos(np.pi / 3), 50 + 40 * np.sin(np.pi / 3)])
    expected = [middle[0] - 20, middle[1] - 20, middle[0] + 20, min(100, middle[1] + 20)]
    assert np.abs(array(after.boxes)[0] - expected).max() <= 1
    assert not after.crowd.any() and rotate(sample, 60.0, 0.95).crowd.all()
    gone = rotate(_disc(instances, center=(9.0, 9.0), radius=8.0), -51.0, 0.2)
    assert len(gone.labels) == 0 and (gone.instances is None or array(gone.instances).max() == 0)


def test_angles_cover_their_range() -> None:
    sample = _disc(True, center=(50.0, 100.0))
    heights = []
    for seed in range(60):
        after = RandomRotate(15, p=1.0)(sample, (1, 1), generator(seed))
        box = array(after.boxes)[0]
        heights.append(float((box[1] + box[3]) / 2 - 50))
    reach = 40 * np.sin(np.radians(15))
    assert -reach - 1 < min(heights) < -0.7 * reach and 0.7 * reach < max(heights) < reach + 1


def test_options_out_of_range() -> None:
    for make in (
        lambda: RandomGamma(0.5),
        lambda: RandomGrayscale(1.5),
        lambda: RandomBlur(0),
        lambda: RandomBlur(2, 1),
        lambda: RandomNoise(0),
        lambda: RandomNoise(300),
        lambda: RandomRotate(0),
        lambda: RandomRotate(90),
        lambda: RandomRotate(p=-1),
    ):
        with pytest.raises(ValueError, match=r"^Random\w+: "):
            make()
