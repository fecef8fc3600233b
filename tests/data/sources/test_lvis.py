"""LVIS: what each image was labelled for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ocrnet_pl.data.sources.lvis import Lvis
from ocrnet_pl.errors import DataError
from tests.helpers.drawn_data import HEIGHT, WIDTH, picture, write_json

MASK = [2, 3, 7, 3, 7, 9, 2, 9]


def save(root: Path, *lists: dict[str, Any]) -> None:
    images = []
    for number, own in enumerate(lists):
        picture(root / f"images/{number}.png")
        images.append({"id": 10 + number, "file_name": f"{number}.png", "height": HEIGHT, "width": WIDTH} | own)
    content = {
        "images": images[::-1],
        "annotations": [
            {
                "id": 1,
                "image_id": 10,
                "category_id": 7,
                "bbox": [2, 3, 5, 6],
                "segmentation": [[2, 3, 7, 3, 7, 9, 2, 9]],
            },
            {"id": 2, "image_id": 10, "category_id": 5, "bbox": [9, 3, 5, 6], "iscrowd": 0},
        ],
        "categories": [{"id": number, "name": name} for number, name in zip((9, 7, 5, 4), "wxyz", strict=True)],
    }
    write_json(root / "lvis.json", content)


def known(source: Lvis) -> dict[str, list[bool]]:
    samples = [source[index] for index in range(len(source))]
    return {Path(sample.path).stem: sample.supervision.detection.tolist() for sample in samples}


def test_an_image_is_labelled_for_what_it_has_and_what_it_lacks(tmp_path: Path) -> None:
    save(
        tmp_path,
        {"neg_category_ids": [9], "not_exhaustive_category_ids": [5]},
        {"neg_category_ids": [4.0, 7], "not_exhaustive_category_ids": []},
        {},
    )
    source = Lvis("images", "lvis.json", root=tmp_path)
    none = [False] * 4
    assert known(source) == {"0": [True, True, False, False], "1": [False, True, False, True], "2": none}
    assert source.taxonomy.num_semantic == 0 and not source[0].supervision.semantic.any()
    marked = Lvis("images", "lvis.json", not_exhaustive="label", semantic=True, root=tmp_path)
    assert known(marked)["0"] == [True, True, True, False]
    semantic = marked[2].semantic
    assert semantic is not None and set(semantic.flatten().tolist()) == {1, 255}


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({}, "images[0].neg_category_ids: no image has such a list; use `CocoInstances`"),
        ({"neg_category_ids": [8]}, "neg_category_ids: there is no category 8"),
        ({"neg_category_ids": 7}, "neg_category_ids: expected a list of ids, found 7"),
    ],
)
def test_bad_lists(tmp_path: Path, own: dict[str, Any], words: str) -> None:
    save(tmp_path, own)
    with pytest.raises(DataError) as caught:
        Lvis("images", "lvis.json", root=tmp_path)
    assert words in str(caught.value) and "lvis.json" in str(caught.value)
