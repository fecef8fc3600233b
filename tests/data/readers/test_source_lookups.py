"""What YOLO, folders, tables and stuff masks tell without decoding, and what the data check makes of it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from ocrnet_pl.cli.main import main
from ocrnet_pl.data.readers import class_map as legend
from ocrnet_pl.data.readers import label_maps
from ocrnet_pl.data.readers import sample_assembly as assembly
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.coco_stuff import CocoStuff
from ocrnet_pl.data.sources.labelled_folder import LabelledFolder
from ocrnet_pl.data.sources.table import Table
from ocrnet_pl.data.sources.yolo import Yolo
from ocrnet_pl.errors import DataError

HEIGHT, WIDTH = 20, 40
ROTATED = Image.Exif()
ROTATED[0x0112] = 6


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Image a is stored on its side, b is drawn upright though its tag says otherwise, c has no label file."""
    for folder in ("images", "labels", "masks"):
        (tmp_path / folder).mkdir()
    rng = np.random.default_rng(0)
    for stem, size, exif in (("a", (WIDTH, HEIGHT), ROTATED), ("b", (HEIGHT, WIDTH), ROTATED), ("c", None, None)):
        pixels = rng.integers(0, 256, (*(size or (HEIGHT, WIDTH)), 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/{stem}.jpg", **({} if exif is None else {"exif": exif}))
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.9 0.5 0 0.5\n1 0.1 0.1 0.6 0.1 0.1 0.9\n")
    (tmp_path / "labels/b.txt").write_text("1 0.999 0.5 0.01 0.5\n")
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [cat, dog]\n")
    Image.new("L", (WIDTH, HEIGHT), 1).save(tmp_path / "masks/b.png")
    rows = ["image,x1,y1,x2,y2,label,crowd", "a.jpg,2,3,99,9,cat,0", "a.jpg,4,4,4,9,dog,0", "a.jpg,1,1,5,5,dog,1"]
    (tmp_path / "boxes.csv").write_text("\n".join([*rows, "c.jpg,1,1,2,2,cat,"]))
    below = [row if row.startswith("image") else f"images/{row}" for row in (*rows, "c.jpg,1,1,2,2,cat,")]
    (tmp_path / "table_boxes.csv").write_text("\n".join(below))
    (tmp_path / "table.csv").write_text("image,semantic\nimages/a.jpg,\nimages/b.jpg,masks/b.png\nimages/c.jpg,\n")
    return tmp_path


def sources(root: Path) -> dict[str, Source]:
    names = ["soil", "cat"]
    return {
        "yolo": Yolo(masks="masks", semantic_names=names, root=root),
        "folder": LabelledFolder("images", ["cat", "dog"], "masks", names, boxes="boxes.csv", root=root),
        "table": Table("table.csv", ["cat", "dog"], names, boxes="table_boxes.csv", root=root),
        "stuff": CocoStuff("images", "masks", names, root=root),
    }


@pytest.mark.parametrize("name", ["yolo", "folder", "table", "stuff"])
def test_sizes_and_boxes_are_those_of_the_samples(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source: Any = sources(root)[name]
    samples = [source[i] for i in range(len(source))]
    assert len(samples) == (1 if name == "stuff" else 3)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing may be decoded")

    for module in (assembly, label_maps):
        monkeypatch.setattr(module, "read_image", refuse)
    monkeypatch.setattr(legend, "_read", refuse)
    for i, sample in enumerate(samples):
        assert source.image_path(i) == sample.path and Path(sample.path).is_file()
        assert source.image_size(i) == sample.size
        assert source.identity(i) == (sample.image_id, sample.path)
        has_mask = sample.semantic is not None
        assert list(source.files(i)) == [sample.path, str(root / "masks/b.png")][: 1 + has_mask]
        assert np.array_equal(source.image_boxes(i), sample.boxes.numpy())
        assert source.image_boxes(i).dtype == np.float32
        # The one with a mask is read as it was drawn, the other as its tag says.
        assert sample.size == (HEIGHT, WIDTH)


def test_boxes_of_instance_maps(root: Path) -> None:
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    ids[3:7, 10:30] = 5
    for stem in "abc":
        (root / "maps").mkdir(exist_ok=True)
        Image.fromarray(ids).save(root / f"maps/{stem}.png")
    source = LabelledFolder("images", ["cell"], instances="maps", boxes_from_instances=True, root=root)
    assert source.image_boxes(1).tolist() == [[10, 3, 30, 7]] and source.raw_boxes(1) is None


def test_boxes_as_they_are_stored(root: Path) -> None:
    opened = sources(root)
    raw = opened["yolo"].raw_boxes(0)
    assert raw is not None and raw.image == str(root / "images/a.jpg") and raw.file == str(root / "labels/a.txt")
    assert [raw.field.format(n) for n in raw.numbers] == ["line 1", "line 2", "line 3"]
    expected = [[10, 5, 30, 15], [36, 5, 36, 15], [4, 2, 24, 18]]
    assert raw.boxes == pytest.approx(np.array(expected), abs=1e-4)
    assert raw.rows.tolist() == [0, -1, 1] and raw.labels.tolist() == [0, 1, 1]
    assert [mask is not None for mask in raw.masks] == [False, False, True]
    over = opened["yolo"].raw_boxes(1)
    assert (
        over is not None
        and over.rows.tolist() == [0]
        and over.boxes[0, 2] == pytest.approx(1.004 * WIDTH, abs=1e-3)
        and over.masks == ()
    )
    assert opened["yolo"].raw_boxes(2) is None
    for name in ("folder", "table"):
        raw = opened[name].raw_boxes(0)
        assert raw is not None and raw.file.endswith("boxes.csv")
        assert [raw.field.format(n) for n in raw.numbers] == ["line 2", "line 3", "line 4"]
        assert raw.boxes.tolist() == [[2, 3, 99, 9], [4, 4, 4, 9], [1, 1, 5, 5]]
        assert raw.rows.tolist() == [0, -1, 1] and raw.crowd.tolist() == [False, False, True]
    assert opened["stuff"].raw_boxes(0) is None


def test_yolo_that_is_not_strict(root: Path) -> None:
    (root / "labels/a.txt").write_text(
        "0 1.5 0.5 0.2 0.2\n0 0.95 0.5 0.4 0.2\n0 nan 0.5 0.1 0.1\n0 0.5 0.5 -0.1 0.1\n1 0.5 0.5 0.1 0.1\n"
        "1 nan 0 0.5 0 0.5 0.5\n1 -0.5 0 0.5 0 0.5 0.5\n"
    )
    with pytest.raises(DataError, match=r"a\.txt: line 3: a number is not finite"):
        Yolo(root=root)
    source = Yolo(strict=False, root=root)
    assert source[0].boxes == pytest.approx(np.array([[30, 8, 40, 12], [18, 9, 22, 11], [0, 0, 20, 10]]), abs=1e-4)
    raw = source.raw_boxes(0)
    assert raw is not None and raw.rows.tolist() == [-1, 0, -1, -1, 1, -1, 2] and len(raw.boxes) == 7
    assert raw.boxes[0] == pytest.approx([56, 8, 64, 12]) and np.isnan(raw.boxes[2]).any()
    # What is no label at all stays an error.
    (root / "labels/a.txt").write_text("7 0.5 0.5 0.1 0.1")
    with pytest.raises(DataError, match=r"there is no class 7 .*, only 0 to 1;"):
        Yolo(strict=False, root=root)
    (root / "data.yaml").write_text("train: images\nnames: {0: cat, 2: dog}\n")
    (root / "labels/a.txt").write_text("1 0.5 0.5 0.1 0.1")
    with pytest.raises(DataError, match=r"there is no class 1 .*, only 0, 2;"):
        Yolo(strict=False, root=root)
    with pytest.raises(DataError, match="trian: there is no such entry, but 'train'; set `split`"):
        Yolo(split="trian", root=root)


def test_labels_without_an_image(root: Path) -> None:
    assert Yolo(root=root).labels_without_image() == []
    (root / "labels/z.txt").touch()
    (root / "labels/classes.txt").write_text("cat\ndog\n")
    # An image that only another split lists is there.
    (root / "list.txt").write_text("images/b.jpg")
    (root / "data.yaml").write_text("train: list.txt\nnames: [cat, dog]\n")
    assert Yolo(root=root).labels_without_image() == [str(root / "labels/z.txt")]


def check(root: Path, source: str) -> tuple[int, list[dict[str, str]]]:
    """Run the data check, and return its exit status and findings."""
    config = root / "config.yaml"
    init = yaml.safe_load(source)
    config.write_text(yaml.safe_dump({"name": "planted", "data": {"root": str(root), "train": init, "num_workers": 0}}))
    status: int | str | None = 0
    try:
        main(["check", "--config", str(config), "--output", str(root / "report")])
    except SystemExit as stopped:
        status = stopped.code
    with (root / "report/findings.csv").open(newline="", encoding="utf-8") as file:
        return int(status or 0), list(csv.DictReader(file))


def sound_yolo(root: Path) -> None:
    # The one whose tag does not say how it was drawn is a fault of its own.
    (root / "images/b.jpg").unlink()
    (root / "labels/b.txt").unlink()
    for stem in "ac":
        (root / f"labels/{stem}.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.2 0.3 0.2 0.2\n")


def test_the_check_reports_nothing_of_sound_yolo(root: Path) -> None:
    sound_yolo(root)
    status, rows = check(root, "{class_path: Yolo}")
    assert status == 0 and not {"box_format", "box_outside", "box_degenerate", "unknown_id"} & {r["kind"] for r in rows}


def _pixels(root: Path) -> None:
    for path in (root / "labels").iterdir():
        path.write_text("0 20 10 20 10\n1 12 8 4 6\n0 30 12 10 8\n")


def _outside(root: Path) -> None:
    (root / "labels/c.txt").write_text("0 0.5 0.5 0.2 0.2\n0 1.5 0.5 0.2 0.2\n1 0.5 0.5 0 0.5\n")


@pytest.mark.parametrize(
    ("plant", "faults"),
    [
        (
            _pixels,
            {
                "box_format": "they are in pixels, but read as normalized",
                "annotation_broken": "20 is outside of 0 to 1",
            },
        ),
        (_outside, {"box_outside": "completely outside", "box_degenerate": "its sides are 0 x 10"}),
        (lambda root: (root / "labels/z.txt").touch(), {"unknown_id": "there is no image of its name"}),
    ],
    ids=["pixels", "outside", "unknown"],
)
def test_the_check_reports_yolo(root: Path, plant: Callable[[Path], None], faults: dict[str, str]) -> None:
    sound_yolo(root)
    plant(root)
    status, rows = check(root, "{class_path: Yolo}")
    for kind, words in faults.items():
        found = [row for row in rows if row["kind"] == kind and words in row["message"]]
        assert found and all("labels" in row["annotations"] for row in found)
    # A file too many hurts no training.
    assert status == (0 if "unknown_id" in faults else 1)


def test_the_check_reports_boxes_of_a_table(root: Path) -> None:
    (root / "boxes.csv").write_text(
        "image,x1,y1,x2,y2,label\n"
        + "".join(f"{stem}.jpg,0.{k},0.1,0.{k + 2},0.9,cat\n" for stem in "abc" for k in range(1, 5))
    )
    init = "{class_path: LabelledFolder, init_args: {images: images, classes: [cat], boxes: boxes.csv}}"
    status, rows = check(root, init)
    assert status == 1
    assert any(row["kind"] == "box_format" and "they are normalized" in row["message"] for row in rows)
