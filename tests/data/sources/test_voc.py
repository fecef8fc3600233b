"""Pascal VOC files against hand-made cases and brute force."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ocrnet_pl.data.readers.label_maps import match_boxes, read_id_map, tight_boxes
from ocrnet_pl.data.sources.voc import VOC_CLASSES, PascalVoc
from ocrnet_pl.errors import DataError
from tests.helpers.bad_files import huge_png
from tests.helpers.map_files import maps

HEIGHT, WIDTH = 12, 16


def _object(name: str, box: tuple[Any, Any, Any, Any], **extra: Any) -> str:
    fields = "".join(f"<{key}>{value}</{key}>" for key, value in extra.items())
    corners = "".join(
        f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name>{fields}<bndbox>{corners}</bndbox></object>"


def _xml(*objects: str, size: tuple[int, int] | None = (WIDTH, HEIGHT)) -> str:
    sides = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><folder>VOC</folder>{sides}{''.join(objects)}</annotation>"


def _save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8), mode="P")
    # Colors that are no indices, as in the original.
    image.putpalette([value * 3 % 256 for value in range(768)])
    image.save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Image a has boxes and masks, b only boxes, c only a class mask."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main", "SegmentationClass", "SegmentationObject"):
        (tmp_path / folder).mkdir(parents=True)
    for stem in "abc":
        Image.new("RGB", (WIDTH, HEIGHT), (ord(stem), 0, 0)).save(tmp_path / "JPEGImages" / f"{stem}.jpg")
    (tmp_path / "ImageSets/Main/train.txt").write_text("b\na\n\nc\n")
    (tmp_path / "ImageSets/Main/cat_train.txt").write_text("a  1\nb -1\n")
    cat, dog = VOC_CLASSES.index("cat") + 1, VOC_CLASSES.index("dog") + 1
    part = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part>"
    a = _xml(
        _object("dog", (9, 2, 14, 9), difficult=0),
        _object("cat", (1, 1, 6, 8), difficult=0).replace("</object>", part + "</object>"),
        _object("dog", (1, 10, 16, 12), difficult=1),
    )
    (tmp_path / "Annotations/a.xml").write_text(a)
    (tmp_path / "Annotations/b.xml").write_text(_xml(_object("person", ("3.0", "2.5", 3, 7)), size=None))
    classes = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    objects = classes.copy()
    # The numbers are not in the order of the XML; object 4 has no box.
    for number, label, window in (
        (1, cat, np.s_[1:8, 0:6]),
        (2, dog, np.s_[2:9, 8:14]),
        (3, dog, np.s_[9:12, 0:16]),
        (4, cat, np.s_[0:2, 14:16]),
    ):
        classes[window], objects[window] = label, number
    for values in (classes, objects):
        values[0, 0:6] = 255
    _save(tmp_path / "SegmentationClass/a.png", classes)
    _save(tmp_path / "SegmentationObject/a.png", objects)
    _save(tmp_path / "SegmentationClass/c.png", np.full((HEIGHT, WIDTH), 20))
    return tmp_path


def _open(root: Path, **options: Any) -> PascalVoc:
    return PascalVoc(options.pop("split", "ImageSets/Main/train.txt"), root=root, **options)


def test_boxes_maps_and_what_was_labelled(root: Path) -> None:
    source = _open(root)
    assert [c.name for c in source.taxonomy.detection_categories] == list(VOC_CLASSES)
    # The indices of the masks are the indices of the segmentation classes.
    assert [c.name for c in source.taxonomy.semantic_categories] == ["background", *VOC_CLASSES]
    assert [source[i].image_id for i in range(len(source))] == ["b", "a", "c"]
    boxes_only, both, mask_only = (source[i] for i in range(3))

    assert both.boxes.tolist() == [[8, 1, 14, 9], [0, 0, 6, 8], [0, 9, 16, 12]]
    assert [VOC_CLASSES[label] for label in both.labels] == ["dog", "cat", "dog"]
    assert both.crowd.tolist() == [False, False, True]
    assert both.supervision.detection.all() and both.supervision.semantic.all()
    instances, semantic = maps(both)
    classes = np.array(Image.open(root / "SegmentationClass/a.png"))
    objects = np.array(Image.open(root / "SegmentationObject/a.png"))
    assert np.array_equal(semantic, classes) and (semantic == 255).sum() == 6
    expected = np.zeros_like(instances)
    expected[objects == 1], expected[objects == 2] = 2, 1
    assert np.array_equal(instances, expected)

    assert boxes_only.boxes.tolist() == [[2, 1.5, 3, 7]]
    assert boxes_only.semantic is None and boxes_only.instances is None
    assert boxes_only.supervision.detection.all() and not boxes_only.supervision.semantic.any()
    assert not mask_only.supervision.detection.any() and mask_only.supervision.semantic.all()
    assert len(mask_only.boxes) == 0 and (mask_only.semantic == 20).all()


def test_the_first_pixel_alone_is_a_box_of_one_pixel(root: Path) -> None:
    (root / "Annotations/b.xml").write_text(_xml(_object("person", (1, 1, 1, 1)), _object("person", (0, 0, 20, 3))))
    # Zeros, of tools that count from 0, and sides that stand over the image are clipped.
    assert _open(root)[0].boxes.tolist() == [[0, 0, 1, 1], [0, 0, 16, 3]]


def test_difficult_objects(root: Path) -> None:
    kept, dropped = _open(root, difficult="keep")[1], _open(root, difficult="drop")[1]
    assert kept.crowd.tolist() == [False] * 3 and set(np.unique(maps(kept)[0])) == {0, 1, 2, 3}
    assert len(dropped.boxes) == 2 and set(np.unique(maps(dropped)[0])) == {0, 1, 2}
    assert np.array_equal(maps(dropped)[1], maps(kept)[1])  # its pixels keep their class
    with pytest.raises(ValueError, match="difficult"):
        _open(root, difficult="skip")


def test_lists_with_a_second_column_and_no_list(root: Path) -> None:
    assert len(_open(root, split="ImageSets/Main/cat_train.txt")) == 2
    assert [s.image_id for s in (_open(root, split=None)[i] for i in range(3))] == ["a", "b", "c"]


def test_boxes_alone_and_masks_alone(root: Path) -> None:
    (root / "ImageSets/Main/train.txt").write_text("a")
    source = _open(root, class_masks=None, object_masks=None)
    assert source.taxonomy.num_semantic == 0 and source.taxonomy.num_detection == 20
    assert source[0].semantic is None and len(source[0].boxes) == 3
    sample = _open(root, annotations=None)[0]
    assert sample.instances is None and not sample.supervision.detection.any() and sample.supervision.semantic.all()


def test_classes_of_ones_own(root: Path) -> None:
    (root / "Annotations/b.xml").write_text(_xml(_object("weed", (1, 1, 4, 4))))
    (root / "ImageSets/Main/train.txt").write_text("b")
    source = _open(root, classes=["crop", "weed"], background="soil")
    assert [c.name for c in source.taxonomy.semantic_categories] == ["soil", "crop", "weed"]
    assert source[0].labels.tolist() == [1]
    with pytest.raises(ValueError, match="more than once"):
        _open(root, classes=["weed", "weed"])
    with pytest.raises(ValueError, match="at least one"):
        _open(root, classes=[])


def test_object_masks_without_class_masks_match_by_place(root: Path) -> None:
    sample = _open(root, split="ImageSets/Main/cat_train.txt", class_masks=None)[0]
    assert sample.instances is not None and set(np.unique(sample.instances.numpy())) == {0, 1, 2}
    assert sample.semantic is None


BOX = (1, 1, 4, 4)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "the file is empty"),
        ("<annotation><object>", "not valid XML"),
        ("not xml", "not valid XML"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>&b;</annotation>", "document type"),
        (_xml(_object("unicorn", BOX)), "object[0].name: there is no class 'unicorn'"),
        (_xml("<object><name>cat</name></object>"), "object[0].bndbox: missing"),
        (_xml(_object("cat", BOX).replace("<xmin>1</xmin>", "")), "object[0].bndbox.xmin: missing"),
        (_xml(_object("cat", BOX), _object("cat", ("nan", 1, 2, 3))), "object[1].bndbox.xmin"),
        (_xml(_object("cat", ("inf", 1, 2, 3))), "object[0].bndbox.xmin"),
        (_xml(_object("cat", (-1e12, 1, 2, 3))), "object[0].bndbox.xmin"),
        (_xml(_object("cat", ("x", 1, 2, 3))), "object[0].bndbox.xmin"),
        (_xml(_object("cat", (5, 1, 2, 3))), "object[0].bndbox: (5, 1) to (2, 3) is not a box"),
        (_xml(_object("cat", (18, 1, 20, 3))), "object[0].bndbox: it is outside"),
        (_xml(_object("cat", BOX, difficult="maybe")), "object[0].difficult"),
        (_xml(_object("cat", BOX), size=(-1, 5)), "size.width"),
        (
            _xml(_object("cat", BOX), size=(10**12, 5)),
            "size.width: expected a number from 0 to 1e+09, found '1000000000000'",
        ),
    ],
)
def test_wrong_xml_names_file_and_field(root: Path, content: str, words: str) -> None:
    (root / "Annotations/b.xml").write_text(content)
    with pytest.raises(DataError) as error:
        _open(root)
    assert words in str(error.value) and "b.xml" in str(error.value) and "\n" not in str(error.value)


def test_entities_in_another_encoding_are_refused_too(root: Path) -> None:
    text = "<?xml version='1.0' encoding='UTF-16'?><!DOCTYPE a [<!ENTITY b 'c'>]><annotation>&b;</annotation>"
    (root / "Annotations/b.xml").write_bytes(text.encode("utf-16"))
    with pytest.raises(DataError, match="document type"):
        _open(root)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("", "the list is empty"),
        ("a\ngone\n", "line 2: there is no image 'gone'"),
        ("../secret", "leads out of the folder"),
        ("/etc/passwd", "leads out of the folder"),
        ("..", "leads out of the folder"),
        ("a\nb\na", "line 3: 'a' is already in line 1"),
    ],
)
def test_wrong_lists(root: Path, lines: str, words: str) -> None:
    (root / "ImageSets/Main/train.txt").write_text(lines)
    with pytest.raises(DataError) as error:
        _open(root)
    assert words in str(error.value) and "train.txt" in str(error.value)


def test_what_is_missing_is_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"val.txt: there is no such list"):
        _open(root, split="ImageSets/Main/val.txt")
    (root / "ImageSets/Main/train.txt").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(DataError, match="not a text file"):
        _open(root)
    with pytest.raises(DataError, match="the nearest is 'JPEGImages'"):
        _open(root, images="JPGImages")
    with pytest.raises(DataError, match="set `object_masks: null`"):
        _open(root, split=None, object_masks="Objects")
    (root / "SegmentationClass/c.png").unlink()
    with pytest.raises(DataError, match=r"c.jpg: it has neither"):
        _open(root, split=None)
    (root / "Annotations/d.xml").write_text(_xml())
    with pytest.raises(DataError, match=r"d.xml: there is no image 'd'"):
        _open(root, split=None)
    (root / "JPEGImages/a.png").touch()
    with pytest.raises(DataError, match="have the same stem"):
        _open(root)


def test_broken_files_raise_when_they_are_read(root: Path) -> None:
    source = _open(root)
    mask = root / "SegmentationClass/a.png"
    whole = mask.read_bytes()
    _save(mask, np.full((HEIGHT, WIDTH), 21))
    with pytest.raises(DataError, match=r"a.png: there is no class of index 21"):
        source[1]
    _save(mask, np.zeros((HEIGHT, WIDTH + 1)))
    with pytest.raises(DataError, match="17 x 12"):
        source[1]
    Image.new("RGB", (WIDTH, HEIGHT)).save(mask)
    with pytest.raises(DataError, match="found mode RGB"):
        source[1]
    huge_png(mask, color=3)
    with pytest.raises(DataError, match=r"a.png"):
        source[1]
    for content in (b"", b"text", whole[: len(whole) // 2]):
        mask.write_bytes(content)
        with pytest.raises(DataError, match=r"a.png"):
            source[1]
    mask.unlink()
    with pytest.raises(DataError, match="there is no such mask"):
        source[1]
    image = root / "JPEGImages/b.jpg"
    huge_png(image, color=2)
    with pytest.raises(DataError, match=r"b.jpg"):
        source[0]
    for content in (b"", b"text"):
        image.write_bytes(content)
        with pytest.raises(DataError, match=r"b.jpg"):
            source[0]
    image.unlink()
    with pytest.raises(DataError, match=r"b.jpg"):
        source[0]


def test_an_image_of_another_size_than_its_annotation(root: Path) -> None:
    (root / "Annotations/b.xml").write_text(_xml(_object("cat", BOX), size=(WIDTH + 2, HEIGHT)))
    with pytest.raises(DataError, match=r"b.xml: it is 18 x 12"):
        _open(root)[0]
    (root / "Annotations/b.xml").write_text(_xml(_object("cat", BOX), _object("cat", (18, 1, 20, 3)), size=None))
    with pytest.raises(DataError, match=r"b.xml: object\[1\].bndbox: it is outside"):
        _open(root)[0]


def test_tight_boxes_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 40, (30, 50)).astype(np.int32) * (rng.random((30, 50)) < 0.05)
    numbers = numbers.astype(np.int32)
    boxes = tight_boxes(numbers, 45)
    for number in range(1, 46):
        ys, xs = np.nonzero(numbers == number)
        expected = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0, 0, 0, 0]
        assert boxes[number - 1].tolist() == expected


def test_matching_takes_the_best_pairs_first() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]], dtype=np.float32)
    others = np.array([[1, 0, 11, 10], [0, 0, 10, 9], [50, 50, 60, 60]], dtype=np.float32)
    same = np.zeros(3, dtype=np.int64)
    assert match_boxes(boxes, same, others, same, 0.3).tolist() == [1, 0, 2]
    assert match_boxes(boxes, same, others, np.array([0, 0, 1]), 0.3).tolist() == [1, 0, -1]
    assert match_boxes(boxes, np.array([-1, -1, -1]), others, np.array([0, 0, 1]), 0.3).tolist() == [1, 0, 2]
    assert match_boxes(boxes, same, others[1:2], same[:1], 0.95).tolist() == [-1, -1, -1]
    assert match_boxes(boxes[:0], same[:0], others, same, 0.3).tolist() == []


def test_ids_of_sixteen_bits(tmp_path: Path) -> None:
    values = np.array([[0, 26001], [65535, 7]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.array_equal(read_id_map(tmp_path / "a.png", bits=16), values)
    with pytest.raises(DataError, match="found mode I;16"):
        read_id_map(tmp_path / "a.png")
