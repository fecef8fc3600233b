"""What the page of ``demo`` does, without the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ocrnet_pl.errors import DataError
from ocrnet_pl.serving.served_network import LoadedNetwork, ServedNetwork
from ocrnet_pl.serving.trying import drawn, predict_file, table
from tests.helpers.builders import tiny_network


@pytest.fixture(scope="module")
def loaded() -> LoadedNetwork:
    network = tiny_network()
    network.postprocess.decode.score_threshold = 1e-5
    return LoadedNetwork(ServedNetwork("none.ckpt"), network)


def test_boxes_pixels_or_all_of_it_are_drawn(loaded: LoadedNetwork, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    found = predict_file(loaded, str(tmp_path / "a.png"), 10_000)
    whole, boxes, pixels = (np.asarray(drawn(found, view, 0.0)) for view in ("fused", "boxes", "pixels"))  # type: ignore[arg-type]
    assert whole.shape == boxes.shape == pixels.shape == image.shape
    assert np.array_equal(whole, np.asarray(found.plot(score=0.0)))
    # Boxes leave what is far from them as it was, tints change nearly everything.
    assert not np.array_equal(boxes, whole) and not np.array_equal(pixels, whole)
    assert np.array_equal(pixels, np.asarray(found.filter(score=1.0).plot(score=1.0)))
    assert np.array_equal(np.asarray(drawn(found, "boxes", 1.0)), image)


def test_the_table_has_the_objects_that_are_shown(loaded: LoadedNetwork, tmp_path: Path) -> None:
    Image.new("RGB", (80, 48), (90, 20, 200)).save(tmp_path / "a.png")
    found = predict_file(loaded, str(tmp_path / "a.png"), 10_000)
    score = float(found.scores.median())
    rows = table(found, score)
    assert 0 < len(rows) == int((found.scores >= score).sum()) < len(table(found, 0.0))
    best = int(found.scores.argmax())
    assert rows[0][1] == pytest.approx(float(found.scores[best]), abs=1e-3)
    assert rows[0][2:] == pytest.approx(found.boxes[best].tolist(), abs=0.06) or rows[0][1] == rows[1][1]


def test_what_is_not_an_image_is_said_by_its_name(loaded: LoadedNetwork, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(DataError, match=r"^text.jpg: this is not an image file"):
        predict_file(loaded, str(tmp_path / "text.jpg"), 10_000)
    Image.new("RGB", (400, 300)).save(tmp_path / "large.png")
    with pytest.raises(DataError, match=r"^large.png: the image is 400 x 300, more than the limit of 0.01 megapixels"):
        predict_file(loaded, str(tmp_path / "large.png"), 10_000)
