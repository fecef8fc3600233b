"""COCO instances and panoptic files that cannot be right: one line that names the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.coco import CocoInstances
from ocrnet_pl.data.sources.coco_panoptic import CocoPanoptic
from ocrnet_pl.errors import DataError
from tests.helpers.bad_files import huge_png

Open = Callable[[], Source]


def _write(root: Path, box: list[float]) -> None:
    (root / "images").mkdir(exist_ok=True)
    (root / "masks").mkdir(exist_ok=True)
    Image.new("RGB", (30, 20)).save(root / "images/a.png")
    red = np.zeros((20, 30, 3), dtype=np.uint8)
    red[5:10, 3:8, 0] = 5
    Image.fromarray(red).save(root / "masks/a.png")
    category = {"id": 1, "name": "cat", "isthing": 1}
    images = [{"id": 7, "file_name": "a.png", "height": 20, "width": 30}]
    entry = {"image_id": 7, "category_id": 1, "bbox": box}
    segment = {"id": 5, "category_id": 1, "bbox": box}
    panoptic = {"image_id": 7, "file_name": "a.png", "segments_info": [segment]}
    for name, annotation in (("instances", entry), ("panoptic", panoptic)):
        content = {"images": images, "categories": [category], "annotations": [annotation]}
        (root / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture(params=["instances", "panoptic"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Open]:
    """The JSON, and what opens it."""
    _write(tmp_path, [3, 5, 5, 5])
    if request.param == "instances":
        return tmp_path / "instances.json", lambda: CocoInstances(
            "images", "instances.json", semantic=False, root=tmp_path
        )
    return tmp_path / "panoptic.json", lambda: CocoPanoptic("images", "panoptic.json", "masks", root=tmp_path)


def _message(read: Callable[[], Any]) -> str:
    with pytest.raises(DataError) as error:
        read()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_sound_file_is_read(opened: tuple[Path, Open]) -> None:
    assert opened[1]()[0].boxes.tolist() == [[3, 5, 8, 10]]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"images": 3}', "\x00\xff"])
def test_empty_and_broken_json(opened: tuple[Path, Open], text: str) -> None:
    path, read = opened
    path.write_text(text)
    assert path.name in _message(read)


def test_missing_files(opened: tuple[Path, Open], tmp_path: Path) -> None:
    path, read = opened
    content = path.read_text()
    path.unlink()
    assert path.name in _message(read)
    path.write_text(content)
    (tmp_path / "images/a.png").unlink()
    message = _message(read)
    assert path.name in message and "a.png" in message


@pytest.mark.parametrize("box", [[float("nan"), 5, 5, 5], [3, float("inf"), 5, 5], ["three", 5, 5, 5], [3, 5, 5], None])
def test_boxes_that_are_no_numbers(opened: tuple[Path, Open], tmp_path: Path, box: list[float]) -> None:
    path, read = opened
    _write(tmp_path, box)
    message = _message(read)
    assert path.name in message and "bbox" in message


@pytest.mark.parametrize("box", [[3, 5, -5, 5], [3, 5, 5, 0]])
def test_boxes_without_area_are_left_out_and_shown_to_the_check(
    opened: tuple[Path, Open], tmp_path: Path, box: list[float]
) -> None:
    _write(tmp_path, box)
    source = opened[1]()
    assert len(source[0].boxes) == 0
    raw = source.raw_boxes(0)
    assert raw is not None and raw.rows.tolist() == [-1]
    assert raw.boxes.tolist() == [[box[0], box[1], box[0] + box[2], box[1] + box[3]]]


@pytest.mark.parametrize("change", [lambda p: p.write_bytes(b""), lambda p: p.write_bytes(b"text"), huge_png])
def test_images_that_cannot_be_read(
    opened: tuple[Path, Open], tmp_path: Path, change: Callable[[Path], object]
) -> None:
    source = opened[1]()
    change(tmp_path / "images/a.png")
    assert "images/a.png" in _message(lambda: source[0])


@pytest.mark.parametrize("change", [lambda p: p.write_bytes(b""), lambda p: p.write_bytes(b"text"), huge_png])
def test_masks_that_cannot_be_read(tmp_path: Path, change: Callable[[Path], object]) -> None:
    _write(tmp_path, [3, 5, 5, 5])
    source = CocoPanoptic("images", "panoptic.json", "masks", root=tmp_path)
    change(tmp_path / "masks/a.png")
    assert "masks/a.png" in _message(lambda: source[0])
