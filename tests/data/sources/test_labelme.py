"""labelme files against maps and boxes written by hand, and bad input."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocrnet_pl.data.sources.labelme import Labelme
from ocrnet_pl.errors import DataError
from tests.helpers.drawn_data import HEIGHT, WIDTH, names, outline, picture, png_text, window, write_json
from tests.helpers.map_files import maps


def shape(label: str, points: Any, kind: str | None = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}} | more


def save(root: Path, stem: str, *shapes: dict[str, Any], **more: Any) -> None:
    picture(root / f"{stem}.png")
    content = {"imagePath": f"{Path(stem).name}.png", "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": shapes}
    write_json(root / f"{stem}.json", content | more)


def test_all_shapes(tmp_path: Path) -> None:
    drawn = np.array([[1, 1, 0], [0, 1, 1]], dtype=np.uint8) * 255
    save(
        tmp_path,
        "sub/a",
        shape("dog", outline(2, 3, 7, 9)),
        shape("cat", [[19, 11], [15, 8]], "rectangle"),
        shape("ball", [[12, 6], [12, 4]], "circle"),
        shape("cat", [[9, 0], [11, 1]], "mask", mask=png_text(drawn)),
        shape("dog", [[1, 1]], "point"),
        shape("dog", [[1, 1], [5, 5]], "line"),
        shape("dog", [[1, 1], [5, 5], [9, 1]], "linestrip", difficult=True),
        # Two parts of one object, and the inner of two outlines.
        shape("cat", outline(0, 0, 2, 2), None, group_id=4),
        shape("cat", outline(4, 0, 6, 2), group_id=4, difficult=True),
        shape("dog", outline(3, 4, 5, 6)),
    )
    save(tmp_path, "b")
    picture(tmp_path / "unlabelled.png")
    source = Labelme(".", root=tmp_path)
    assert [source.identity(index)[0] for index in range(len(source))] == ["b", "sub/a"]
    assert names(source.taxonomy.detection_categories) == ["ball", "cat", "dog"]
    assert names(source.taxonomy.semantic_categories) == ["background", "ball", "cat", "dog"]
    sample = source[1]
    expected = [[2, 3, 7, 9], [15, 8, 19, 11], [10, 4, 14, 8], [9, 0, 12, 2], [0, 0, 6, 2], [3, 4, 5, 6]]
    assert np.allclose(sample.boxes, expected, atol=1e-4)
    assert sample.labels.tolist() == [2, 1, 0, 1, 1, 2] and sample.crowd.tolist() == [0, 0, 0, 0, 1, 0]
    instances, semantic = maps(sample)
    plain = window({1: np.s_[3:9, 2:7], 6: np.s_[4:6, 3:5]})
    plain[0:2, 9:12][drawn > 0] = 4
    ball = instances == 3
    assert np.array_equal(np.where(ball, 0, instances), plain)
    assert abs(ball.sum() - math.pi * 4) < 2 and not ball[:4].any() and not ball[:, :10].any()
    classes = np.array([0, 3, 2, 1, 2, 2, 3])[instances]
    classes[0:2, 0:2], classes[0:2, 4:6] = 2, 2  # the crowd has a class, but no instance
    classes[8:11, 15:19] = 255  # a box without a mask
    assert np.array_equal(semantic, classes)
    raw = source.raw_boxes(1)
    assert [raw.field.format(number) for number, row in zip(raw.numbers, raw.rows, strict=True) if row < 0] == [
        "shapes[4]",
        "shapes[5]",
        "shapes[6]",
    ]
    assert np.allclose(source.image_boxes(1), expected, atol=1e-4) and source.image_size(1) == (HEIGHT, WIDTH)
    assert len(source[0].boxes) == 0 and (maps(source[0])[1] == 0).all()


def test_regions_and_labels_that_are_not_wanted(tmp_path: Path) -> None:
    save(
        tmp_path,
        "a",
        shape("soil", [[0, 0], [20, 6]], "rectangle"),
        shape("plant", outline(2, 2, 6, 8)),
        shape("__ignore__", outline(10, 2, 12, 4)),
        shape("stone", outline(14, 8, 18, 10)),
    )
    options: dict[str, Any] = {"classes": ["plant"], "stuff": ["soil"], "background": None}
    with pytest.raises(DataError, match=r"a\.json: shapes\[3\]: there is no class 'stone'; add it to `classes`"):
        Labelme(".", **options, root=tmp_path)
    with pytest.raises(DataError, match=r"there is no class 'plant'; the nearest is 'plants'"):
        Labelme(".", ["plants"], stuff=["soil"], root=tmp_path)
    source = Labelme(".", **options, others="ignore", root=tmp_path)
    instances, semantic = maps(source[0])
    assert names(source.taxonomy.semantic_categories) == ["soil", "plant"]
    assert np.array_equal(instances, window({1: np.s_[2:8, 2:6]}))
    expected = window({0: np.s_[0:6], 1: np.s_[2:8, 2:6], 255: np.s_[2:4, 10:12]}, 255)
    assert np.array_equal(semantic, expected)
    assert Labelme(".", **options, others="ignore", semantic=False, root=tmp_path)[0].semantic is None


def test_images_that_the_file_names_in_another_way(tmp_path: Path) -> None:
    picture(tmp_path / "images/deep/photo.png")
    content = {"shapes": [shape("cat", outline(1, 1, 4, 4))], "imagePath": "..\\..\\images\\deep\\photo.png"}
    write_json(tmp_path / "labels/one/1.json", content)
    source = Labelme("images", annotations="labels", root=tmp_path)
    assert source.identity(0)[0] == "deep/photo" and source[0].boxes.tolist() == [[1, 1, 4, 4]]
    # Without sizes in the file, those of the image count.
    assert source.sizes is None and source.image_size(0) == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([shape("cat", [[1, 1], [2]])], r"shapes\[0\]\.points: expected two finite numbers"),
        ([shape("cat", [])], "there is no point"),
        ([shape("", outline(0, 0, 1, 1))], "label: expected text"),
        ([shape("cat", [[0, 0], [1, 1]], "spiral")], "no shape 'spiral' of 2 points"),
        ([shape("cat", [[0, 0], [1, 1]], "mask", mask="%%")], "expected a PNG in base64"),
        ([shape("cat", [[0, 0], [1, 1]], "mask", mask="aaaa")], "mask: this is not an image"),
        ([shape("cat", outline(-9, -9, -1, -1))], r"shapes\[0\]: it is outside the image"),
        ([shape("cat", [[0, 0], [4, 4]], "rectangle")], "all shapes are boxes"),
        ([shape("background", outline(0, 0, 4, 4))], "there is a label 'background'"),
        ([], "no shape has a label"),
    ],
)
def test_bad_files(tmp_path: Path, shapes: list[dict[str, Any]], words: str) -> None:
    save(tmp_path, "a", *shapes)
    with pytest.raises(DataError, match=words):
        Labelme(".", root=tmp_path)[0]


def test_a_file_of_another_size_and_a_lost_image(tmp_path: Path) -> None:
    save(tmp_path, "a", shape("cat", outline(0, 0, 4, 4)), imageWidth=40)
    with pytest.raises(DataError, match=r"a\.json: it is 40 x 12, but .*a\.png is 20 x 12"):
        Labelme(".", root=tmp_path)[0]
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.json: imagePath: there is no file 'a\.png'"):
        Labelme(".", root=tmp_path)
