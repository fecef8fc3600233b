"""Label Studio's JSON against maps and boxes written by hand, and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocrnet_pl.data.readers.label_studio_brush import decode_brush
from ocrnet_pl.data.sources.label_studio import LabelStudio
from ocrnet_pl.errors import DataError
from tests.helpers.drawn_data import HEIGHT, WIDTH, names, picture, window, write_json
from tests.helpers.map_files import maps

BRUSH = np.zeros((HEIGHT, WIDTH), dtype=bool)
BRUSH[6:9, 2:5], BRUSH[7, 8] = True, True


def bits(number: int, length: int) -> str:
    return format(number, f"0{length}b")


def brush(mask: np.ndarray, literal: bool = False) -> list[int]:
    """Encode as the tool does: the mask is the opacity of an image of four channels."""
    values = np.repeat(mask.ravel(), 4).astype(int) * 255
    lengths = (3, 4, 8, 16)
    text = bits(len(values), 32) + bits(7, 5) + "".join(bits(length - 1, 4) for length in lengths)
    start = 0
    while start < len(values):
        stop = start
        while stop < len(values) and values[stop] == values[start]:
            stop += 1
        count = min(stop - start, 8 if literal else 1 << 16)
        size = 0 if literal else next(i for i, length in enumerate(lengths) if count <= 1 << length)
        text += ("0" if literal else "1") + bits(size, 2) + bits(count - 1, lengths[size])
        text += "".join(bits(value, 8) for value in values[start : start + (count if literal else 1)])
        start += count
    text += "0" * (-len(text) % 8)
    return [int(text[place : place + 8], 2) for place in range(0, len(text), 8)]


def result(kind: str, label: str, **value: Any) -> dict[str, Any]:
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    return {"id": "x", "type": kind, "from_name": "tag", "to_name": "image", "value": value | {kind: [label]}} | size


def task(number: int, image: str, *results: dict[str, Any], **more: Any) -> dict[str, Any]:
    annotation = {"id": number, "was_cancelled": False, "ground_truth": False, "result": list(results)} | more
    return {"id": number, "data": {"image": image, "note": "a text"}, "annotations": [annotation], "predictions": []}


def percent(x: float, y: float, width: float, height: float, **more: Any) -> dict[str, Any]:
    across, down = 100 / WIDTH, 100 / HEIGHT
    return {"x": x * across, "y": y * down, "width": width * across, "height": height * down} | more


RESULTS = [
    result("rectanglelabels", "cat", **percent(15, 8, 4, 3, rotation=0)),
    result("polygonlabels", "dog", points=[[50, 25], [70, 25], [70, 75], [50, 75]], closed=True),
    result("brushlabels", "cat", format="rle", rle=brush(BRUSH)),
    result("ellipselabels", "dog", x=50, y=10, radiusX=10, radiusY=5, rotation=0),
    # Turned around its upper left corner, to the left of it.
    result("rectanglelabels", "dog", **percent(6, 0, 4, 3, rotation=90)),
    result("keypointlabels", "dog", x=1, y=1, width=0.2),
    {"type": "choices", "from_name": "quality", "value": {"choices": ["good"]}},
]
RESULTS[5]["value"].pop("width")


def save(root: Path, content: Any) -> None:
    for name in ("a.png", "0123abcd-b.png", "c d.png"):
        picture(root / "images" / name)
    write_json(root / "tasks.json", content)


def check(source: LabelStudio) -> None:
    sample = source[0]
    expected = [[15, 8, 19, 11], [10, 3, 14, 9], [2, 6, 9, 9], [8, 0.6, 12, 1.8], [3, 0, 6, 4]]
    assert np.allclose(sample.boxes, expected, atol=1e-3) and sample.labels.tolist() == [0, 1, 0, 1, 1]
    instances, semantic = maps(sample)
    known = window({2: np.s_[3:9, 10:14], 5: np.s_[0:4, 3:6]})
    known[BRUSH] = 3
    assert np.array_equal(np.where(instances == 4, 0, instances), known) and (instances == 4).sum() in range(2, 8)
    classes = np.array([0, 1, 2, 1, 2, 2])[instances]
    classes[8:11, 15:19] = 255
    assert np.array_equal(semantic, classes)


def test_all_regions_of_a_json(tmp_path: Path) -> None:
    tasks = [
        task(1, "/data/upload/3/9f8e7d6c-a.png", *RESULTS),
        task(2, "/data/local-files/?d=images/0123abcd-b.png"),
        task(3, "s3://bucket/c%20d.png", *RESULTS, was_cancelled=True),
    ]
    save(tmp_path, tasks)
    source = LabelStudio("images", "tasks.json", root=tmp_path)
    assert names(source.taxonomy.detection_categories) == ["cat", "dog"]
    assert [source.identity(index)[0] for index in range(len(source))] == ["a", "0123abcd-b"]
    check(source)
    assert len(source[1].boxes) == 0
    raw = source.raw_boxes(0)
    assert raw.field.format(raw.numbers[1]) == "tasks[0]: region 1"
    # Of several annotations, the one that was checked counts.
    tasks[0]["annotations"].append({"ground_truth": True, "result": RESULTS[:1]})
    save(tmp_path, tasks)
    assert len(LabelStudio("images", "tasks.json", semantic=False, root=tmp_path)[0].boxes) == 1


def test_json_min(tmp_path: Path) -> None:
    regions = [{key: entry[key] for key in entry if key != "value"} | entry["value"] for entry in RESULTS[:5]]
    save(tmp_path, [{"id": 1, "image": "/data/upload/a.png", "tag": regions, "annotator": 1}])
    check(LabelStudio("images", "tasks.json", root=tmp_path))


@pytest.mark.parametrize("literal", [False, True])
def test_brushes_are_decoded(literal: bool) -> None:
    mask = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.3
    assert np.array_equal(decode_brush(brush(mask, literal), (HEIGHT, WIDTH)), mask)
    with pytest.raises(ValueError, match="it is not of 12 x 20 pixels"):
        decode_brush(brush(mask)[:4], (WIDTH, HEIGHT))
    with pytest.raises(ValueError, match=r"ends too early|longer than what is left"):
        decode_brush(brush(mask, literal)[:-4], (HEIGHT, WIDTH))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "expected a list of tasks"),
        ([{"id": 1, "data": {"image": "a.png"}, "annotations": []}], "no task has a submitted annotation"),
        ([task(1, "x.png")], "tasks[0].data.image: there is no file 'x.png'"),
        ([task(1, "a.png"), task(2, "a.png")], "tasks[1]: 'a.png' is in another task as well"),
        ([task(1, "../a.txt")], "0 fields name an image"),
        ([task(1, "a.png", result("rectanglelabels", "", **percent(1, 1, 2, 2)))], "region 0: rectanglelabels"),
        ([task(1, "a.png", result("rectanglelabels", "cat", x=1, y=None, width=2, height=3))], "expected numbers in"),
        ([task(1, "a.png", result("brushlabels", "cat", rle=[1, 2, 3]))], "the brush is broken (it is not of"),
        ([task(1, "a.png", RESULTS[1] | {"image_rotation": 90})], "the image was turned"),
        ([task(1, "a.png", RESULTS[1] | {"original_width": 0})], "no original_width"),
        ([task(1, "a.png", RESULTS[0])], "all shapes are boxes"),
    ],
)
def test_bad_files(tmp_path: Path, content: Any, words: str) -> None:
    save(tmp_path, content)
    with pytest.raises(DataError) as caught:
        LabelStudio("images", "tasks.json", root=tmp_path)
    assert words in str(caught.value) and "tasks.json" in str(caught.value)
