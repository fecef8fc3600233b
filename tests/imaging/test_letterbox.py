"""The letterbox: image, boxes and maps lie where its placement says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrnet_pl.imaging.geometry import letterbox_image, letterbox_placement, letterbox_sample
from tests.helpers.painted import array
from tests.helpers.shapes import blobs, measure, ramps


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    height=st.integers(40, 200), width=st.integers(40, 200), out=st.tuples(st.integers(40, 200), st.integers(40, 200))
)
def test_letterbox_lies_where_its_placement_says(height: int, width: int, out: tuple[int, int]) -> None:
    image, placement = letterbox_image(ramps(height, width), out)
    assert image.shape == (3, *out)
    for axis, original in ((0, width), (1, height)):
        scale, offset = measure(image, axis, original)
        assert abs(offset) < 0.6 and abs(scale * original + offset - placement.scale[1 - axis] * original) < 0.6
    new = [round(side * scale) for side, scale in zip((height, width), placement.scale, strict=True)]
    assert new[0] == out[0] or new[1] == out[1]
    assert (image[2, : new[0], : new[1]] == 255).all()
    assert (image[:, new[0] :] == 114).all() and (image[:, :, new[1] :] == 114).all()


@pytest.mark.parametrize(("height", "width", "out"), [(37, 91, (64, 64)), (91, 37, (64, 48)), (33, 47, (100, 131))])
def test_letterboxed_maps_by_brute_force(height: int, width: int, out: tuple[int, int]) -> None:
    before = blobs(height, width, 1)
    after = letterbox_sample(before, out)
    factor = min(out[0] / height, out[1] / width)
    new_height, new_width = round(height * factor), round(width * factor)
    source, expected = array(before.instances), np.zeros(out, dtype=int)
    classes, expected_classes = array(before.semantic), np.full(out, 255)
    for i in range(new_height):
        for j in range(new_width):
            y, x = int((i + 0.5) * height / new_height), int((j + 0.5) * width / new_width)
            expected[i, j], expected_classes[i, j] = source[y, x], classes[y, x]
    assert np.array_equal(array(after.instances), expected)
    assert np.array_equal(array(after.semantic), expected_classes)
    scale = np.array([new_width / width, new_height / height] * 2)
    assert np.allclose(after.boxes.numpy(), before.boxes.numpy() * scale, atol=1e-4)
    assert after.placement is not None
    assert after.placement.scale == (new_height / height, new_width / width) and after.placement.offset == (0, 0)


def test_letterbox_of_extreme_shapes() -> None:
    placement = letterbox_placement((1, 1000), (64, 64))
    assert placement.scale == (1.0, 0.064)
    image, _ = letterbox_image(torch.zeros(3, 1, 1000, dtype=torch.uint8), (64, 64))
    assert (image[:, 0] == 0).all() and (image[:, 1:] == 114).all()


def test_letterboxing_twice_keeps_the_way_back() -> None:
    sample = letterbox_sample(letterbox_sample(blobs(50, 80, 0), (64, 64)), (128, 96))
    assert sample.placement is not None
    assert sample.placement.original_size == (50, 80) and sample.placement.input_size == (128, 96)
    assert sample.placement.scale == pytest.approx((40 / 50 * 1.5, 64 / 80 * 1.5), abs=0.02)
