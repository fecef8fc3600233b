"""COCO stuff masks against the pixels themselves, the real sample, and bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from ocrnet_pl.data.sources.coco_stuff import CocoStuff
from ocrnet_pl.errors import DataError
from tests.helpers.bad_files import huge_png
from tests.helpers.map_files import replaced_by, save, semantic_of

HEIGHT, WIDTH = 12, 16
CATEGORIES = [
    {"id": 17, "name": "cat", "isthing": 1, "color": [1, 2, 3]},
    {"id": 1, "name": "person", "isthing": 1},
    {"id": 200, "name": "rug", "isthing": 0},
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images a and below/b with masks, c without."""
    for name in ("a.jpg", "below/b.png", "c.jpg"):
        save(tmp_path / "images" / name, np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8))
    values = np.random.default_rng(0).choice(np.array([1, 17, 200, 255], dtype=np.uint8), (HEIGHT, WIDTH))
    save(tmp_path / "masks/a.png", values)
    save(tmp_path / "masks/below/b.png", np.full((HEIGHT, WIDTH), 17, dtype=np.uint8))
    (tmp_path / "categories.json").write_text(json.dumps({"categories": CATEGORIES}))
    return tmp_path


def open_masks(root: Path, **options: Any) -> CocoStuff:
    return CocoStuff(**{"images": "images", "masks": "masks", "names": "categories.json", "root": root} | options)


def test_names_of_a_json(root: Path) -> None:
    source = open_masks(root)
    assert [c.name for c in source.taxonomy.semantic_categories] == ["rug", "cat", "person"]
    assert [c.name for c in source.taxonomy.detection_categories] == ["cat", "person"]
    assert source.taxonomy.categories[1].color == (1, 2, 3)
    # The image without a mask is left out.
    assert [source[i].image_id for i in range(len(source))] == ["a", "below/b"]
    sample = source[0]
    values = np.array(Image.open(root / "masks/a.png"))
    expected = np.vectorize({200: 0, 17: 1, 1: 2, 255: 255}.__getitem__)(values)
    assert np.array_equal(semantic_of(sample), expected) and (expected == 255).any()
    assert not sample.supervision.detection.any() and sample.supervision.semantic.all()
    assert len(sample.boxes) == 0 and sample.instances is None and sample.path == str(root / "images/a.jpg")
    (root / "categories.json").write_text(json.dumps(CATEGORIES))
    assert open_masks(root).taxonomy == source.taxonomy


def test_values_that_are_one_less_than_the_ids(root: Path) -> None:
    """As in the archive stuffthingmaps; 255 is no id there either."""
    values = np.array(Image.open(root / "masks/a.png"))
    save(root / "masks/a.png", np.where(values == 255, 255, values - 1).astype(np.uint8))
    save(root / "masks/below/b.png", np.full((HEIGHT, WIDTH), 16, dtype=np.uint8))
    shifted = open_masks(root, offset=1)
    assert (semantic_of(shifted[1]) == 1).all()
    expected = np.vectorize({200: 0, 17: 1, 1: 2, 255: 255}.__getitem__)(values)
    assert np.array_equal(semantic_of(shifted[0]), expected)


def test_names_in_the_config(root: Path) -> None:
    names: Any = {1: "person", 17: None, 200: "rug", 255: "edge"}
    source = open_masks(root, names=names, things=["person"])
    assert [c.name for c in source.taxonomy.semantic_categories] == ["rug", "edge", "person"]
    values = np.array(Image.open(root / "masks/a.png"))
    expected = np.select([values == 200, values == 255, values == 1], [0, 1, 2], 255)
    assert np.array_equal(semantic_of(source[0]), expected)
    assert open_masks(root, names=names).taxonomy.num_detection == 0
    assert open_masks(root, things=[]).taxonomy.num_detection == 0
    # Two values of one name are one class.
    merged = open_masks(root, names={1: "object", 17: "object", 200: "rug"})
    assert [c.name for c in merged.taxonomy.categories] == ["object", "rug"]
    assert np.array_equal(semantic_of(merged[0]), np.select([values == 200, values == 255], [1, 255], 0))


def test_real_masks(shared_data: Path) -> None:
    folder = shared_data / "coco128"
    names = yaml.safe_load((folder / "semantic_segmentation/config.yaml").read_text())["classes"]
    source = CocoStuff("images/val2017", "semantic_segmentation/masks/val2017", names | {0: None}, root=folder)
    # 28 images have no mask.
    assert len(source) == 100 and source.taxonomy.num_semantic == len(names) - 1
    for i in range(0, 100, 10):
        sample = source[i]
        png = np.array(Image.open(folder / f"semantic_segmentation/masks/val2017/{sample.image_id}.png"))
        semantic = semantic_of(sample)
        assert semantic.shape == sample.size and np.array_equal(semantic == 255, (png == 0) | (png == 255))
        for value in np.unique(png[(png != 0) & (png != 255)]):
            assert {source.taxonomy.semantic_categories[k].name for k in np.unique(semantic[png == value])} == {
                names[value]
            }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("{}", "categories: expected a list"),
        ("[]", "categories: expected a list"),
        ("[1]", "categories[0]: expected an object"),
        ('[{"name": "cat"}]', "categories[0].id"),
        ('[{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}]', "categories[1].id"),
        ('[{"id": 1}]', "categories[0].name"),
        ('[{"id": -1, "name": "cat"}]', "no pixel can have the value -1"),
    ],
)
def test_wrong_categories(root: Path, content: str, words: str) -> None:
    (root / "categories.json").write_text(content)
    with pytest.raises(DataError) as error:
        open_masks(root)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"names": "gone.json"}, "gone.json: there is no such file"),
        ({"names": []}, "names: there is no class name"),
        ({"things": ["bird"]}, "things: 'bird' is not among the names"),
        ({"images": "gone"}, "gone"),
        ({"masks": "gone"}, "gone"),
        ({"masks": "empty"}, "empty: there is no mask"),
        ({"images": "empty"}, "masks/a.png: there is no image 'a'"),
        ({"offset": 2}, "no pixel can have the value -1"),
    ],
)
def test_options_that_do_not_fit(root: Path, options: dict[str, Any], words: str) -> None:
    (root / "empty").mkdir()
    with pytest.raises(DataError) as error:
        open_masks(root, **options)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("change", [replaced_by(b""), replaced_by(b"text"), huge_png, lambda path: path.unlink()])
@pytest.mark.parametrize("name", ["images/a.jpg", "masks/a.png"])
def test_broken_files_are_named_when_read(root: Path, name: str, change: Callable[[Path], None]) -> None:
    source = open_masks(root)
    change(root / name)
    with pytest.raises(DataError) as error:
        source[0]
    assert name in str(error.value) and "\n" not in str(error.value)


def test_masks_of_unknown_ids_of_another_size_and_of_colors(root: Path) -> None:
    source = open_masks(root)
    save(root / "masks/a.png", np.full((HEIGHT, WIDTH), 18, dtype=np.uint8))
    with pytest.raises(DataError, match=r"masks/a\.png: 192 pixels have the value 18.*`names`"):
        source[0]
    save(root / "masks/a.png", np.full((HEIGHT + 1, WIDTH), 17, dtype=np.uint8))
    with pytest.raises(DataError, match=r"masks/a\.png: it is 16 x 13, but .*a\.jpg is 16 x 12"):
        source[0]
    save(root / "masks/a.png", np.full((HEIGHT, WIDTH, 3), [1, 2, 3], dtype=np.uint8))
    with pytest.raises(DataError, match=r"masks/a\.png: the mask has colors"):
        source[0]
    (root / "masks/a.bmp").touch()
    with pytest.raises(DataError, match="same stem"):
        open_masks(root)
