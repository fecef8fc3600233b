"""Tables, CSV and Parquet, against their own cells and brute force, and bad input."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ocrnet_pl.data.sources.table import Table
from ocrnet_pl.errors import DataError
from tests.helpers.bad_files import huge_png
from tests.helpers.map_files import maps, replaced_by, save

HEIGHT, WIDTH = 12, 16
COLUMNS = ("image", "semantic", "instances", "panoptic", "segments", "boxes")
NAMES: Any = ["soil", "cat", "dog"]
BOXES = [{"box": [8, 7, 99, 11], "label": "dog"}, {"box": [1, 2, 5, 6], "label": "cat", "crowd": 1}]
SEGMENTS = [
    {"id": 70_000, "label": "cat"},
    {"id": 2, "label": "soil"},
    {"id": 3, "label": "dog", "crowd": 1},
    {"id": 4, "label": "dog", "crowd": 0},
]


def panoptic_ids() -> np.ndarray:
    ids = np.full((HEIGHT, WIDTH), 2, dtype=np.int64)
    ids[2:6, 1:5], ids[7:11, 8:14], ids[0, :3], ids[7:9, 2:6] = 70_000, 3, 0, 4
    return ids


ROWS: list[dict[str, Any]] = [
    {"image": "photos/a.png", "semantic": "masks/a.png", "instances": "ids/a.png", "boxes": json.dumps(BOXES)},
    {"image": "photos/b.png", "panoptic": "pan/b.png", "segments": json.dumps(SEGMENTS)},
    {"image": "photos/c.png", "boxes": "[]"},
    {"image": "photos/d.png", "semantic": "masks/a.png"},
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, stem in enumerate("abcd"):
        save(tmp_path / f"photos/{stem}.png", np.full((HEIGHT, WIDTH, 3), 50 * number, dtype=np.uint8))
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[2:6, 1:5], mask[7:11, 8:16] = 1, 2
    save(tmp_path / "masks/a.png", mask)
    ids = np.where(mask == 1, 9, np.where(mask == 2, 4, 0)).astype(np.uint8)
    save(tmp_path / "ids/a.png", ids)
    of = panoptic_ids()
    save(tmp_path / "pan/b.png", np.stack([of % 256, of // 256 % 256, of // 65536], -1).astype(np.uint8))
    write(tmp_path)
    return tmp_path


def write(root: Path, rows: list[dict[str, Any]] | None = None, columns: tuple[str, ...] = COLUMNS) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(ROWS if rows is None else rows)
    (root / "table.csv").write_text(text.getvalue())


def open_table(root: Path, **options: Any) -> Table:
    given: dict[str, Any] = {"table": "table.csv", "classes": ["cat", "dog"], "semantic_names": NAMES, "root": root}
    return Table(**given | options)


def check_samples(source: Table, root: Path) -> None:
    a, b, c, d = (source[i] for i in range(4))
    mask, ids = (np.array(Image.open(root / f"{folder}/a.png")) for folder in ("masks", "ids"))
    assert a.image_id == "photos/a.png" and a.path == str(root / "photos/a.png")
    assert a.boxes.tolist() == [[8, 7, WIDTH, 11], [1, 2, 5, 6]] and a.labels.tolist() == [1, 0]
    assert a.crowd.tolist() == [False, True]
    instances, semantic = maps(a)
    assert np.array_equal(semantic, mask) and np.array_equal(instances, (ids == 4).astype(int))
    assert len(c.boxes) == 0 and c.supervision.detection.all() and c.semantic is None
    assert not d.supervision.detection.any() and np.array_equal(d.semantic, mask)
    assert b.supervision.semantic.all()


def test_csv(root: Path) -> None:
    source = open_table(root)
    assert [c.name for c in source.taxonomy.semantic_categories] == NAMES
    check_samples(source, root)


def test_panoptic_maps(root: Path) -> None:
    pixels = open_table(root)[1]
    assert not pixels.supervision.detection.any() and pixels.instances is None
    sample = open_table(root, boxes_from_instances=True)[1]
    ids, label_of = panoptic_ids(), {"cat": 0, "dog": 1}
    expected, instances, semantic = [], np.zeros_like(ids), np.full_like(ids, 255)
    for segment in sorted(SEGMENTS, key=lambda entry: int(str(entry["id"]))):
        ys, xs = np.nonzero(ids == segment["id"])
        semantic[ys, xs] = NAMES.index(segment["label"])
        if segment["label"] in label_of:
            box = [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
            expected.append((box, label_of[str(segment["label"])], bool(segment.get("crowd"))))
            if not segment.get("crowd"):
                instances[ys, xs] = len(expected)
    assert sample.boxes.tolist() == [box for box, _, _ in expected]
    assert sample.labels.tolist() == [label for _, label, _ in expected]
    assert sample.crowd.tolist() == [crowd for _, _, crowd in expected] and sum(sample.crowd.tolist()) == 1
    assert np.array_equal(maps(sample)[0], instances) and np.array_equal(maps(sample)[1], semantic)
    assert sample.supervision.detection.all()


def test_segments_and_pixels_that_differ(root: Path) -> None:
    write(root, [ROWS[1] | {"segments": json.dumps(SEGMENTS[1:])}])
    with pytest.raises(DataError, match=r"pan/b\.png: segment id 70000 is not listed in the table"):
        open_table(root)[0]
    # A segment without pixels is no object.
    write(root, [ROWS[1] | {"segments": json.dumps([*SEGMENTS, {"id": 99, "label": "cat"}])}])
    assert len(open_table(root, boxes_from_instances=True)[0].boxes) == 3


@pytest.mark.parametrize("nested", [False, True])
def test_parquet(root: Path, nested: bool) -> None:
    """Text cells as in a CSV, or lists of objects as Parquet has them."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    import pyarrow

    rows = [{name: row.get(name) for name in COLUMNS} for row in ROWS]
    if nested:
        rows = [
            {k: json.loads(v) if k in ("boxes", "segments") and v is not None else v for k, v in row.items()}
            for row in rows
        ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), root / "table.parquet")
    source = open_table(root, table="table.parquet")
    check_samples(source, root)
    raw = source.raw_boxes(0)
    assert raw is not None and raw.field.format(raw.numbers[1]) == "row 0"
    box_rows = [{"image": "photos/b.png", "x1": 1.5, "y1": 2.0, "x2": 3.0, "y2": 4.0, "label": "cat"}]
    parquet.write_table(pyarrow.Table.from_pylist(box_rows), root / "boxes.parquet")
    write(root, [{key: value for key, value in row.items() if key != "boxes"} for row in ROWS], COLUMNS[:-1])
    assert open_table(root, boxes="boxes.parquet")[1].boxes.tolist() == [[1.5, 2, 3, 4]]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"text" * 9])
def test_broken_parquet(root: Path, content: bytes) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    (root / "table.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"table\.parquet: this is not a Parquet file") as error:
        open_table(root, table="table.parquet")
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match=r"gone\.parquet: there is no such table"):
        open_table(root, table="gone.parquet")


def test_parquet_without_pyarrow(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"table\.parquet: a Parquet file needs pyarrow; run `pip install pyarrow`"):
        open_table(root, table="table.parquet")


def test_a_second_table_of_boxes(root: Path) -> None:
    write(root, [{key: row.get(key, "") for key in ("image", "semantic")} for row in ROWS], ("image", "semantic"))
    (root / "boxes.csv").write_text(
        "image,x1,y1,x2,y2,label\n./photos/b.png,1,1,4,5,dog\nphotos/a.png,0,0,2,2,cat\nphotos/b.png,2,2,3,3,cat\n"
        "photos/c.png,,,,,\n"
    )
    source = open_table(root, boxes="boxes.csv")
    assert [source[i].labels.tolist() for i in range(4)] == [[0], [1, 0], [], []]
    assert all(source[i].supervision.detection.all() for i in range(4))
    listed = open_table(root, boxes="boxes.csv", unlisted_are_empty=False)
    assert [bool(listed[i].supervision.detection.all()) for i in range(4)] == [True, True, True, False]
    (root / "boxes.csv").write_text("image,x1,y1,x2,y2,label\nphotos/z.png,1,1,4,5,dog\n")
    with pytest.raises(DataError, match=r"boxes\.csv: line 2, image: the first table lists no image 'photos/z\.png'"):
        open_table(root, boxes="boxes.csv")
    write(root)
    with pytest.raises(DataError, match="the boxes are in another table as well"):
        open_table(root, boxes="boxes.csv")


def test_only_images_and_boxes(root: Path) -> None:
    write(root, [{"image": row["image"], "boxes": "[]"} for row in ROWS], ("image", "boxes"))
    source = open_table(root, semantic_names=None)
    assert source.taxonomy.num_semantic == 0 and source[0].supervision.detection.all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": ""}, "line 2, image: expected text"),
        ({"image": "photos/gone.png"}, "line 2, image: there is no file 'photos/gone.png'"),
        ({"image": "../a.png"}, "line 2, image: '../a.png' leads out"),
        ({"image": "/etc/passwd"}, "line 2, image: '/etc/passwd' leads out"),
        ({"image": "photos/b.png"}, "line 3, image: 'photos/b.png' is already in line 2"),
        ({"semantic": "masks/gone.png"}, "line 2, semantic: there is no file"),
        ({"instances": "../../ids/z.png"}, "line 2, instances: '../../ids/z.png' leads out"),
        ({"panoptic": "pan/b.png"}, "line 2, panoptic: a panoptic map already contains these labels"),
        ({"boxes": "[{"}, "line 2, boxes: this is not valid JSON"),
        ({"boxes": "3"}, "line 2, boxes: expected a list of objects"),
        ({"boxes": "[3]"}, "line 2, boxes: expected a list of objects"),
        ({"boxes": '[{"label": "cat"}]'}, "line 2, boxes[0].box: expected [x1, y1, x2, y2]"),
        ({"boxes": '[{"box": [1, 2, 3], "label": "cat"}]'}, "line 2, boxes[0].box"),
        ({"boxes": '[{"box": [1, 2, NaN, 4], "label": "cat"}]'}, "line 2, boxes[0].x2: expected a number of pixels"),
        ({"boxes": '[{"box": [-1e10, 2, 3, 4], "label": "cat"}]'}, "line 2, boxes[0].x1: expected a number of pixels"),
        ({"boxes": '[{"box": [5, 2, 3, 4], "label": "cat"}]'}, "line 2, boxes[0].x2: (5, 2) to (3, 4) is not a box"),
        ({"boxes": '[{"box": [1, 2, 3, 4], "label": "bird"}]'}, "line 2, boxes[0].label: there is no class 'bird'"),
        ({"boxes": '[{"box": [1, 2, 3, 4], "label": ["cat"]}]'}, "line 2, boxes[0].label: there is no class"),
        ({"boxes": '[{"box": [1, 2, 3, 4], "label": "cat", "crowd": "x"}]'}, "line 2, boxes[0].crowd"),
        ({"boxes": '[{"box": [1, 2, 3, 4], "label": "cat", "crowd": [1]}]'}, "line 2, boxes[0].crowd"),
        ({"semantic": "", "instances": "", "boxes": ""}, "line 2: the image has no label"),
    ],
)
def test_wrong_cells_name_line_and_column(root: Path, change: dict[str, str], words: str) -> None:
    write(root, [ROWS[0] | change, *ROWS[1:]])
    with pytest.raises(DataError) as error:
        open_table(root)
    assert f"table.csv: {words}" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        ("", "line 2, segments: a panoptic map needs its segments"),
        ("{}", "line 2, segments: expected a list of objects"),
        ('[{"label": "cat"}]', "line 2, segments[0].id: expected a unique id"),
        ('[{"id": 0, "label": "cat"}]', "line 2, segments[0].id"),
        ('[{"id": 16777216, "label": "cat"}]', "line 2, segments[0].id"),
        ('[{"id": 2, "label": "cat"}, {"id": 2, "label": "dog"}]', "line 2, segments[1].id"),
        ('[{"id": 2, "label": "bird"}]', "line 2, segments[0].label: there is no class 'bird'"),
        ('[{"id": 2, "label": ["cat"]}]', "line 2, segments[0].label: there is no class"),
    ],
)
def test_wrong_segments(root: Path, segments: str, words: str) -> None:
    write(root, [ROWS[1] | {"segments": segments}])
    with pytest.raises(DataError) as error:
        open_table(root)
    assert f"table.csv: {words}" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"image\n", "the table has no rows"),
        (b"photo\na.png\n", "column 'image': there is no such column, only 'photo'"),
        (b"image,boxes\nphotos/a.png\n", "line 2: 1 cells, but 2 columns"),
        (b'image,boxes\nphotos/a.png,"[]\n', "this is not a CSV file"),
        (b"image\n\xff\xfe\n", "this is not a text file"),
        (b"image\nphotos/\0a.png\n", "table.csv"),
    ],
)
def test_broken_tables(root: Path, content: bytes, words: str) -> None:
    (root / "table.csv").write_bytes(content)
    with pytest.raises(DataError) as error:
        open_table(root)
    assert words in str(error.value) and "table.csv" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"table": "gone.csv"}, "gone.csv: there is no such table"),
        ({"semantic_names": None}, "semantic_names: the values of the masks have no names"),
        ({"classes": []}, "classes: boxes and instances need classes"),
        ({"boxes": "gone.csv"}, "are in another table as well"),
    ],
)
def test_options_that_do_not_fit(root: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError) as error:
        open_table(root, **options)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("change", [replaced_by(b""), replaced_by(b"text"), huge_png, lambda path: path.unlink()])
@pytest.mark.parametrize(("name", "row"), [("photos/a.png", 0), ("masks/a.png", 0), ("ids/a.png", 0), ("pan/b.png", 1)])
def test_broken_files_are_named_when_read(root: Path, name: str, row: int, change: Callable[[Path], None]) -> None:
    source = open_table(root, boxes_from_instances=True)
    change(root / name)
    with pytest.raises(DataError) as error:
        source[row]
    assert name in str(error.value) and "\n" not in str(error.value)


def test_a_box_outside_its_image(root: Path) -> None:
    write(root, [ROWS[0] | {"boxes": json.dumps([{"box": [0, HEIGHT, 3, 99], "label": "cat"}])}])
    with pytest.raises(DataError, match=r"table\.csv: line 2: it is outside the image .*a\.png of 16 x 12"):
        open_table(root)[0]
