"""COCO panoptic files against brute force and a hand-made case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ocrnet_pl.data.sources.coco_panoptic import CocoPanoptic
from ocrnet_pl.errors import DataError
from tests.helpers.map_files import maps


def _panoptic(tmp_path: Path) -> dict[str, Any]:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir(exist_ok=True)
    Image.new("RGB", (4, 2)).save(tmp_path / "images" / "a.jpg")
    # Ids over one byte: 300 = 44 + 256, 70000 = 112 + 17 * 256 + 65536.
    colors = {0: (0, 0, 0), 5: (5, 0, 0), 300: (44, 1, 0), 70000: (112, 17, 1)}
    ids = [[0, 5, 300, 300], [70000, 70000, 300, 300]]
    mask = np.array([[colors[value] for value in row] for row in ids], dtype=np.uint8)
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 2, "width": 4}],
        "categories": [
            {"id": 1, "name": "cat", "isthing": 1, "color": [1, 2, 3]},
            {"id": 200, "name": "sea", "isthing": 0},
        ],
        "annotations": [
            {
                "image_id": 1,
                "file_name": "a.png",
                "segments_info": [
                    {"id": 70000, "category_id": 1, "iscrowd": 1, "bbox": [0, 1, 2, 1]},
                    {"id": 5, "category_id": 200, "iscrowd": 0, "bbox": [1, 0, 1, 1]},
                    {"id": 300, "category_id": 1, "iscrowd": 0, "bbox": [2, 0, 2, 2]},
                ],
            }
        ],
    }


def _open_panoptic(tmp_path: Path, content: dict[str, Any]) -> CocoPanoptic:
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    return CocoPanoptic(tmp_path / "images", tmp_path / "panoptic.json", tmp_path / "masks")


def test_panoptic_by_hand(tmp_path: Path) -> None:
    source = _open_panoptic(tmp_path, _panoptic(tmp_path))
    assert [c.name for c in source.taxonomy.semantic_categories] == ["sea", "cat"]
    assert source.taxonomy.detection_categories[0].color == (1, 2, 3)
    sample = source[0]
    instances, semantic = maps(sample)
    assert semantic.tolist() == [[255, 0, 1, 1], [1, 1, 1, 1]]
    assert instances.tolist() == [[0, 0, 2, 2], [0, 0, 2, 2]]
    assert sample.boxes.tolist() == [[0, 1, 2, 2], [2, 0, 4, 2]]
    assert sample.crowd.tolist() == [True, False] and sample.labels.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (("annotations", 0, "image_id"), 9, "annotations[0].image_id"),
        (("annotations", 0, "file_name"), "../gone.png", "leads out"),
        (("annotations",), [], "image 1 has none"),
        (("annotations", 0, "segments_info", 1, "category_id"), 7, "segments_info[1].category_id"),
        (("annotations", 0, "segments_info", 1, "id"), 1 << 24, "segments_info[1].id"),
        (("categories", 1, "isthing"), None, "categories[1].isthing"),
    ],
)
def test_wrong_panoptic_files_name_the_field(tmp_path: Path, keys: tuple[Any, ...], value: Any, words: str) -> None:
    content = _panoptic(tmp_path)
    target: Any = content
    for key in keys[:-1]:
        target = target[key]
    target[keys[-1]] = value
    with pytest.raises(DataError) as error:
        _open_panoptic(tmp_path, content)
    assert words in str(error.value) and "panoptic.json" in str(error.value)


def test_panoptic_masks_that_do_not_fit(tmp_path: Path) -> None:
    content = _panoptic(tmp_path)
    del content["annotations"][0]["segments_info"][1]
    with pytest.raises(DataError, match="segment id 5"):
        _open_panoptic(tmp_path, content)[0]
    Image.new("L", (4, 2)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(DataError, match="three channels"):
        _open_panoptic(tmp_path, content)[0]
    Image.new("RGB", (5, 2)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(DataError, match="5 x 2"):
        _open_panoptic(tmp_path, content)[0]


@pytest.mark.parametrize("name", ["formats/coco_panoptic", "coco128"])
def test_real_panoptic_by_brute_force(shared_data: Path, name: str) -> None:
    if name == "coco128":
        annotations = shared_data / name / "panoptic_segmentation" / "annotations"
        paths = (shared_data / name / "images" / "val2017", annotations / "panoptic_val2017.json")
        masks = annotations / "panoptic_val2017"
    else:
        folder = shared_data / name
        paths = (folder / "input_images", folder / "panoptic_examples.json")
        masks = folder / "panoptic_examples"
    source = CocoPanoptic(*paths, masks)
    content = json.loads(paths[1].read_text())
    by_image = {annotation["image_id"]: annotation for annotation in content["annotations"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    assert (source.taxonomy.num_detection, source.taxonomy.num_semantic) == (80, 133)
    crowds = 0
    for i in range(0, len(source), 5):
        sample = source[i]
        instances, semantic = maps(sample)
        annotation = by_image[sample.image_id]
        colors = np.array(Image.open(masks / annotation["file_name"]).convert("RGB")).astype(int)
        ids = colors[..., 0] + 256 * colors[..., 1] + 65536 * colors[..., 2]
        assert np.array_equal(semantic == 255, ids == 0)
        row = 0
        for segment in annotation["segments_info"]:
            values = np.unique(semantic[ids == segment["id"]])
            category = source.taxonomy.semantic_categories[int(values[0])]
            assert len(values) == 1 and category.name == names[segment["category_id"]]
            numbers = np.unique(instances[ids == segment["id"]]).tolist()
            if not category.is_thing:
                assert numbers == [0]
                continue
            assert int(sample.labels[row]) == category.detection
            assert bool(sample.crowd[row]) == bool(segment["iscrowd"])
            assert numbers == [0 if segment["iscrowd"] else row + 1]
            x, y, width, height = segment["bbox"]
            assert sample.boxes[row].tolist() == [x, y, x + width, y + height]
            crowds += segment["iscrowd"]
            row += 1
        assert row == len(sample.labels)
    assert crowds > 0 or name == "coco128"
