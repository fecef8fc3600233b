"""The letterbox of a file against the one of ``predict``, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ocrnet_pl.export.graph import Graph
from ocrnet_pl.export.letterbox import letterbox
from ocrnet_pl.imaging.geometry import letterbox_image
from tests.helpers.exported import RUNTIMES, session

SHAPES = [(64, 48), (48, 64), (33, 70), (97, 113), (150, 100), (200, 31), (240, 320), (16, 5), (48, 31), (96, 5)]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("channels", [3, 5])
def test_images_of_any_size_become_the_same_pixels(channels: int, runtime: str) -> None:
    size = (48, 64)
    graph = Graph()
    images = graph.input("images", np.uint8, ("batch", "height", "width", channels))
    boxed, frame = letterbox(graph, images, size, channels)
    graph.output(boxed, "boxed", ("batch", channels, *size))
    graph.output(graph.concat(frame.inner_height, frame.inner_width), "inner", (2,))
    run = session(graph, runtime)
    random = np.random.default_rng(0)
    for shape in SHAPES:
        # Noise at full contrast: each weight that differs shows.
        batch = random.integers(0, 256, (2, *shape, channels), np.uint8)
        got, inner = run.run(None, {"images": batch})
        for image, own in zip(batch, got, strict=True):
            wanted, placement = letterbox_image(torch.from_numpy(image).permute(2, 0, 1), size)
            np.testing.assert_array_equal(own, wanted.numpy(), err_msg=f"{shape}")
            assert inner.tolist() == [round(a * b) for a, b in zip(shape, placement.scale, strict=True)]
