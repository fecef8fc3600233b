"""Tables of names, as tools write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ocrnet_pl.data.readers.name_tables import read_name_table
from ocrnet_pl.errors import DataError

COLORS = {"#000000": "background", "#fa3253": "cat"}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("class_dict.csv", "name,r,g,b\nbackground,0,0,0\ncat,250,50,83\n", COLORS),
        ("class_dict_seg.csv", "name, r, g, b\nbackground, 0, 0, 0\n\ncat, 250, 50, 83\n", COLORS),
        ("_classes.csv", "Pixel Value, Class\n0, background\n1, cat\n", {0: "background", 1: "cat"}),
        ("labels.csv", "id,name,red,green,blue\n1,background,0,0,0\n2,cat,250,50,83\n", COLORS),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83:a,b:\n", COLORS),
        ("label_colors.txt", "0 0 0\tbackground\n250 50 83\t\tcat\n", COLORS),
    ],
)
def test_tables_of_tools(tmp_path: Path, name: str, text: str, expected: Any) -> None:
    (tmp_path / name).write_text(text)
    assert read_name_table(str(tmp_path / name)) == expected


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "x,y\n1,2\n", "line 1: expected columns for the name and the value or color, found x, y"),
        ("a.csv", "name,r,g,b\ncat,1,2\n", "line 2: 3 cells, but 4 columns"),
        ("a.csv", "name,r,g,b\ncat,1,2,300\n", "line 2: expected three numbers from 0 to 255"),
        ("a.csv", "name,id\ncat,1\ndog,1\n", "line 3: 1 occurs more than once"),
        ("a.csv", "name,id\n,1\n", "line 2: expected a name"),
        ("a.csv", 'name,id\n"cat,1\n', "this is not a CSV file"),
        ("a.txt", "cat:1,2\n", "line 1: expected three numbers"),
        ("a.txt", "1 2 3 cat\n1 2 3 dog\n", "line 2: the color #010203 occurs more than once"),
        ("a.txt", ":1,2,3:\n", "line 1: there is no name"),
    ],
)
def test_other_tables(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        read_name_table(str(tmp_path / name))
    assert words in str(caught.value) and name in str(caught.value)
