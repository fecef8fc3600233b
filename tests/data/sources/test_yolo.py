"""YOLO data sets against hand-computed boxes, pycocotools' polygons, the real sample, and bad input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as reference

from ocrnet_pl.data.sources.yolo import Yolo
from ocrnet_pl.errors import DataError
from tests.helpers.bad_files import huge_png
from tests.helpers.map_files import instances_of, semantic_of

HEIGHT, WIDTH = 20, 40
TRIANGLE = "1 0.1 0.1 0.6 0.1 0.1 0.9"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Boxes and a polygon, a polygon, an empty file, no file."""
    labels = {
        "a": f"0 0.5 0.5 0.5 0.5\n{TRIANGLE}\n",
        "b": "1 0.5 0.5 1 0.5 1 1 0.5 1",
        "c": "\n",
        "d": None,
    }
    for folder in ("images/train", "labels/train"):
        (tmp_path / folder).mkdir(parents=True)
    for stem, text in labels.items():
        Image.new("RGB", (WIDTH, HEIGHT), (9, 8, 7)).save(tmp_path / f"images/train/{stem}.png")
        if text is not None:
            (tmp_path / f"labels/train/{stem}.txt").write_text(text)
    write(tmp_path, train="images/train", names=["cat", "dog"])
    return tmp_path


def write(root: Path, **content: Any) -> None:
    (root / "data.yaml").write_text(yaml.safe_dump(content))


def rasterize(row: str) -> np.ndarray:
    values = np.array(row.split()[1:], dtype=np.float32).reshape(-1, 2) * np.array([WIDTH, HEIGHT], dtype=np.float64)
    mask: np.ndarray = reference.decode(reference.frPyObjects([values.ravel().tolist()], HEIGHT, WIDTH)[0])
    return mask.astype(bool)


def test_boxes_polygons_and_background(root: Path) -> None:
    source = Yolo(root=root)
    assert [c.name for c in source.taxonomy.detection_categories] == ["cat", "dog"]
    assert source.taxonomy.num_semantic == 0
    mixed, polygon, empty, missing = (source[i] for i in range(4))
    assert mixed.boxes.tolist() == pytest.approx(np.array([[10, 5, 30, 15], [4, 2, 24, 18]]), abs=1e-4)
    assert mixed.labels.tolist() == [0, 1] and not mixed.crowd.any()
    assert np.array_equal(instances_of(mixed), np.where(rasterize(TRIANGLE), 2, 0))
    assert polygon.boxes.tolist() == [[20, 10, 40, 20]]
    expected = np.zeros((HEIGHT, WIDTH))
    expected[10:, 20:] = 1
    assert np.array_equal(instances_of(polygon), expected)
    for sample in (empty, missing):
        assert sample.boxes.shape == (0, 4) and sample.supervision.detection.all()
        assert instances_of(sample).max() == 0
    assert mixed.image_id == "images/train/a" and mixed.path == str(root / "images/train/a.png")


def test_semantic_maps_from_polygons_only_on_request(root: Path) -> None:
    assert Yolo(root=root)[0].semantic is None
    source = Yolo(root=root, semantic_from_instances=True)
    assert [c.name for c in source.taxonomy.semantic_categories] == ["background", "cat", "dog"]
    triangle = rasterize(TRIANGLE)
    # The cat has a box only: it lies somewhere in there.
    expected = np.zeros((HEIGHT, WIDTH))
    expected[5:15, 10:30] = 255
    expected[triangle] = 2
    assert np.array_equal(semantic_of(source[0]), expected)
    assert source[0].supervision.semantic.all()
    assert semantic_of(source[3]).max() == 0
    ignoring = Yolo(root=root, semantic_from_instances=True, background=None)
    assert np.array_equal(semantic_of(ignoring[0]) == 255, ~triangle)
    with pytest.raises(DataError, match="background"):
        Yolo(root=root, semantic_from_instances=True, background="cat")


def test_images_with_boxes_alone_have_no_maps(root: Path) -> None:
    (root / "labels/train/a.txt").write_text("0 0.5 0.5 0.5 0.5")
    sample = Yolo(root=root, semantic_from_instances=True)[0]
    assert sample.instances is None and sample.semantic is None and not sample.supervision.semantic.any()
    (root / "labels/train/b.txt").write_text("")
    assert all(Yolo(root=root)[i].instances is None for i in range(4))
    with pytest.raises(DataError, match=r"no label is a polygon.*semantic_from_instances: false"):
        Yolo(root=root, semantic_from_instances=True)


def test_small_polygons_lie_over_large_ones(root: Path) -> None:
    small, large = "0 0.4 0.4 0.6 0.4 0.6 0.6 0.4 0.6", "1 0 0 1 0 1 1 0 1"
    (root / "labels/train/a.txt").write_text(f"{small}\n{large}\n")
    instances = instances_of(Yolo(root=root)[0])
    assert np.array_equal(instances, np.where(rasterize(small), 1, 2))


def test_semantic_pngs(root: Path) -> None:
    (root / "masks").mkdir()
    values = np.full((HEIGHT, WIDTH), 3, dtype=np.uint8)
    values[:5], values[5:8], values[8:10] = 11, 255, 0
    Image.fromarray(values).save(root / "masks/a.png")
    names: Any = {0: None, 3: "grass", 11: "cat", 12: "sky"}
    source = Yolo(root=root, masks="masks", semantic_names=names)
    assert [c.name for c in source.taxonomy.semantic_categories] == ["grass", "sky", "cat"]
    assert [c.name for c in source.taxonomy.detection_categories] == ["cat", "dog"]
    assert source.taxonomy.detection_to_semantic == (2, -1)
    expected = np.select([values == 3, values == 11], [0, 2], 255)
    assert np.array_equal(semantic_of(source[0]), expected)
    assert source[1].semantic is None and not source[1].supervision.semantic.any()
    # Where there is no mask, polygons can say what they know, and no more.
    derived = Yolo(root=root, masks="masks", semantic_names={**names, 13: "dog"}, semantic_from_instances=True)
    assert [c.name for c in derived.taxonomy.semantic_categories] == ["grass", "sky", "cat", "dog"]
    sample = derived[1]
    assert sample.supervision.semantic.tolist() == [False, False, True, True]
    assert np.array_equal(semantic_of(sample), np.where(instances_of(sample) == 1, 3, 255))
    assert derived[0].supervision.semantic.all()


def test_semantic_pngs_that_do_not_fit(root: Path) -> None:
    (root / "masks").mkdir()
    options: dict[str, Any] = {"root": root, "masks": "masks", "semantic_names": ["grass"]}
    with pytest.raises(DataError, match="no image has a mask"):
        Yolo(**options)
    with pytest.raises(DataError, match="set together"):
        Yolo(root=root, masks="masks")
    Image.fromarray(np.full((HEIGHT, WIDTH), 9, dtype=np.uint8)).save(root / "masks/a.png")
    with pytest.raises(DataError, match=r"a\.png: 800 pixels have the value 9.*semantic_names"):
        Yolo(**options)[0]
    Image.new("L", (WIDTH, HEIGHT + 1)).save(root / "masks/a.png")
    with pytest.raises(DataError, match=r"a\.png: it is 40 x 21"):
        Yolo(**options)[0]
    (root / "masks/a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"masks/a\.png"):
        Yolo(**options)[0]
    huge_png(root / "masks/a.png")
    with pytest.raises(DataError, match=r"masks/a\.png"):
        Yolo(**options)[0]


@pytest.mark.parametrize(
    "content",
    [
        {"train": "images/train", "names": {0: "cat", 1: "dog"}},
        {"train": ["images/train"], "names": ["cat", "dog"], "nc": 2},
        {"path": ".", "train": "./images/train", "names": ["cat", "dog"]},
        {"path": "", "train": "images/train/", "names": {"0": "cat", "1": "dog"}},
        {"train": "../images/train", "names": ["cat", "dog"]},
        {"train": "train.txt", "names": ["cat", "dog"]},
        {"train": ["absolute.txt"], "names": ["cat", "dog"]},
        {"path": "images", "train": "../images/train", "names": ["cat", "dog"], "fails": "labels"},
    ],
)
def test_the_usual_forms_of_a_data_yaml(root: Path, content: dict[str, Any]) -> None:
    stems = ("a", "b", "c", "d")
    (root / "train.txt").write_text("".join(f"./images/train/{stem}.png\n" for stem in stems))
    (root / "absolute.txt").write_text("\n".join(str(root / f"images/train/{stem}.png") for stem in stems))
    fails = content.pop("fails", None)
    write(root, **content)
    if fails:
        with pytest.raises(DataError):
            Yolo(root=root)
        return
    source = Yolo(root=root)
    assert len(source) == 4 and [c.name for c in source.taxonomy.categories] == ["cat", "dog"]
    assert source[0].labels.tolist() == [0, 1]


def test_paths_names_and_counts_of_a_data_yaml(root: Path) -> None:
    write(root, path=str(root), train="images", nc=2)
    source = Yolo(root=root)
    assert [c.name for c in source.taxonomy.categories] == ["class0", "class1"] and len(source) == 4
    # Written from the folder above.
    write(root, path=root.name, train="images", names={1: "dog", 0: "cat"})
    assert [c.name for c in Yolo(root=root).taxonomy.categories] == ["cat", "dog"]
    write(root, train="images", val="images/train", names={5: "five", 1: "one", 0: "zero"})
    (root / "labels/train/a.txt").write_text("5 0.5 0.5 0.5 0.5")
    assert Yolo(root=root, split="val")[0].labels.tolist() == [2]


def test_labels_beside_the_images(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "photos/a.jpg")
    (tmp_path / "photos/a.txt").write_text("0 0.5 0.5 0.5 0.5")
    write(tmp_path, train="photos", names=["cat"])
    assert len(Yolo(root=tmp_path)[0].labels) == 1


def test_images_without_a_label_file_can_be_left_out(root: Path) -> None:
    assert len(Yolo(root=root, missing_are_empty=False)) == 3
    write(root, train="images/train", names=["cat", "dog"], skip_if_label_file_missing=True)
    assert len(Yolo(root=root)) == 3 and len(Yolo(root=root, missing_are_empty=True)) == 4
    (root / "masks").mkdir()
    Image.new("L", (WIDTH, HEIGHT)).save(root / "masks/d.png")
    sample = Yolo(root=root, masks="masks", semantic_names=["grass"])[3]
    assert not sample.supervision.detection.any() and sample.supervision.semantic.all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 nan 0.5 0.5 0.5", "line 1: a number is not finite"),
        ("0 0.5 inf 0.5 0.5", "line 1: a number is not finite"),
        ("0 -0.5 0.5 0.5 0.5", "line 1: -0.5 is outside of 0 to 1"),
        ("0 0.5 0.5 -0.005 0.5", "line 1: a side is negative"),
        ("1 0.1 0.1 0.6 -0.1 0.1 0.9", "line 1: -0.1 is outside of 0 to 1"),
        ("\n0 320 240 100 80", "line 2: 320 is outside of 0 to 1; divide"),
        ("2 0.5 0.5 0.5 0.5", "line 1: there is no class 2 in"),
        ("-1 0.5 0.5 0.5 0.5", "line 1: there is no class -1 in"),
        ("0.5 0.5 0.5 0.5 0.5", "line 1: there is no class 0.5 in"),
        ("0 0.5 0.5 0.5", "line 1: 4 numbers are neither"),
        ("0 0.5 0.5 0.5 0.5 0.9", "line 1: 6 numbers are neither"),
        ("0 0.1 0.1 0.6 0.1 0.1 0.9 0.5", "line 1: 8 numbers are neither"),
        ("0", "line 1: 1 numbers are neither"),
        ("cat 0.5 0.5 0.5 0.5", "line 1: expected numbers"),
    ],
)
def test_wrong_rows_name_file_and_line(root: Path, text: str, words: str) -> None:
    (root / "labels/train/b.txt").write_text(text)
    with pytest.raises(DataError) as error:
        Yolo(root=root)
    assert f"labels/train/b.txt: {words}" in str(error.value) and "\n" not in str(error.value)


def test_rounding_is_forgiven_and_boxes_without_area_are_left_out(root: Path) -> None:
    (root / "labels/train/b.txt").write_text(
        "0 0.5 0.5 0 0.5\n1 0.5 0.5 1.000001 1.000001\n0 0.2 0.2 0.2 0.4 0.2 0.6\n0 0.999 0.5 0.2 0.1"
    )
    sample = Yolo(root=root)[1]
    assert sample.labels.tolist() == [1, 0]
    assert sample.boxes[0].tolist() == [0, 0, WIDTH, HEIGHT] and float(sample.boxes[1, 2]) == WIDTH


def _unlink(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def _text(name: str, text: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / name).write_bytes(text.encode("latin-1"))

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_unlink("data.yaml"), "data.yaml: there is no such file"),
        (_text("data.yaml", ""), "data.yaml: expected keys"),
        (_text("data.yaml", "train: ["), ": this is not valid YAML"),
        (_text("data.yaml", "- 1"), "data.yaml: expected keys"),
        (_text("data.yaml", "names: [cat, dog]"), "data.yaml: train: expected a folder"),
        (_text("data.yaml", "train: images/train"), "data.yaml: names: expected class names"),
        (_text("data.yaml", "train: images/train\nnames: []"), "data.yaml: names: expected class names"),
        (_text("data.yaml", "train: images/train\nnames: [cat, cat]"), "data.yaml: names.1"),
        (_text("data.yaml", "train: images/train\nnames: {x: cat}"), "data.yaml: names: expected ids"),
        (_text("data.yaml", "train: images/train\nnames: [cat, dog]\nnc: 3"), "data.yaml: nc: it is 3"),
        (_text("data.yaml", "train: images/train\nnames: {0: cat, 9: dog}\nnc: 3"), "data.yaml: nc: it is 3"),
        (_text("data.yaml", "train: images/train\nnames: [cat, dog]\nnc: x"), "data.yaml: nc: expected the number"),
        (_text("data.yaml", "train: images/gone\nnames: [cat, dog]"), "data.yaml: train: there is no 'images/gone'"),
        (_text("data.yaml", "train: labels\nnames: [cat, dog]"), "data.yaml: train: there is no image"),
        (_text("data.yaml", "path: gone\ntrain: images\nnames: [cat]"), "data.yaml: path: there is no folder"),
        (_text("data.yaml", "path: ../..\ntrain: images\nnames: [cat]"), "data.yaml: path: '../..' leads out"),
        (_text("data.yaml", "path: 3\ntrain: images\nnames: [cat]"), "data.yaml: path: expected a folder"),
        (_text("data.yaml", "train: ../../etc\nnames: [cat, dog]"), "data.yaml: train: '../../etc' leads out"),
        (_text("data.yaml", "train: /etc\nnames: [cat, dog]"), "data.yaml: train: '/etc' leads out"),
        (_text("list.txt", "images/train/gone.png"), "list.txt: line 1: there is no file"),
        (_text("list.txt", "\n../../z.png"), "list.txt: line 2: '../../z.png' leads out"),
        (_text("list.txt", "..\\..\\z.png"), "list.txt: line 1: '..\\\\..\\\\z.png' leads out"),
        (_text("list.txt", "/etc/passwd"), "list.txt: line 1: '/etc/passwd' leads out"),
        (_text("list.txt", "\n"), "list.txt: the list is empty"),
        (_text("list.txt", "\xfe\xfd"), "list.txt: this is not a text file"),
        (_text("labels/train/a.txt", "\xfe\xfd"), "labels/train/a.txt: this is not a text file"),
    ],
)
def test_bad_files_are_named_before_training(root: Path, change: Callable[[Path], None], words: str) -> None:
    write(root, train="images/train", names=["cat", "dog"])
    change(root)
    if (root / "list.txt").exists():
        write(root, train="list.txt", names=["cat", "dog"])
    with pytest.raises(DataError) as error:
        Yolo(root=root)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_no_labels_at_all(root: Path) -> None:
    for path in (root / "labels/train").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"no image has a label file.*labels/train/a\.txt"):
        Yolo(root=root)
    with pytest.raises(DataError, match="set together"):
        Yolo(root=root, images="images")


def test_broken_images_are_named_when_read(root: Path) -> None:
    source = Yolo(root=root)
    for change in (lambda p: p.write_bytes(b""), huge_png, lambda p: p.unlink()):
        change(root / "images/train/a.png")
        with pytest.raises(DataError, match=r"a\.png"):
            source[0]


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_boxes_by_hand(shared_data: Path, split: str) -> None:
    folder = shared_data / "coco128"
    source = Yolo(
        "object_detection/config.yaml",
        split,
        images=f"images/{split}2017",
        labels=f"object_detection/labels/{split}2017",
        root=folder,
    )
    assert len(source) == 128 and source.taxonomy.num_detection == 80
    boxes = 0
    for i in range(0, 128, 4):
        sample = source[i]
        text = folder / f"object_detection/labels/{split}2017/{sample.image_id}.txt"
        rows = [list(map(float, line.split())) for line in text.read_text().splitlines()] if text.exists() else []
        height, width = sample.size
        assert sample.labels.tolist() == [int(row[0]) for row in rows]
        for box, (_, x, y, w, h) in zip(sample.boxes.tolist(), rows, strict=True):
            expected = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
            assert box == pytest.approx(expected, abs=0.01)
            boxes += 1
    assert boxes > 50


def test_real_polygons_and_masks(shared_data: Path) -> None:
    """Class ids with gaps, images without labels to leave out, and semantic PNGs of a third numbering."""
    folder = shared_data / "coco128"
    names = yaml.safe_load((folder / "semantic_segmentation/config.yaml").read_text())["classes"]
    source = Yolo(
        "instance_segmentation/config.yaml",
        images="images/val2017",
        labels="instance_segmentation/labels/val2017",
        masks="semantic_segmentation/masks/val2017",
        semantic_names=names | {0: None},
        root=folder,
    )
    assert len(source) == 100
    agreed = total = 0
    for i in range(0, 100, 5):
        sample = source[i]
        instances, semantic = instances_of(sample), semantic_of(sample)
        png = np.array(Image.open(folder / f"semantic_segmentation/masks/val2017/{sample.image_id}.png"))
        assert np.array_equal(semantic == 255, (png == 0) | (png == 255))
        for value in np.unique(png[png != 0]):
            of = np.unique(semantic[png == value])
            assert len(of) == 1 and source.taxonomy.semantic_categories[of[0]].name == names[value]
        of_box = np.array([-1, *(source.taxonomy.detection_to_semantic[k] for k in sample.labels)])[instances]
        seen = (instances > 0) & (semantic != 255)
        agreed, total = agreed + int((of_box == semantic)[seen].sum()), total + int(seen.sum())
    # The polygons and the PNG are two drawings of the same objects.
    assert total > 100_000 and agreed / total > 0.9


@pytest.mark.parametrize("name", ["no", "Yes", "off", "true"])
def test_a_name_that_yaml_takes_for_true_or_false_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "data.yaml").write_text(f"train: images\nnames: [cat, {name}]\n")
    with pytest.raises(DataError, match=r"data\.yaml: names\.1: YAML reads this name as (true|false); put"):
        Yolo(root=tmp_path)
