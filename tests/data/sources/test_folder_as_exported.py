"""Folders and tables of boxes as tools write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ocrnet_pl.data.sources.coco_stuff import CocoStuff
from ocrnet_pl.data.sources.labelled_folder import LabelledFolder
from ocrnet_pl.data.sources.table import Table
from ocrnet_pl.errors import DataError

HEIGHT, WIDTH = 12, 16
HEADER = "image,x1,y1,x2,y2,label\n"
ROWS = "1.jpg,1,2,5,6,cat\n2.jpg,3,4,9,9,dog\n"


def _images(root: Path, *names: str) -> None:
    (root / "images").mkdir(exist_ok=True)
    for name in names or ("1.jpg", "2.jpg"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / "images" / name)


def _save(path: Path, values: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.asarray(values)).save(path)


def _open(root: Path, table: str, **options: Any) -> LabelledFolder:
    (root / "boxes.csv").write_text(table, encoding="utf-8-sig")
    return LabelledFolder(
        **{"images": "images", "classes": ["cat", "dog"], "boxes": "boxes.csv", "root": root} | options
    )


def _boxes(source: LabelledFolder) -> list[list[list[float]]]:
    return [source[index].boxes.tolist() for index in range(len(source))]


EXPECTED = [[[1, 2, 5, 6]], [[3, 4, 9, 9]]]


@pytest.mark.parametrize(
    "table",
    [
        HEADER + ROWS,
        (HEADER + ROWS).replace(",", ";"),
        (HEADER + ROWS).replace(",", "\t"),
        "Filename,XMin,YMin,XMax,YMax,Class\n" + ROWS,
        HEADER + ROWS.replace("1.jpg", "1").replace("2.jpg", "2.JPG"),
        HEADER + ROWS.replace("1.jpg", "images\\1.jpg").replace("2.jpg", "/home/me/2.jpg"),
        # The image's size, the box's size, and columns that say nothing.
        HEADER.replace("\n", ",width,height\n") + f"1.jpg,1,2,5,6,cat,{WIDTH},{HEIGHT}\n2.jpg,3,4,9,9,dog,,\n",
        HEADER.replace("\n", ",width,height\n") + "1.jpg,1,2,5,6,cat,4,4\n2.jpg,3,4,9,9,dog,6,5\n",
        HEADER.replace("\n", ",width,height\n") + "1.jpg,1,2,5,6,cat,n/a,x\n2.jpg,3,4,9,9,dog,0,0\n",
    ],
)
def test_tables_are_read_as_they_are_meant(tmp_path: Path, table: str) -> None:
    _images(tmp_path)
    assert _boxes(_open(tmp_path, table)) == EXPECTED


def test_a_table_of_resized_images_is_refused(tmp_path: Path) -> None:
    _images(tmp_path)
    source = _open(
        tmp_path, HEADER.replace("\n", ",width,height\n") + "1.jpg,1,2,5,6,cat,8,6\n2.jpg,3,4,9,9,dog,16,12\n"
    )
    with pytest.raises(DataError, match=r"boxes\.csv: line 2: it is 8 x 6, but .*1\.jpg is 16 x 12"):
        source[0]
    assert len(source[1].boxes) == 1


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (ROWS, "boxes.csv: line 1: the table has no header, its first line is 1.jpg, 1, 2, 5, 6, cat"),
        (HEADER + "1.jpg,0.1,0.2,0.5,0.6,cat\n2.jpg,0,0,1,1,dog\n", "all coordinates are from 0 to 1"),
        (HEADER + "1.jpg,1,2,5,6,cats\n", "there is no class 'cats'; the nearest is 'cat'"),
        (HEADER + "11.jpg,1,2,5,6,cat\n", "there is no image '11.jpg'"),
        (HEADER.replace("\n", ",crowd\n") + "1.jpg,1,2,5,6,cat,maybe\n", "crowd: expected 0 or 1, found 'maybe'"),
    ],
)
def test_tables_that_cannot_be_right(tmp_path: Path, table: str, words: str) -> None:
    _images(tmp_path)
    with pytest.raises(DataError) as error:
        _open(tmp_path, table)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_boxes_over_the_edge_are_cut_and_shown_to_the_check(tmp_path: Path) -> None:
    _images(tmp_path)
    source = _open(tmp_path, HEADER + "1.jpg,-3,2,5,60,cat\n")
    assert _boxes(source) == [[[0, 2, 5, HEIGHT]]]
    raw = source.raw_boxes(0)
    assert raw is not None and raw.boxes.tolist() == [[-3, 2, 5, 60]]


def test_two_lists_of_one_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _images(tmp_path, "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    train, val = _open(tmp_path, HEADER + ROWS), _open(tmp_path, HEADER + "4.jpg,1,1,2,2,cat\n3.jpg,,,,,\n")
    assert [train.identity(i)[0] for i in range(len(train))] == ["1", "2"] and _boxes(train) == EXPECTED
    assert [val.identity(i)[0] for i in range(len(val))] == ["3", "4"] and _boxes(val) == [[], [[1, 1, 2, 2]]]
    assert val.files(1) == [str(tmp_path / "images/4.jpg")] and val.raw_boxes(1).numbers.tolist() == [2]  # type: ignore[union-attr]
    assert "2 of 4 images have no label and are left out" in caplog.text
    every = _open(tmp_path, HEADER + ROWS, unlisted_are_empty=True)
    assert _boxes(every) == [*EXPECTED, [], []] and every[3].supervision.detection.all()


def test_classes_that_are_not_wanted(tmp_path: Path) -> None:
    _images(tmp_path)
    table = HEADER + ROWS + "1.jpg,1,1,9,9,bird\n"
    assert _boxes(_open(tmp_path, table, others="ignore")) == EXPECTED
    with pytest.raises(DataError, match=r"line 4, label: there is no class 'bird'; add it .*others: ignore"):
        _open(tmp_path, table)
    (tmp_path / "images.csv").write_text("image\nimages/1.jpg\nimages/2.jpg\n")
    (tmp_path / "boxes.csv").write_text(table.replace("1.jpg", "images\\1.jpg").replace("2.jpg", "images/2.JPG"))
    listed = Table("images.csv", ["cat", "dog"], boxes="boxes.csv", others="ignore", root=tmp_path)
    assert [listed[i].boxes.tolist() for i in range(2)] == EXPECTED


def test_a_picture_is_not_its_own_map(tmp_path: Path) -> None:
    _images(tmp_path, "1.png", "2.png")
    for options in (
        {"instances": "images", "boxes_from_instances": True},
        {"masks": "images", "semantic_names": ["a"]},
    ):
        with pytest.raises(DataError, match=r"images/1\.png: this is one of the images, and cannot be one of the"):
            LabelledFolder("images", ["cat"], **options, root=tmp_path)  # type: ignore[arg-type]


def test_masks_of_other_endings_are_named(tmp_path: Path) -> None:
    _images(tmp_path)
    _save(tmp_path / "masks/1.jpg", np.zeros((HEIGHT, WIDTH), dtype=np.uint8))
    with pytest.raises(DataError, match=r"masks: there are no masks, only files that end in \.jpg; .*JPEG changes"):
        LabelledFolder("images", masks="masks", semantic_names=["a", "b"], root=tmp_path)


def test_masks_whose_names_differ_in_case(tmp_path: Path) -> None:
    _images(tmp_path, "a.jpg")
    _save(tmp_path / "masks/A.PNG", np.ones((HEIGHT, WIDTH), dtype=np.uint8))
    for source in (
        LabelledFolder("images", masks="masks", semantic_names=["a", "b"], root=tmp_path),
        CocoStuff("images", "masks", ["a", "b"], root=tmp_path),
    ):
        assert len(source) == 1 and np.unique(source[0].semantic).tolist() == [1]


def test_binary_masks_with_a_list_of_names_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _images(tmp_path)
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[:3] = 255
    for number in (1, 2):
        _save(tmp_path / f"masks/{number}.png", mask)
    options: dict[str, Any] = {"images": "images", "masks": "masks", "root": tmp_path}
    LabelledFolder(semantic_names=["background", "object"], **options)
    assert "255 holds 25% of the pixels and is ignored, and 'object' holds none" in caplog.text
    assert "{0: background, 255: object}" in caplog.text
    caplog.clear()
    LabelledFolder(semantic_names={0: "background", 255: "object"}, **options)
    mask[5:7] = 1
    _save(tmp_path / "masks/2.png", mask)
    LabelledFolder(semantic_names=["background", "object"], **options)
    assert not caplog.records


def test_instance_maps_that_count_from_zero(tmp_path: Path) -> None:
    """As in Mapillary Vistas: 256 times the class plus a number, so that the first object of the first class is 0."""
    _images(tmp_path)
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint16)
    ids[4:8], ids[8:, :8], ids[8:, 8:] = 1, 256, 512
    for number in (1, 2):
        _save(tmp_path / f"maps/{number}.png", ids)
        _save(tmp_path / f"masks/{number}.png", (ids >> 8).astype(np.uint8))
    options: dict[str, Any] = {"masks": "masks", "semantic_names": ["bird", "curb", "sky"], "instances": "maps"}
    options |= {"boxes_from_instances": True, "root": tmp_path}
    sample = LabelledFolder("images", ["bird", "curb"], **options)[0]
    assert sample.boxes.tolist() == [[0, 0, WIDTH, 4], [0, 4, WIDTH, 8], [0, 8, 8, HEIGHT]]
    assert sample.labels.tolist() == [0, 0, 1]
    assert len(LabelledFolder("images", ["bird", "curb"], **options, zero_is_instance=False)[0].boxes) == 2
    # Ids that have nothing to do with the masks.
    _save(tmp_path / "maps/2.png", ids + 300)
    assert len(LabelledFolder("images", ["bird", "curb"], **options)[0].boxes) == 2
    _save(tmp_path / "maps/2.png", ids)
    assert len(LabelledFolder("images", ["bird", "curb"], **options, zero_is_instance=True)[0].boxes) == 3
