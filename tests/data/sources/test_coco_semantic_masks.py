"""COCO instances with semantic PNGs beside them, against maps painted pixel by pixel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ocrnet_pl.data.sources.coco import CocoInstances
from ocrnet_pl.errors import DataError

HEIGHT, WIDTH = 12, 16
NAMES = {0: "road", 1: "car", 2: None, 7: "sky"}


def _write(root: Path) -> np.ndarray:
    """Write two images, one with a mask; return the mask."""
    (root / "images").mkdir()
    (root / "semantic").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / "images" / f"{name}.png")
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[:4] = 7
    mask[4:8, 2:9] = 2
    mask[9:, 12:] = 255
    Image.fromarray(mask).save(root / "semantic" / "a.png")
    square = [3, 5, 8, 5, 8, 10, 3, 10]
    entry = {"category_id": 1, "bbox": [3, 5, 5, 5], "segmentation": [square], "iscrowd": 0}
    content = {
        "images": [{"id": i, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for i, n in enumerate("ab")],
        "annotations": [entry | {"image_id": 0}, entry | {"image_id": 1}],
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "dog"}],
    }
    (root / "labels.json").write_text(json.dumps(content))
    return mask


def _open(root: Path, **options: Any) -> CocoInstances:
    options = {"semantic_masks": "semantic", "semantic_names": NAMES} | options
    return CocoInstances("images", "labels.json", root=root, **options)


@pytest.mark.parametrize("fill", [False, True])
def test_the_map_is_the_png(tmp_path: Path, fill: bool) -> None:
    mask = _write(tmp_path)
    source = _open(tmp_path, fill_from_instances=fill)
    names = [category.name for category in source.taxonomy.semantic_categories]
    assert sorted(names) == ["car", "road", "sky"]
    assert [category.name for category in source.taxonomy.detection_categories] == ["car", "dog"]
    first, second = source[0], source[1]
    for y in range(HEIGHT):
        for x in range(WIDTH):
            name = NAMES.get(int(mask[y, x]))
            inside = 3 <= x < 8 and 5 <= y < 10
            if name is None and fill and inside:
                name = "car"
            assert first.semantic[y, x] == (255 if name is None else names.index(name))
            assert first.instances[y, x] == int(inside)
    assert second.semantic is None and not second.supervision.semantic.any()
    assert second.supervision.detection.all() and len(second.boxes) == 1
    assert list(source.files(0)) == [str(tmp_path / "images/a.png"), str(tmp_path / "semantic/a.png")]
    assert list(source.files(1)) == [str(tmp_path / "images/b.png")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"semantic_names": None}, "are set together"),
        ({"semantic_masks": None}, "are set together"),
        ({"semantic": False}, "semantic_masks"),
        ({"semantic_masks": None, "semantic_names": None, "fill_from_instances": True}, "fill_from_instances"),
        ({"semantic_masks": "elsewhere"}, "elsewhere"),
        ({"semantic_masks": "../semantic/.."}, "semantic"),
    ],
)
def test_options_that_do_not_fit_are_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    (tmp_path / "root").mkdir()
    _write(tmp_path / "root")
    with pytest.raises(DataError, match=message):
        _open(tmp_path / "root", **options)


def test_masks_that_do_not_fit_are_named(tmp_path: Path) -> None:
    mask = _write(tmp_path)
    file = tmp_path / "semantic" / "a.png"
    Image.fromarray(mask[:5]).save(file)
    with pytest.raises(DataError, match=r"a\.png: the mask is 16 x 5"):
        _open(tmp_path)[0]
    mask[0, 0] = 9
    Image.fromarray(mask).save(file)
    with pytest.raises(DataError, match=r"a\.png.*9"):
        _open(tmp_path)[0]
    file.write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.png"):
        _open(tmp_path)[0]
