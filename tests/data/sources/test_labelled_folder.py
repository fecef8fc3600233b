"""A plain folder against brute force over its files, and bad input."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ocrnet_pl.data.sources.labelled_folder import LabelledFolder
from ocrnet_pl.errors import DataError
from tests.helpers.bad_files import huge_png
from tests.helpers.map_files import maps, replaced_by, save

HEIGHT, WIDTH = 12, 16
NAMES: Any = {0: "soil", 3: "cat", 7: "dog"}
HEADER = "image,x1,y1,x2,y2,label\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Image a has everything, sub/b an instance map and a mask, c only a mask, d only a line of the CSV."""
    for number, name in enumerate(("a.jpg", "sub/b.png", "c.PNG", "d.webp")):
        save(tmp_path / "images" / name, np.full((HEIGHT, WIDTH, 3), 40 * number, dtype=np.uint8))
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[2:6, 1:5], mask[7:11, 8:14], mask[0, 0] = 3, 7, 255
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint16)
    # An id above 8 bits, one that reaches over the border of its class, and one that fits no box.
    ids[2:6, 1:5], ids[7:11, 8:15], ids[0:2, 12:16] = 60_000, 5, 9
    for name in ("a", "sub/b"):
        save(tmp_path / f"masks/{name}.png", mask)
        save(tmp_path / f"instances/{name}.png", ids)
    save(tmp_path / "masks/c.png", np.full((HEIGHT, WIDTH), 7, dtype=np.uint8))
    (tmp_path / "boxes.csv").write_text(HEADER + "a.jpg,8,7,15,11,dog\na.jpg,1,2,5,6,cat\nd,0,0,99,3.5,cat\nc,,,,,\n")
    return tmp_path


def joint(root: Path, **options: Any) -> LabelledFolder:
    given: dict[str, Any] = {
        "images": "images",
        "classes": ["cat", "dog"],
        "masks": "masks",
        "semantic_names": NAMES,
        "boxes": "boxes.csv",
        "unlisted_are_empty": False,
        "instances": "instances",
        "boxes_from_instances": True,
        "root": root,
    }
    return LabelledFolder(**given | options)


def test_each_image_has_what_its_files_say(root: Path) -> None:
    source = joint(root)
    samples = {source[i].image_id: source[i] for i in range(len(source))}
    assert sorted(samples) == ["a", "c", "d", "sub/b"]
    assert [c.name for c in source.taxonomy.detection_categories] == ["cat", "dog"]
    assert [c.name for c in source.taxonomy.semantic_categories] == ["soil", "cat", "dog"]
    mask, ids = (np.array(Image.open(root / f"{folder}/a.png")) for folder in ("masks", "instances"))

    instances, semantic = maps(samples["a"])
    assert np.array_equal(semantic, np.select([mask == 0, mask == 3, mask == 7], [0, 1, 2], 255))
    # The order of the CSV counts; id 9 fits no box.
    assert samples["a"].boxes.tolist() == [[8, 7, 15, 11], [1, 2, 5, 6]] and samples["a"].labels.tolist() == [1, 0]
    assert np.array_equal(instances, np.select([ids == 5, ids == 60_000], [1, 2], 0))

    # Without boxes: one tight box an id, in ascending order of ids, of the class of most of its pixels.
    expected = []
    for value in sorted(set(ids.flat) - {0}):
        ys, xs = np.nonzero(ids == value)
        classes = [int(value) for value in mask[ys, xs]]
        name = NAMES[max(set(classes), key=classes.count)]
        if name != "soil":
            box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            expected.append((value, box, ["cat", "dog"].index(name)))
    derived = samples["sub/b"]
    assert derived.boxes.tolist() == [box for _, box, _ in expected]
    assert derived.labels.tolist() == [label for _, _, label in expected]
    assert np.array_equal(maps(derived)[0], np.select([ids == value for value, _, _ in expected], [1, 2], 0))

    assert len(samples["c"].boxes) == 0 and samples["c"].supervision.detection.all()
    assert (samples["c"].semantic == 2).all() and samples["c"].instances is None
    # Cut at the border of the image.
    assert samples["d"].boxes.tolist() == [[0, 0, WIDTH, 3.5]] and samples["d"].semantic is None
    assert not samples["d"].supervision.semantic.any()
    assert samples["sub/b"].supervision.detection.all() and samples["sub/b"].supervision.semantic.all()


def test_images_that_the_boxes_do_not_name(root: Path) -> None:
    options: dict[str, Any] = {"instances": None, "boxes_from_instances": False}
    unknown, empty = joint(root, **options), joint(root, **options, unlisted_are_empty=True)
    index = next(i for i in range(4) if unknown[i].image_id == "sub/b")
    assert not unknown[index].supervision.detection.any() and len(unknown[index].boxes) == 0
    assert empty[index].supervision.detection.all() and len(empty[index].boxes) == 0


def test_segmentation_alone_and_boxes_alone(root: Path) -> None:
    shutil.copytree(root / "masks", root / "pictures")
    masks = joint(root, classes=[], boxes=None, instances=None, boxes_from_instances=False, images="pictures")
    assert masks.taxonomy.num_detection == 0 and masks.taxonomy.num_semantic == 3
    assert not any(len(masks[i].boxes) for i in range(len(masks)))
    options: dict[str, Any] = {"masks": None, "semantic_names": None, "instances": None, "boxes_from_instances": False}
    boxes = joint(root, **options, unlisted_are_empty=True)
    assert boxes.taxonomy.num_semantic == 0 and sum(len(boxes[i].boxes) for i in range(4)) == 3
    # The list names three of the four images.
    assert [joint(root, **options).identity(i)[0] for i in range(len(joint(root, **options)))] == ["a", "c", "d"]


def cells(root: Path, bits: int = 8, **options: Any) -> LabelledFolder:
    """A greyscale image and an instance map, nothing else."""
    rng = np.random.default_rng(bits)
    grey = rng.integers(0, 1 << bits, (HEIGHT, WIDTH)).astype(np.uint8 if bits == 8 else np.uint16)
    save(root / "cells/images/x.png" if bits == 8 else root / "cells/images/x.tif", grey)
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    ids[1:4, 1:4], ids[6:10, 5:12], ids[7, 6] = 200, 3, 0
    save(root / "cells/maps/x.png", ids)
    given = {"images": "cells/images", "classes": ["cell"], "instances": "cells/maps", "boxes_from_instances": True}
    return LabelledFolder(**given | {"root": root} | options)


@pytest.mark.parametrize("bits", [8, 16])
def test_instance_maps_alone(tmp_path: Path, bits: int) -> None:
    sample = cells(tmp_path, bits, semantic_from_instances=True)[0]
    grey = np.array(Image.open(next((tmp_path / "cells/images").iterdir()))).astype(np.int64)
    expected = grey if bits == 8 else np.round(grey / 257)
    assert all(np.array_equal(channel, expected) for channel in sample.image.numpy())
    assert sample.boxes.tolist() == [[5, 6, 12, 10], [1, 1, 4, 4]] and sample.labels.tolist() == [0, 0]
    instances, semantic = maps(sample)
    ids = np.array(Image.open(tmp_path / "cells/maps/x.png"))
    assert np.array_equal(instances, np.select([ids == 3, ids == 200], [1, 2], 0))
    assert np.array_equal(semantic, ids > 0) and sample.supervision.semantic.all()
    # Only on request.
    assert cells(tmp_path, bits)[0].semantic is None and cells(tmp_path, bits).taxonomy.num_semantic == 0
    ignoring = cells(tmp_path, bits, semantic_from_instances=True, background=None)
    assert np.array_equal(maps(ignoring[0])[1], np.where(ids > 0, 0, 255))


def test_masks_of_colors_and_of_palettes(root: Path) -> None:
    values = np.random.default_rng(0).integers(0, 3, (HEIGHT, WIDTH))
    colors = np.array([[255, 0, 0], [0, 128, 255], [7, 7, 7]], dtype=np.uint8)
    save(root / "colored/a.png", colors[values])
    palette = Image.fromarray(values.astype(np.uint8), mode="P")
    palette.putpalette([90, 80, 70, 60, 50, 40, 30, 20, 10])
    (root / "indexed").mkdir()
    palette.save(root / "indexed/a.png")
    named: tuple[tuple[str, Any], ...] = (
        ("colored", {"#FF0000": "wall", "#0080ff": None, "#070707": "floor"}),
        ("indexed", ["wall", None, "floor"]),
        ("indexed", {"#5a5046": "wall", "#3c3228": None, "#1e140a": "floor"}),
    )
    (root / "one").mkdir()
    Image.open(root / "images/a.jpg").save(root / "one/a.png")
    for folder, names in named:
        source = LabelledFolder("one", masks=folder, semantic_names=names, root=root)
        assert [c.name for c in source.taxonomy.semantic_categories] == ["wall", "floor"]
        semantic = source[0].semantic
        assert semantic is not None and np.array_equal(semantic.numpy(), np.array([0, 255, 1])[values])
    # What the colors are is what the pictures are drawn with.
    assert LabelledFolder("one", masks="colored", semantic_names=named[0][1], root=root).taxonomy.categories[
        0
    ].color == (
        255,
        0,
        0,
    )
    with pytest.raises(DataError, match=r"colored/a\.png: the mask has colors, not values"):
        LabelledFolder("one", masks="colored", semantic_names=["wall"], root=root)[0]
    with pytest.raises(DataError, match=r"a\.png: \d+ pixels have the color '#0080ff', which has no name"):
        LabelledFolder("one", masks="colored", semantic_names={"#ff0000": "wall", "#070707": "floor"}, root=root)[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"masks": None, "semantic_names": None, "boxes": None, "instances": None}, "no labels of any kind"),
        ({"semantic_names": None}, "semantic_names: the values of the masks have no names"),
        ({"masks": None}, "semantic_names: there are no masks"),
        ({"classes": ["cat", "cat"]}, "classes: a name occurs more than once"),
        ({"classes": []}, "classes: boxes and instances need classes"),
        ({"boxes": None, "boxes_from_instances": False}, "instances: instances need boxes"),
        ({"instances": None}, "boxes_from_instances: there are no instance maps"),
        (
            {"instances": None, "boxes_from_instances": False, "semantic_from_instances": True},
            "semantic_from_instances",
        ),
        ({"background": "cat"}, "background: 'cat' is a detection class"),
        ({"semantic_names": {0: "a", "#ffffff": "b"}}, "values and colors are mixed"),
        ({"semantic_names": {"#fff": "b"}}, "expected a color"),
        ({"semantic_names": {"x": "b"}}, "expected a pixel value"),
        ({"semantic_names": {-1: "b"}}, "no pixel can have the value -1"),
        ({"semantic_names": [None]}, "there is no class name"),
        ({"semantic_names": "gone.json"}, "gone.json: there is no such file"),
        ({"images": "gone"}, "gone"),
        ({"masks": "gone"}, "gone"),
        ({"boxes": "gone.csv"}, "gone.csv: there is no such table"),
        ({"images": "empty"}, "empty: there is no image"),
        ({"masks": "empty"}, "empty: there are no masks"),
        ({"instances": "empty"}, "empty: there are no instance maps"),
    ],
)
def test_options_that_do_not_fit(root: Path, options: dict[str, Any], words: str) -> None:
    (root / "empty").mkdir()
    with pytest.raises(DataError) as error:
        joint(root, **options)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("", "boxes.csv: the file is empty"),
        (HEADER, "boxes.csv: the table has no rows"),
        ("image,x1,y1,x2,label\na,0,0,3,cat\n", "boxes.csv: column 'y2': there is no such column"),
        ("image,x1,x1\na,0,0\n", "boxes.csv: line 1: a column occurs more than once"),
        (HEADER + "a,0,0,3,3\n", "boxes.csv: line 2: 5 cells, but 6 columns"),
        (HEADER + 'a,0,0,3,3,"cat\n', "boxes.csv: this is not a CSV file"),
        (HEADER + "\xfe\xfd", "boxes.csv: this is not a text file"),
        (HEADER + "\ngone,0,0,3,3,cat\n", "boxes.csv: line 3, image: there is no image 'gone'"),
        (HEADER + ",0,0,3,3,cat\n", "boxes.csv: line 2, image: expected text"),
        (HEADER + "../z.jpg,0,0,3,3,cat\n", "boxes.csv: line 2, image: '../z.jpg' leads out"),
        (HEADER + "/etc/passwd,0,0,3,3,cat\n", "boxes.csv: line 2, image: '/etc/passwd' leads out"),
        (HEADER + "a,0,0,3,3,bird\n", "boxes.csv: line 2, label: there is no class 'bird'"),
        (HEADER + "a,nan,0,3,3,cat\n", "boxes.csv: line 2, x1: expected a number of pixels"),
        (HEADER + "a,0,0,inf,3,cat\n", "boxes.csv: line 2, x2: expected a number of pixels"),
        (HEADER + "a,0,1e10,3,3,cat\n", "boxes.csv: line 2, y1: expected a number of pixels up to 1e+09, found '1e10'"),
        (HEADER + "a,0,,3,3,cat\n", "boxes.csv: line 2, y1: expected a number of pixels"),
        (HEADER + "a,5,0,3,3,cat\n", "boxes.csv: line 2, x2: (5, 0) to (3, 3) is not a box"),
        (HEADER.replace("\n", ",crowd\n") + "a,0,0,3,3,cat,2\n", "boxes.csv: line 2, crowd: expected 0 or 1"),
    ],
)
def test_wrong_boxes_name_file_and_line(root: Path, rows: str, words: str) -> None:
    (root / "boxes.csv").write_bytes(rows.encode("latin-1"))
    with pytest.raises(DataError) as error:
        joint(root)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_other_column_names_crowds_and_boxes_without_area(root: Path) -> None:
    (root / "boxes.csv").write_text(
        "class,filename,xmin,ymin,xmax,ymax,iscrowd,note\ncat,a,1,2,5,6,1,x\ndog,a,8,7,15,11,0,\ndog,a,3,3,3,9,,\n"
    )
    sample = joint(root, unlisted_are_empty=True)[0]
    assert sample.boxes.tolist() == [[1, 2, 5, 6], [8, 7, 15, 11]] and sample.crowd.tolist() == [True, False]
    # A crowd has no instance.
    assert set(np.unique(maps(sample)[0])) == {0, 2}


def test_a_box_outside_its_image(root: Path) -> None:
    (root / "boxes.csv").write_text(HEADER + f"a,0,0,3,3,cat\na,{WIDTH},0,{WIDTH + 4},3,cat\n")
    with pytest.raises(DataError, match=r"boxes\.csv: line 3: it is outside the image .*a\.jpg of 16 x 12"):
        joint(root, unlisted_are_empty=True)[0]


def test_files_without_a_partner(root: Path) -> None:
    save(root / "masks/z.png", np.zeros((HEIGHT, WIDTH), dtype=np.uint8))
    with pytest.raises(DataError, match=r"masks/z\.png: there is no image 'z'"):
        joint(root)
    (root / "masks/z.png").rename(root / "instances/z.png")
    with pytest.raises(DataError, match=r"instances/z\.png: there is no image 'z'"):
        joint(root)
    (root / "instances/z.png").rename(root / "images/z.png")
    with pytest.raises(DataError, match=r"images/d\.webp: the image has no label \(the first of 2\)"):
        joint(root, boxes=None)
    assert "z" not in {joint(root).identity(index)[0] for index in range(len(joint(root)))}
    (root / "images/z.png").rename(root / "images/a.png")
    with pytest.raises(DataError, match="have the same stem"):
        joint(root)
    (root / "images/a.png").unlink()
    (root / "masks/sub/b.png").unlink()
    with pytest.raises(DataError, match=r"instances/sub/b\.png: the classes of its instances are unknown"):
        joint(root)


@pytest.mark.parametrize(
    "change",
    [replaced_by(b""), replaced_by(b"text"), replaced_by(b"\x89PNG\r\n\x1a\n"), huge_png, lambda path: path.unlink()],
)
@pytest.mark.parametrize("name", ["images/a.jpg", "masks/a.png", "instances/a.png"])
def test_broken_files_are_named_when_read(root: Path, name: str, change: Callable[[Path], None]) -> None:
    source = joint(root)
    change(root / name)
    with pytest.raises(DataError) as error:
        source[0]
    assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["masks/a.png", "instances/a.png"])
def test_maps_of_another_size(root: Path, name: str) -> None:
    source = joint(root)
    save(root / name, np.zeros((HEIGHT, WIDTH + 1), dtype=np.uint8))
    with pytest.raises(DataError, match=r"a\.png: it is 1\d x 12, but .* is 1\d x 12"):
        source[0]
