"""What numbers, flags and file names mean, however a tool wrote them."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from ocrnet_pl.data.readers.file_names import NameFinder
from ocrnet_pl.data.readers.folder_index import FolderIndex
from ocrnet_pl.data.readers.values import as_flag, as_number, as_whole
from ocrnet_pl.errors import DataError
from ocrnet_pl.storage.ordinary_files import read_text


@pytest.mark.parametrize(
    "value", [0, 0.0, False, None, "", "0", "0.0", "false", "False", " No ", "Unspecified", "none"]
)
def test_what_says_no(value: Any) -> None:
    assert as_flag(value) is False


@pytest.mark.parametrize("value", [1, 1.0, True, "1", "1.0", "true", "TRUE", "yes"])
def test_what_says_yes(value: Any) -> None:
    assert as_flag(value) is True


@pytest.mark.parametrize("value", [2, -1, 0.5, "2", "maybe", [], {}, [1], float("nan")])
def test_what_says_neither(value: Any) -> None:
    assert as_flag(value) is None


def test_numbers_that_are_written_in_other_ways() -> None:
    assert [as_whole(value) for value in (3, 3.0, "3", "3.0", True, " 4 ")] == [3, 3, 3, 3, 1, 4]
    assert [as_whole(v) for v in (3.5, "3.5", "x", None, [3], float("nan"), 1 << 63, "9" * 60)] == [None] * 8
    assert [as_number(value) for value in (2, "2.5", "-1e3")] == [2, 2.5, -1000]
    assert [as_number(value) for value in ("nan", "inf", "1e10", "x", None, [1], "9" * 60)] == [None] * 7


NAMES = ["1.jpg", "sub/2.JPG", "my cat.jpg", unicodedata.normalize("NFD", "café.jpg"), "A.jpg", "a.JPG", "x/y/3.jpg"]


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("1.jpg", "1.jpg"),
        ("sub\\2.JPG", "sub/2.JPG"),
        ("my%20cat.jpg", "my cat.jpg"),
        (unicodedata.normalize("NFC", "café.jpg"), NAMES[3]),
        ("sub/2.jpg", "sub/2.JPG"),
        ("train/1.jpg", "1.jpg"),
        ("data/sub/2.JPG", "sub/2.JPG"),
        ("./1.jpg", "1.jpg"),
        ("C:\\Users\\me\\1.JPG", "1.jpg"),
        ("/home/me/elsewhere/3.jpg", "x/y/3.jpg"),
        ("../../media/upload/4/3.jpg", "x/y/3.jpg"),
        ("/data/local-files/?d=sub%2F2.JPG", "sub/2.JPG"),
        # What could be two files, or another file of the same name, is not found.
        ("A.JPG", None),
        ("y/4.jpg", None),
        ("other/3.jpg", None),
        ("val/1.jpg", None),
        ("", None),
        ("..", None),
        ("a\0b", None),
    ],
)
def test_a_file_is_found_under_another_name(written: str, found: str | None) -> None:
    assert NameFinder(NAMES, "photos/train").find(written) == found


def test_only_the_spelling_may_differ_where_folders_count() -> None:
    finder = NameFinder(NAMES)
    assert finder.find("SUB/2.jpg", folders=False) == "sub/2.JPG"
    assert finder.find("train/1.jpg", folders=False) is None


def test_two_names_are_not_taken_for_one_file() -> None:
    finder = NameFinder(NAMES)
    assert finder.find("/a/1.jpg") == "1.jpg" == finder.find("/a/1.jpg")
    assert finder.find("/b/1.jpg") is None


def test_each_way_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    finder = NameFinder(["1.jpg", "2.jpg"], "photos")
    for name in ("photos/1.jpg", "photos/2.jpg", "1.JPG", "2.JPG", "1.jpg"):
        finder.find(name)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and all(text.startswith("photos: ") for text in said)
    assert "'photos/1.jpg' is taken for '1.jpg'" in said[0] and "case" in said[1]


def test_files_below_a_folder(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("photos/one.JPG", "photos/two.jpg", "back\\slash.jpg"):
        (tmp_path / name).touch()
    index = FolderIndex(tmp_path, "images")

    def fail(problem: str, advice: str) -> DataError:
        return DataError.at("list.txt", problem, advice=advice)

    assert index.find("back\\slash.jpg", fail) == "back\\slash.jpg"
    assert index.find("photos\\one.jpg", fail) == "photos/one.JPG" == index.find(f"{tmp_path}/photos/one.JPG", fail)
    assert index.partner("photos/TWO.JPG") == "photos/two.jpg" and index.partner("two.jpg") is None
    with pytest.raises(DataError, match=r"there is no file 'photos/tow.jpg'.*the nearest is 'photos/two.jpg'"):
        index.find("photos/tow.jpg", fail)
    with pytest.raises(DataError, match="leads out"):
        index.find("../gone.jpg", fail)
    (tmp_path / "val").mkdir()
    (tmp_path / "val/two.jpg").touch()
    with pytest.raises(DataError, match=rf"'photos/two.jpg' in .*it is in {tmp_path}, so name that folder"):
        FolderIndex(tmp_path / "val", "images").find("photos/two.jpg", fail)


def test_the_nearest_file_and_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "instances_train.json").touch()
    with pytest.raises(DataError, match=r"instances_tran.json: there is no such file; the nearest is 'instances_train"):
        read_text(tmp_path / "instances_tran.json")
    with pytest.raises(DataError, match=r"there is no such folder; the nearest is 'images'"):
        FolderIndex(tmp_path / "image", "images")
    with pytest.raises(DataError, match=r"there is no such folder; give the folder of the images"):
        FolderIndex(tmp_path / "photos", "images")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be"])
def test_texts_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding.startswith("utf-16") else ""
    (tmp_path / "a.txt").write_bytes((mark + "é\n").encode(encoding))
    assert read_text(tmp_path / "a.txt") == "é\n"
