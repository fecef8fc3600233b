"""VIA projects and exports of all versions against maps and boxes written by hand, and bad input."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocrnet_pl.data.sources.via import Via
from ocrnet_pl.errors import DataError
from tests.helpers.drawn_data import names, picture, window, write_json
from tests.helpers.map_files import maps

CORNERS = {"name": "polygon", "all_points_x": [2, 7, 7, 2], "all_points_y": [3, 3, 9, 9]}
RECT = {"name": "rect", "x": 15, "y": 8, "width": 4, "height": 3}


def region(shape: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    return {"shape_attributes": shape, "region_attributes": attributes}


def entry(name: str, regions: Any) -> dict[str, Any]:
    return {"filename": name, "size": 100, "regions": regions, "file_attributes": {}}


def save(root: Path, content: Any) -> None:
    for stem in "ab":
        picture(root / f"images/{stem}.png")
    write_json(root / "via.json", content)


VERSION_1 = {
    "a.png100": entry("a.png", {"0": region(CORNERS, type="dog"), "1": region(RECT, type="cat ")}),
    "b.png100": entry("b.png", {}),
}
VERSION_2 = {
    "_via_settings": {},
    "_via_img_metadata": {
        "a.png100": entry("a.png", [region(CORNERS, type={"dog": True}), region(RECT, type="cat")]),
        "b.png100": entry("b.png", []),
    },
}
VERSION_3 = {
    "project": {"pid": "__VIA_PROJECT_ID__"},
    "attribute": {"1": {"aname": "type", "type": 3}},
    "file": {"1": {"fid": 1, "fname": "a.png", "type": 2}, "2": {"fid": 2, "fname": "b.png", "type": 2}},
    "metadata": {
        "1_x": {"vid": "1", "xy": [7, 2, 3, 7, 3, 7, 9, 2, 9], "av": {"1": "dog"}},
        "1_y": {"vid": "1", "xy": [2, 15, 8, 4, 3], "av": {"1": "cat"}},
        "1_z": {"vid": "1", "xy": [], "av": {"1": "whole image"}},
    },
    "view": {"1": {"fid_list": ["1"]}, "2": {"fid_list": ["2"]}},
}


@pytest.mark.parametrize("content", [VERSION_1, VERSION_2, VERSION_3])
def test_every_version_says_the_same(tmp_path: Path, content: Any) -> None:
    save(tmp_path, content)
    source = Via("images", "via.json", root=tmp_path)
    assert names(source.taxonomy.detection_categories) == ["cat", "dog"]
    sample = source[0]
    assert sample.boxes.tolist() == [[2, 3, 7, 9], [15, 8, 19, 11]] and sample.labels.tolist() == [1, 0]
    instances, semantic = maps(sample)
    assert np.array_equal(instances, window({1: np.s_[3:9, 2:7]}))
    assert np.array_equal(semantic, window({2: np.s_[3:9, 2:7], 255: np.s_[8:11, 15:19]}))
    assert len(source) == 2 and len(source[1].boxes) == 0
    assert len(Via("images", "via.json", empty_are_labelled=False, root=tmp_path)) == 1


def test_round_shapes_without_attributes(tmp_path: Path) -> None:
    circle = {"name": "circle", "cx": 4, "cy": 5, "r": 3}
    turned = {"name": "ellipse", "cx": 12, "cy": 6, "rx": 5, "ry": 2, "theta": math.pi / 2}
    shapes = [circle, turned, {"name": "point", "cx": 1, "cy": 1}, {"name": "polyline", "all_points_x": [1]}]
    save(tmp_path, {"a": entry("a.png", [region(shape) for shape in shapes])})
    source = Via("images", "via.json", classes=["balloon"], root=tmp_path)
    assert np.allclose(source[0].boxes, [[1, 2, 7, 8], [10, 1, 14, 11]], atol=0.02)
    areas = np.bincount(maps(source[0])[0].ravel())[1:]
    assert np.allclose(areas, [math.pi * 9, math.pi * 10], atol=4)
    assert names(Via("images", "via.json", root=tmp_path).taxonomy.detection_categories) == ["object"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": entry("x.png", [region(RECT, t="cat")])}, "image 0: there is no file 'x.png'"),
        ({"a": {"x": 1}}, "image 0: expected an object with a filename"),
        ({"a": entry("a.png", [region(CORNERS, t="cat", u=1)])}, "region_attributes: there are several: t, u"),
        ({"a": entry("a.png", [region(CORNERS, t="")])}, "image 0: region 0: t: expected one class, found ''"),
        ({"a": entry("a.png", [region(RECT | {"x": "left"}, t="cat")])}, "region 0: expected x, y, width, height"),
        ({"a": entry("a.png", [region({"name": "blob"}, t="cat")])}, "no shape 'blob' is read"),
        ({"a": entry("a.png", [region(CORNERS | {"all_points_x": [1]}, t="cat")])}, "of one length"),
        ({"a": entry("a.png", [5])}, "region 0: it has no shape_attributes"),
        (VERSION_3 | {"view": {"1": {"fid_list": ["9"]}}}, "view 0: fid_list: expected one image"),
        (VERSION_3 | {"metadata": {"1": {"xy": 5}}}, "metadata 0: xy: expected a list"),
    ],
)
def test_bad_files(tmp_path: Path, content: Any, words: str) -> None:
    save(tmp_path, content)
    with pytest.raises(DataError) as caught:
        Via("images", "via.json", root=tmp_path)
    assert words in str(caught.value) and "via.json" in str(caught.value)
