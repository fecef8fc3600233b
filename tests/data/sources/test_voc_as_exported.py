"""Pascal VOC's XML as labelling tools write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ocrnet_pl.data.sources.voc import PascalVoc
from ocrnet_pl.errors import DataError

HEIGHT, WIDTH = 12, 16
BOX = (3, 4, 9, 8)


def _object(name: str = "cat", box: tuple[Any, ...] = BOX, difficult: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name>{difficult}<bndbox>{corners}</bndbox></object>"


def _open(root: Path, *objects: str, head: str = "", **options: Any) -> PascalVoc:
    """One folder with the image, and the XML beside it."""
    (root / "flat").mkdir(exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "flat/my cat.jpg")
    (root / "flat/my cat.xml").write_text(f"<annotation>{head}{''.join(objects or (_object(),))}</annotation>")
    folders = {"images": "flat", "annotations": "flat", "class_masks": None, "object_masks": None}
    return PascalVoc(**folders | {"classes": ["cat", "dog"], "root": root} | options)


def _boxes(source: PascalVoc) -> list[list[float]]:
    boxes: list[list[float]] = source[0].boxes.tolist()
    return boxes


@pytest.mark.parametrize(
    ("head", "box", "count_from"),
    [
        ("", BOX, 1),
        ("<path>C:\\x\\1.jpg</path>", BOX, 0),
        ("<source><database>Unknown</database></source>", BOX, 0),
        ("<source><database>roboflow.com</database></source>", BOX, 0),
        ("", (0, *BOX[1:]), 0),
        ("", (3.5, *BOX[1:]), 0),
        # VOC itself has fractions, too.
        ("<source><database>The VOC2008 Database</database></source>", (3.5, *BOX[1:]), 1),
        ("<folder>VOC2012</folder>", BOX, 1),
    ],
)
def test_where_boxes_count_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, head: str, box: tuple[Any, ...], count_from: int
) -> None:
    assert _boxes(_open(tmp_path, _object(box=box), head=head)) == [[box[0] - count_from, box[1] - count_from, 9, 8]]
    said = [record.getMessage() for record in caplog.records]
    assert [("count from 0" in text and "first_pixel" in text) for text in said] == [True] * (1 - count_from)
    for first in (0, 1):
        boxes = _boxes(_open(tmp_path, _object(box=box), head=head, first_pixel=first))
        assert boxes == [[max(0, box[0] - first), box[1] - first, 9, 8]]
    with pytest.raises(ValueError, match="first_pixel must be"):
        _open(tmp_path, first_pixel=2)


@pytest.mark.parametrize(
    ("text", "hard"), [("Unspecified", 0), ("", 0), ("0", 0), ("False", 0), ("1", 1), ("true", 1), ("1.0", 1)]
)
def test_what_is_difficult(tmp_path: Path, text: str, hard: int) -> None:
    assert _open(tmp_path, _object(difficult=f"<difficult>{text}</difficult>"))[0].crowd.tolist() == [bool(hard)]


def test_boxes_over_the_edge_are_cut_and_shown_to_the_check(tmp_path: Path) -> None:
    source = _open(tmp_path, _object(box=(-3, 4, 9, 20)))
    assert _boxes(source) == [[0, 3, 9, HEIGHT]]
    raw = source.raw_boxes(0)
    assert raw is not None and raw.boxes.tolist() == [[-4, 3, 9, 20]] and raw.field.format(0) == "object[0].bndbox"
    with pytest.raises(DataError, match=r"object\[0\].bndbox: it is outside"):
        _open(tmp_path, _object(box=(-9, 4, -2, 9)))


@pytest.mark.parametrize("size", ["", "<size/>", "<size><width></width><height></height></size>"])
def test_a_size_that_is_not_given(tmp_path: Path, size: str) -> None:
    assert _boxes(_open(tmp_path, head=size)) == [[2, 3, 9, 8]]


@pytest.mark.parametrize("line", ["my cat", "my cat.jpg", "my cat 1", "my cat  -1", "flat/my cat.jpg", "MY CAT"])
def test_names_in_a_list(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_text(f"\ufeff{line}\n", encoding="utf-8")
    assert len(_open(tmp_path, split="list.txt")) == 1


def test_classes_that_are_not_wanted(tmp_path: Path) -> None:
    objects = (_object("bird"), _object("cat"))
    assert _open(tmp_path, *objects, others="ignore")[0].labels.tolist() == [0]
    with pytest.raises(DataError, match=r"object\[0\].name: there is no class 'bird'; add it .*others: ignore"):
        _open(tmp_path, *objects)
    with pytest.raises(DataError, match="the nearest is 'cat'"):
        _open(tmp_path, _object("cats"))
    with pytest.raises(ValueError, match="others must be"):
        _open(tmp_path, others="drop")


def test_bad_objects_can_be_left_out(tmp_path: Path) -> None:
    objects = (_object("bird"), _object(), _object(box=("x", 1, 2, 3)), "<object/>", _object("dog"))
    source = _open(tmp_path, *objects, strict=False)
    assert source[0].labels.tolist() == [0, 1]
    fields = [str(error).split(": ")[1] for error in source.faults]
    assert fields == ["object[0].name", "object[2].bndbox.xmin", "object[3].name"]
    raw = source.raw_boxes(0)
    assert raw is not None and raw.numbers.tolist() == [1, 4]


def test_only_difficult_objects_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _open(tmp_path, _object(difficult="<difficult>1</difficult>"))
    assert "1 of 1 objects are crowds or marked to be ignored" in caplog.text and "difficult: keep" in caplog.text
