"""YOLO folders without a data.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocrnet_pl.data.sources.yolo import Yolo
from ocrnet_pl.errors import DataError
from tests.helpers.drawn_data import names, picture


def label(path: Path, row: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(row)


@pytest.mark.parametrize(
    ("name", "place", "split"),
    [("classes.txt", "images", "train"), ("obj.names", "images/val", "val"), ("classes.txt", "valid/images", "val")],
)
def test_a_list_of_names_beside_the_images(tmp_path: Path, name: str, place: str, split: str) -> None:
    picture(tmp_path / place / "a.png")
    label(tmp_path / place.replace("images", "labels") / "a.txt", "1 0.5 0.5 0.5 0.5\n")
    (tmp_path / name).write_text("cat\ndog\n\n")
    source = Yolo(name, split, root=tmp_path)
    assert names(source.taxonomy.detection_categories) == ["cat", "dog"]
    assert source[0].boxes.tolist() == [[5, 3, 15, 9]] and source[0].labels.tolist() == [1]
    with pytest.raises(DataError, match=f"test: there is no such entry, but {split!r}"):
        Yolo(name, "test", root=tmp_path)
    # Any folders, named in the config.
    other = Yolo(name, images=place, labels=place.replace("images", "labels"), root=tmp_path)
    assert len(other) == 1


def test_darknet_settings(tmp_path: Path) -> None:
    picture(tmp_path / "obj_train_data/a.png")
    label(tmp_path / "obj_train_data/a.txt", "0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "obj.names").write_text("cat\ndog\n")
    (tmp_path / "train.txt").write_text("obj_train_data/a.png\n")
    (tmp_path / "obj.data").write_text("classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = b/\n")
    source = Yolo("obj.data", root=tmp_path)
    assert source[0].boxes.tolist() == [[5, 3, 15, 9]]
    assert len(Yolo("obj.names", root=tmp_path)) == 1
    (tmp_path / "obj.data").write_text("classes = 2\n")
    with pytest.raises(DataError, match=r"obj\.data: names: missing"):
        Yolo("obj.data", root=tmp_path)
    (tmp_path / "obj.names").write_text("\n")
    with pytest.raises(DataError, match=r"obj\.names: there is no name; write one class per line"):
        Yolo("obj.names", root=tmp_path)
