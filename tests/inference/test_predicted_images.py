"""Images handed to ``OCRNet.predict``: their ids, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ocrnet_pl.data.sources.folder import ImageFolder
from ocrnet_pl.errors import DataError
from tests.helpers.builders import tiny_network


def test_ids_are_the_paths_that_the_predict_command_writes(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    paths = [tmp_path / "a.png", tmp_path / "sub" / "a.png", tmp_path / "a.jpg"]
    for path in paths:
        Image.new("RGB", (20, 20)).save(path)
    network = tiny_network()
    found = {prediction.path: prediction.image_id for prediction in network.predict(paths)}
    folder = ImageFolder(tmp_path)
    assert found == {path: name for name, path in (folder.identity(index) for index in range(3))}
    single = ImageFolder(paths[1])
    assert network.predict(paths[1])[0].image_id == single.identity(0)[0] == "a.png"


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.rand(3, 20, 20), r"found float32; convert values from 0 to 1 with \(image \* 255\)\.round\(\)"),
        (torch.rand(3, 20, 20).half() * 255, r"found float16; .* from 0 to 255 with image\.round\(\)"),
        (torch.ones(3, 20, 20, dtype=torch.int64), r"found int64; convert it with image\.to\(torch\.uint8\)"),
        (torch.ones(3, 20, 20, dtype=torch.bool), "found bool"),
        (torch.ones(2, 3, 20, 20, dtype=torch.uint8), r"found the shape \[2, 3, 20, 20\]; give a batch as a list"),
        (torch.ones(20, 20, dtype=torch.uint8), r"found the shape \[20, 20\]; add a dimension"),
        (torch.ones(20, 30, 3, dtype=torch.uint8), r"expected 3 channels, found the shape \[20, 30, 3\]; put the chan"),
        (torch.ones(4, 20, 20, dtype=torch.uint8), r"expected 3 channels, found the shape \[4, 20, 20\]"),
        (torch.ones(3, 0, 20, dtype=torch.uint8), "has no pixel"),
        (np.ones((20, 20, 3), np.uint8), r"found numpy\.ndarray; convert an array"),
        (Image.new("RGB", (20, 20)), r"found PIL\.Image\.Image; convert an array"),
        (7, "found int"),
    ],
)
def test_what_is_no_image_is_refused_with_the_way_to_convert_it(image: object, words: str) -> None:
    network = tiny_network()
    with pytest.raises(DataError, match=f"^the image: .*{words}"):
        network.predict(image)
    with pytest.raises(DataError, match=f"^image 1: .*{words}"):
        network.predict([torch.zeros(3, 20, 20, dtype=torch.uint8), image])
    assert network.training
