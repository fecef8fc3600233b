"""CVAT's XML for images against maps and boxes written by hand, and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocrnet_pl.data.sources.cvat import CvatImages
from ocrnet_pl.errors import DataError
from tests.helpers.drawn_data import HEIGHT, WIDTH, names, picture, window
from tests.helpers.map_files import maps

META = (
    "<meta><job><labels><label><name>dog</name><color>#1</color></label><label><name>cat</name></label>"
    "<label><name>road</name></label></labels></job></meta>"
)
BOX = '<box label="{}" occluded="0" xtl="{}" ytl="{}" xbr="{}" ybr="{}" z_order="0">{}</box>'


def write(root: Path, *images: str, meta: str = META) -> None:
    (root / "annotations.xml").write_text(f"<annotations><version>1.1</version>{meta}{''.join(images)}</annotations>")
    for name in ("a.png", "sub/b.png", "c d.png"):
        picture(root / "images" / name)


def image(name: str, *shapes: str, number: int = 0, subset: str = "Train") -> str:
    start = f'<image id="{number}" name="{name}" subset="{subset}" width="{WIDTH}" height="{HEIGHT}">'
    return f"{start}{''.join(shapes)}</image>"


def test_all_shapes(tmp_path: Path) -> None:
    crowd = '<attribute name="iscrowd">True</attribute>'
    write(
        tmp_path,
        image(
            "a.png",
            '<tag label="cat"/><points label="cat" points="1,1;2,2"/>',
            BOX.format("cat", 1, 2, 5.5, 6, ""),
            '<polygon label="dog" points="10.00,3.00;14.00,3.00;14.00,9.00;10.00,9.00" group_id="2"/>',
            '<polygon label="dog" points="16,3;18,3;18,9;16,9" group_id="2"/>',
            # A row of three, of which the last two count, and one of three that counts.
            '<mask label="cat" left="0" top="10" width="3" height="2" rle="1, 5"/>',
            '<box label="dog" xtl="6" ytl="6" xbr="8" ybr="10" rotation="90"/>',
            '<ellipse label="cat" cx="10" cy="1" rx="3" ry="1" rotation="0"/>',
            BOX.format("dog", 0, 0, 20, 3, crowd),
            '<polygon label="road" points="0,11;20,11;20,12;0,12"/>',
        ),
        image("sub/b.png", number=1),
        image("c d.png", BOX.format("cat", 1, 1, 2, 2, ""), subset="Test"),
    )
    source = CvatImages("images", subset="Train", stuff=["road"], root=tmp_path)
    assert names(source.taxonomy.detection_categories) == ["dog", "cat"]
    assert names(source.taxonomy.semantic_categories) == ["background", "road", "dog", "cat"]
    assert [source.identity(index)[0] for index in range(len(source))] == ["a", "sub/b"]
    sample = source[0]
    expected = [[1, 2, 5.5, 6], [10, 3, 18, 9], [0, 10, 3, 12], [5, 7, 9, 9], [7, 0, 13, 2], [0, 0, 20, 3]]
    assert np.allclose(sample.boxes, expected, atol=1e-4) and sample.labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert sample.crowd.tolist() == [False] * 5 + [True]
    instances, semantic = maps(sample)
    mask = window({2: np.s_[3:9, 10:14], 4: np.s_[7:9, 5:9]})
    mask[3:9, 16:18], mask[10, 1:3], mask[11, 0:3] = 2, 3, 3
    oval = instances == 5
    assert np.array_equal(np.where(oval, 0, instances), mask) and 7 <= oval.sum() <= 12 and not oval[2:].any()
    classes = np.array([0, 0, 2, 3, 2, 3, 0])[instances]
    classes[11][instances[11] == 0] = 1
    unknown = np.zeros((HEIGHT, WIDTH), dtype=bool)
    unknown[2:6, 1:6], unknown[0:3] = True, True  # boxes without a mask
    assert np.array_equal(semantic, np.where(unknown & (instances == 0), 255, classes))
    assert len(source[1].boxes) == 0 and source[1].supervision.detection.all()
    raw = source.raw_boxes(0)
    assert raw.field.format(raw.numbers[0]) == "image 0: shape 2"
    assert len(CvatImages("images", stuff=["road"], root=tmp_path)) == 3


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ('<box label="cat" xtl="1" ytl="x" xbr="2" ybr="2"/>', "image 0: shape 0: ytl: expected a number, found 'x'"),
        ('<polygon label="cat" points="1,1;2"/>', "points: expected `x,y;x,y;...`, found '2'"),
        ('<polygon points="1,1;2,2"/>', "shape 0: it has no label"),
        ('<mask label="cat" left="0" top="0" width="3" height="2" rle="1, 4"/>', "runs do not add up to 3 x 2"),
        ('<mask label="cat" left="19" top="0" width="3" height="2" rle="6"/>', "its window is outside"),
        ('<spiral label="cat"/>', "no shape 'spiral' is read"),
        (BOX.format("cow", 1, 1, 2, 2, ""), "there is no class 'cow'"),
        (BOX.format("cat", 1, 1, 2, 2, ""), "all shapes are boxes, so no semantic map"),
    ],
)
def test_bad_shapes(tmp_path: Path, shape: str, words: str) -> None:
    write(tmp_path, image("a.png", shape))
    with pytest.raises(DataError) as caught:
        CvatImages("images", root=tmp_path)
    assert words in str(caught.value) and "annotations.xml" in str(caught.value)


@pytest.mark.parametrize(
    ("images", "options", "words"),
    [
        ([image("x.png")], {}, "image 0: there is no file 'x.png'"),
        ([image("a.png"), image("a.png")], {}, "image 1: 'a.png' occurs more than once"),
        ([image("a.png")], {"subset": "Val"}, "subset: no image is of 'Val'; the file has Train"),
        ([], {}, "no image is labelled"),
        (['<image name="a.png" width="20"/>'], {}, "image 0: height: expected a whole number"),
        ([], {"stuff": ["cat"], "classes": ["cat"]}, "'cat' is given twice"),
    ],
)
def test_bad_lists(tmp_path: Path, images: list[str], options: dict[str, Any], words: str) -> None:
    write(tmp_path, *images)
    with pytest.raises(DataError) as caught:
        CvatImages("images", **options, root=tmp_path)
    assert words in str(caught.value)
