"""A PNG for each object against maps written by hand, and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ocrnet_pl.data.sources.object_masks import ObjectMasks
from ocrnet_pl.errors import DataError
from tests.helpers.drawn_data import HEIGHT, WIDTH, names, picture, window, write_json
from tests.helpers.map_files import maps


def mask(path: Path, *place: Any, mode: str = "L") -> None:
    drawn = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for each in place:
        drawn[each] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "RGBA":
        drawn = np.stack([np.full_like(drawn, 9)] * 3 + [drawn], 2)
    Image.fromarray(drawn).save(path)


def test_a_folder_for_each_image(tmp_path: Path) -> None:
    for name in ("f1", "f2"):
        picture(tmp_path / f"train/{name}/images/{name}.png")
    mask(tmp_path / "train/f1/masks/x.png", np.s_[3:9, 2:7])
    mask(tmp_path / "train/f1/masks/y.png", np.s_[4:6, 3:5], mode="RGBA")
    mask(tmp_path / "train/f1/masks/z.png")
    source = ObjectMasks("train", "train", "{image}/masks/{any}", ["cell"], root=tmp_path)
    assert [source.identity(index)[0] for index in range(len(source))] == ["f1/images/f1"]
    sample = source[0]
    assert sample.boxes.tolist() == [[2, 3, 7, 9], [3, 4, 5, 6]]
    instances, semantic = maps(sample)
    assert np.array_equal(instances, window({1: np.s_[3:9, 2:7], 2: np.s_[4:6, 3:5]}))
    assert np.array_equal(semantic, instances > 0)
    options: dict[str, Any] = {"unmarked_are_empty": True, "semantic": False, "root": tmp_path}
    both = ObjectMasks("train", "train", "{image}/masks/{any}", ["cell"], **options)
    assert len(both) == 2 and len(both[1].boxes) == 0 and both[0].semantic is None


def test_brushes_of_label_studio(tmp_path: Path) -> None:
    for name in ("0123abcd-a b.png", "c.png"):
        picture(tmp_path / "images" / name)
    for task, tag, place in ((7, "cat", np.s_[3:9, 2:7]), (7, "big dog", np.s_[0:2, 10:14]), (8, "sky", np.s_[0:6])):
        mask(tmp_path / f"masks/task-{task}-annotation-1-by-1-tag-{tag}-0.png", place)
    urls = {7: "/data/upload/1/0123abcd-a%20b.png", 8: "/data/upload/1/c.png"}
    write_json(tmp_path / "tasks.json", [{"id": number, "data": {"image": url}} for number, url in urls.items()])
    pattern = "task-{image}-annotation-{any}-by-{any}-tag-{class}-{any}"
    source = ObjectMasks("images", "masks", pattern, stuff=["sky"], tasks="tasks.json", root=tmp_path)
    assert names(source.taxonomy.detection_categories) == ["big dog", "cat"]
    assert names(source.taxonomy.semantic_categories) == ["background", "sky", "big dog", "cat"]
    instances, semantic = maps(source[0])
    assert source[0].labels.tolist() == [0, 1]
    assert np.array_equal(instances, window({2: np.s_[3:9, 2:7], 1: np.s_[0:2, 10:14]}))
    assert np.array_equal(semantic, window({3: np.s_[3:9, 2:7], 2: np.s_[0:2, 10:14]}))
    assert len(source[1].boxes) == 0 and np.array_equal(maps(source[1])[1], window({1: np.s_[0:6]}))


@pytest.mark.parametrize(
    ("pattern", "options", "words"),
    [
        ("{image}_{class}", {"classes": ["dog"]}, "there is no class 'cat'; add it to `classes`"),
        ("{image}_{any}", {}, "the pattern has no {class}; give one name"),
        ("{class}_{any}", {}, "pattern: it has no {image}"),
        ("{image}_{kind}", {}, "'{kind}' is no field of it"),
        ("{image}-{class}", {}, "no mask fits the pattern '{image}-{class}'; one is 'a_cat.png'"),
        ("{image}_{class}", {"background": "cat"}, "'cat' is a class"),
        ("{image}at", {"classes": ["x"]}, "a_cat.png: there is no image 'a_c' in"),
    ],
)
def test_bad_options(tmp_path: Path, pattern: str, options: dict[str, Any], words: str) -> None:
    picture(tmp_path / "images/a.png")
    mask(tmp_path / "masks/a_cat.png", np.s_[0:2])
    with pytest.raises(DataError) as caught:
        ObjectMasks("images", "masks", pattern, **options, root=tmp_path)
    assert words in str(caught.value)


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    mask(tmp_path / "masks/a_cat_1.png", np.s_[0:2])
    picture(tmp_path / "masks/a_cat_2.png", (5, 5))
    with pytest.raises(DataError, match=r"a_cat_2\.png: the mask is 5 x 5, but its image is 20 x 12"):
        ObjectMasks("images", "masks", "{image}_{class}_{any}", root=tmp_path)[0]
