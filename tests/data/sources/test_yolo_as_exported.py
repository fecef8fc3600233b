"""YOLO data sets as tools write them: key points, predictions, and paths of other places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from ocrnet_pl.data.sources.yolo import Yolo
from ocrnet_pl.errors import DataError

HEIGHT, WIDTH = 20, 40
BOX = "0.5 0.5 0.5 0.4"
EDGES = [10, 6, 30, 14]


def _open(root: Path, rows: str, split: str = "train", **content: Any) -> Yolo:
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "images/train/a.JPG")
    (root / "labels/train/A.txt").write_text(rows, encoding="utf-8-sig")
    (root / "data.yaml").write_text(yaml.safe_dump({"train": "images/train", "names": ["cat", "dog"]} | content))
    return Yolo(split=split, root=root)


def _boxes(source: Yolo) -> list[list[float]]:
    return [[round(side, 3) for side in box] for box in source[0].boxes.tolist()]


@pytest.mark.parametrize(
    ("shape", "points"),
    [
        ([3, 2], "0.4 0.4 0.5 0.5 0.6 0.6"),
        ([3, 3], "0.4 0.4 2 0.5 0.5 1 0 0 0"),
        ([1, 2], "0.4 0.4"),
        ([2, 3], "0.4 0.4 0.9 0.5 0.5 0.8"),
    ],
)
def test_rows_with_key_points_are_boxes(tmp_path: Path, shape: list[int], points: str) -> None:
    source = _open(tmp_path, f"0 {BOX} {points}\n1 {BOX}", kpt_shape=shape)
    assert _boxes(source) == [EDGES, EDGES] and source[0].instances is None
    with pytest.raises(DataError, match=r"line 1: \d+ numbers, but with `kpt_shape: \[4, 2\]` of .* there are 13"):
        _open(tmp_path, f"0 {BOX} {points}\n0 0.1 0.1 0.2 0.2 0.3 0.1", kpt_shape=[4, 2])
    with pytest.raises(DataError, match=r"data\.yaml: kpt_shape: expected \[points, 2 or 3\]"):
        _open(tmp_path, f"0 {BOX} {points}", kpt_shape=[2, 4])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (f"0 {BOX} 0.4 0.4 0.5 0.5 0.6 0.6", "11 numbers in every row: a box with key points in it"),
        (f"0 {BOX} 0.3 0.35 0.7 0.35 0.7 0.65 0.3 0.65", "write `kpt_shape: [4, 2]` into"),
        (f"0 {BOX} 0.4 0.4 1 0.5 0.5 1 0 0 0 0.4 0.6 1", "write `kpt_shape: [4, 3]` into"),
        (f"0 {BOX} 0.4 0.4 2 0.5 0.5 2", "write `kpt_shape: [2, 3]`"),
        (f"0 {BOX} 0.4 0.4 2 0.5 0.5 2 0.6 0.6 2", "write `kpt_shape: [3, 3]`"),
        (f"0 {BOX} 0.93", "a box and a confidence or a track"),
        (f"0 {BOX} 0.93 1", "7 numbers in every row, the last a whole one: a box, a confidence and a track"),
        (f"0 {BOX} 0.93 12", "7 numbers, the last a whole one: a box, a confidence and a track"),
    ],
)
def test_rows_that_only_look_like_polygons(tmp_path: Path, rows: str, words: str) -> None:
    with pytest.raises(DataError) as error:
        _open(tmp_path, rows)
    assert words in str(error.value) and "A.txt: line 1" in str(error.value)


@pytest.mark.parametrize(
    "rows",
    [
        "0 0.1 0.1 0.6 0.1 0.1 0.9",
        "0 0.5 0.5 1 0.5 1 1 0.5 1",
        # The first could be key points, the second not.
        f"0 {BOX} 0.4 0.4 0.5 0.5\n1 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9",
        f"0 {BOX} 0.4 0.4\n1 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9",
    ],
)
def test_polygons_stay_polygons(tmp_path: Path, rows: str) -> None:
    assert _open(tmp_path, rows)[0].instances is not None


def test_a_data_yaml_can_say_that_they_are_polygons(tmp_path: Path) -> None:
    source = _open(tmp_path, f"0 {BOX} 0.4 0.4 0.5 0.5 0.6 0.6", kpt_shape=None)
    assert source[0].instances is not None


@pytest.mark.parametrize(
    "content",
    [
        {"train": "data/images/train"},
        {"train": "/content/drive/images/train"},
        {"train": "images\\train"},
        {"train": ["images/train/a.jpg"]},
        {"train": "list.txt"},
        {"path": "/home/me/datasets/other"},
        {"path": "C:\\datasets"},
    ],
)
def test_paths_of_another_place(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "list.txt").write_text("\ufeffdata\\images\\train\\a.jpg\n", encoding="utf-8")
    assert _boxes(_open(tmp_path, f"0 {BOX}", **content)) == [EDGES]


@pytest.mark.parametrize(("value", "labelled"), [("no", True), (0, True), ("true", False), (1, False)])
def test_the_flag_of_missing_files_is_read_by_value(tmp_path: Path, value: Any, labelled: bool) -> None:
    _open(tmp_path, f"0 {BOX}")
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images/train/b.jpg")
    assert len(_open(tmp_path, f"0 {BOX}", skip_if_label_file_missing=value)) == 1 + labelled
    with pytest.raises(DataError, match="skip_if_label_file_missing: expected true or false"):
        _open(tmp_path, f"0 {BOX}", skip_if_label_file_missing="perhaps")


@pytest.mark.parametrize("name", ["classes.txt", "obj.data", "obj.names"])
def test_what_is_there_instead_of_a_data_yaml_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=rf"there is no such file, but '{name}' is beside it; set `data: {name}`"):
        Yolo(root=tmp_path)
