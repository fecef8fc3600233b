"""BDD100K files against hand-made cases and brute force over the toolkit's own label samples."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from ocrnet_pl.data.sources.bdd100k import Bdd100k
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import Sample
from tests.helpers.bad_files import huge_png

HEIGHT, WIDTH = 12, 20
DETECTED = ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle", "traffic light", "traffic sign"]
# From the toolkit's label table, typed here once more: id in the panoptic bitmasks -> name; all others are void.
PANOPTIC = {
    **{7: "road", 8: "sidewalk", 10: "building", 11: "fence", 15: "wall", 20: "pole", 25: "traffic light"},
    **{26: "traffic sign", 28: "terrain", 29: "vegetation", 30: "sky", 31: "person", 32: "rider", 33: "bicycle"},
    **{34: "bus", 35: "car", 37: "motorcycle", 39: "train", 40: "truck"},
}
TRAIN_IDS = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)


def _frames() -> list[dict[str, Any]]:
    def label(category: str, *box: float, **attributes: Any) -> dict[str, Any]:
        return {
            "id": "1",
            "category": category,
            "attributes": {"occluded": True, **attributes},
            "box2d": dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
        }

    return [
        {
            "name": "b.jpg",
            "attributes": {"weather": "clear"},
            "labels": [
                label("pedestrian", 1, 2, 4, 5),
                label("car", 3.5, 0, 6.25, 7.5, crowd=True),
                label("other vehicle", 8, 8, 9, 9),
                label("traffic sign", 10, 1, 19, 11),
                {"id": "2", "category": "lane", "poly2d": [{"vertices": [[0, 0], [5, 5]]}]},
                {"id": "3", "category": "drivable area", "box2d": None, "poly2d": []},
                label("motor", 0, 0, 2, 2, ignored=True) | {"attributes": None},
            ],
        },
        {"name": "a.jpg", "labels": [label("rider", 2, 2, 5, 5), label("traffic light", 1, 1, 2, 2)]},
        {"name": "c.jpg", "labels": None},
    ]


def _panoptic() -> np.ndarray:
    """Sky, road, an unknown thing, two cars (one ignored), a crowd of persons, a caravan; ids over one byte."""
    rgba = np.zeros((HEIGHT, WIDTH, 4), dtype=np.uint8)

    def fill(window: Any, category: int, number: int, flags: int = 0) -> None:
        rgba[window] = (category, flags, number >> 8, number & 255)

    fill(np.s_[:6], 30, 30)
    fill(np.s_[6:], 7, 7)
    fill(np.s_[0, :4], 4, 4)
    fill(np.s_[4:9, 2:7], 35, 31, 0b1100)
    fill(np.s_[5:8, 10:14], 35, 300, 0b0001)
    fill(np.s_[7:10, 15:20], 31, 301, 0b0010)
    fill(np.s_[10:12, 1:4], 36, 302)
    rgba[11, 19] = 0
    return rgba


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for stem in "abcd":
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / f"{stem}.jpg")
    for name in ("sem_seg", "drivable", "pan_seg", "ins_seg"):
        (tmp_path / name).mkdir()
    (tmp_path / "det.json").write_text(json.dumps(_frames()))
    Image.fromarray(_panoptic()).save(tmp_path / "pan_seg/a.png")
    semantic = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 20
    Image.fromarray(np.where(semantic == 19, 255, semantic).astype(np.uint8)).save(tmp_path / "sem_seg/b.png")
    Image.fromarray((semantic % 3).astype(np.uint8)).save(tmp_path / "drivable/b.png")
    instances = np.zeros((HEIGHT, WIDTH, 4), dtype=np.uint8)
    instances[2:5, 3:9] = (3, 4, 1, 2)
    instances[6:8, 3:9] = (1, 0, 0, 1)
    Image.fromarray(instances).save(tmp_path / "ins_seg/a.png")
    return tmp_path


def _open(root: Path, **options: Any) -> Bdd100k:
    return Bdd100k("images", root=root, **options)


def _map(values: Any) -> np.ndarray:
    assert values is not None
    array: np.ndarray = values.as_subclass(Tensor).numpy()
    return array


def _names(source: Bdd100k, values: np.ndarray) -> list[str]:
    """Name the classes of a semantic map, row by row."""
    names = {index: c.name for index, c in enumerate(source.taxonomy.semantic_categories)} | {255: "void"}
    return [names[value] for value in values.ravel().tolist()]


def test_boxes_alone(root: Path) -> None:
    source = _open(root, detection="det.json")
    assert [c.name for c in source.taxonomy.detection_categories] == DETECTED
    assert source.taxonomy.num_semantic == 0
    # d has no frame; c has one without objects.
    assert [source[i].image_id for i in range(len(source))] == ["a", "b", "c"]
    sample = source[1]
    # Both corners of Scalabel's boxes are pixels of the object; the last stands over the image.
    assert sample.boxes.tolist() == [[1, 2, 5, 6], [3.5, 0, 7.25, 8.5], [8, 8, 10, 10], [10, 1, 20, 12], [0, 0, 3, 3]]
    assert [DETECTED[label] for label in sample.labels] == ["person", "car", "car", "traffic sign", "motorcycle"]
    assert sample.crowd.tolist() == [False, True, True, False, False]
    assert sample.supervision.detection.all() and sample.semantic is None and sample.instances is None
    assert len(source[2].boxes) == 0 and source[2].supervision.detection.all()


def test_frames_under_a_key(root: Path) -> None:
    (root / "det.json").write_text(json.dumps({"frames": _frames(), "config": {}}))
    assert len(_open(root, detection="det.json")) == 3


def test_semantic_masks(root: Path) -> None:
    source = _open(root, semantic="sem_seg")
    assert source.taxonomy.num_semantic == 19 and len(source) == 1
    sample = source[0]
    stored = np.array(Image.open(root / "sem_seg/b.png")).ravel().tolist()
    expected = ["void" if value == 255 else TRAIN_IDS[value] for value in stored]
    assert _names(source, _map(sample.semantic)) == expected
    assert sample.supervision.semantic.all() and not sample.supervision.detection.any()


def test_drivable_masks(root: Path) -> None:
    source = _open(root, drivable="drivable", detection="det.json")
    assert [c.name for c in source.taxonomy.semantic_categories] == ["direct", "alternative", "background"]
    sample = source[1]
    assert np.array_equal(_map(sample.semantic), np.array(Image.open(root / "drivable/b.png")))
    assert len(sample.boxes) == 5 and sample.supervision.semantic.all() and sample.supervision.detection.all()
    assert source[0].semantic is None and not source[0].supervision.semantic.any()
    with pytest.raises(ValueError, match="a pixel has one class"):
        _open(root, drivable="drivable", panoptic="pan_seg")


def test_panoptic_bitmasks(root: Path) -> None:
    source = _open(root, panoptic="pan_seg")
    assert len(source) == 1
    sample = source[0]
    rgba = _panoptic()
    expected = [
        "void" if category not in PANOPTIC or flags & 1 else PANOPTIC[category]
        for category, flags in zip(rgba[..., 0].ravel().tolist(), rgba[..., 1].ravel().tolist(), strict=True)
    ]
    assert _names(source, _map(sample.semantic)) == expected
    # Truncated and occluded are targets; ignored, crowds and caravans are crowd rows.
    assert sample.boxes.tolist() == [[2, 4, 7, 9], [10, 5, 14, 8], [15, 7, 20, 10], [1, 10, 4, 12]]
    assert [DETECTED[label] for label in sample.labels] == ["car", "car", "person", "car"]
    assert sample.crowd.tolist() == [False, True, True, True]
    assert np.array_equal(_map(sample.instances), (rgba[..., 3] == 31) & (rgba[..., 0] == 35))
    # Bitmasks have no instances of traffic lights and signs.
    assert sample.supervision.detection.tolist() == [True] * 8 + [False] * 2
    assert sample.supervision.semantic.all()


def test_everything_together(root: Path) -> None:
    Image.fromarray(np.zeros((HEIGHT, WIDTH), dtype=np.uint8)).save(root / "sem_seg/a.png")
    source = _open(root, detection="det.json", semantic="sem_seg", panoptic="pan_seg", instances="ins_seg")
    both, boxes_and_pixels, boxes = (source[i] for i in range(3))
    # The objects of the bitmask, and the traffic light of the JSON, which has no pixels of its own.
    assert [DETECTED[label] for label in both.labels] == ["car", "car", "person", "car", "traffic light"]
    assert both.boxes[4].tolist() == [1, 1, 3, 3] and _map(both.instances).max() == 1
    assert both.supervision.detection.all() and len(set(_names(source, _map(both.semantic)))) > 2
    assert len(boxes_and_pixels.boxes) == 5 and boxes_and_pixels.supervision.semantic.all()
    assert boxes.semantic is None and boxes.supervision.detection.all() and not boxes.supervision.semantic.any()


def test_instance_bitmasks(root: Path) -> None:
    source = _open(root, instances="ins_seg")
    sample = source[0]
    assert sample.boxes.tolist() == [[3, 6, 9, 8], [3, 2, 9, 5]] and sample.labels.tolist() == [0, 2]
    assert not sample.crowd.any() and source.taxonomy.num_semantic == 0
    assert np.unique(_map(sample.instances)).tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"a.png: this looks like an instance bitmask"):
        _open(root, panoptic="ins_seg")[0]
    with pytest.raises(DataError, match=r"a.png: category 36 is not from 1 to 8"):
        _open(root, instances="pan_seg")[0]


def _real(shared_data: Path, root: Path, name: str, folder: str) -> np.ndarray:
    """Put a label of the toolkit beside an empty image of its size."""
    (root / folder).mkdir()
    (root / "photos").mkdir(exist_ok=True)
    shutil.copyfile(shared_data / "formats/bdd100k" / name, root / folder / "frame.png")
    values = np.array(Image.open(root / folder / "frame.png"))
    Image.new("RGB", (values.shape[1], values.shape[0])).save(root / "photos/frame.jpg")
    return values


def _check_objects(sample: Sample, rgba: np.ndarray, name_of: dict[int, str]) -> None:
    ids = rgba[..., 2].astype(int) * 256 + rgba[..., 3]
    row = 0
    for number in sorted(np.unique(ids).tolist()):
        category, flags = rgba[ids == number][0, :2].tolist()
        if category not in name_of:
            continue
        ys, xs = np.nonzero(ids == number)
        assert sample.boxes[row].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert DETECTED[int(sample.labels[row])] == name_of[category]
        crowd = bool(flags & 0b11)
        assert bool(sample.crowd[row]) == crowd
        assert np.unique(_map(sample.instances)[ids == number]).tolist() == [0 if crowd else row + 1]
        row += 1
    assert row == len(sample.boxes) > 0


def test_real_panoptic_bitmask(shared_data: Path, tmp_path: Path) -> None:
    rgba = _real(shared_data, tmp_path, "panseg_bdd100k/panseg_mask.png", "labels")
    source = Bdd100k("photos", panoptic="labels", root=tmp_path)
    sample = source[0]
    assert _names(source, _map(sample.semantic)) == [PANOPTIC.get(v, "void") for v in rgba[..., 0].ravel().tolist()]
    _check_objects(sample, rgba, {key: name for key, name in PANOPTIC.items() if key > 30})
    assert len(sample.boxes) == 2


def test_real_instance_bitmask_and_semantic_mask(shared_data: Path, tmp_path: Path) -> None:
    rgba = _real(shared_data, tmp_path, "bitmasks/quasi-video/insseg_bitmask.png", "objects")
    mask = _real(shared_data, tmp_path, "semseg_mask.png", "masks")
    source = Bdd100k("photos", instances="objects", semantic="masks", root=tmp_path)
    sample = source[0]
    _check_objects(sample, rgba, {3: "car"})
    stored = mask.ravel().tolist()
    assert _names(source, _map(sample.semantic)) == ["void" if v == 255 else TRAIN_IDS[v] for v in stored]


def test_real_frames_without_boxes(shared_data: Path, tmp_path: Path) -> None:
    """Their labels are outlines, for which there are bitmasks."""
    path = shared_data / "formats/bdd100k/example_annotation.json"
    (tmp_path / "photos").mkdir()
    frames = json.loads(path.read_text())
    for frame in frames:
        Image.new("RGB", (1280, 720)).save(tmp_path / "photos" / frame["name"])
    source = Bdd100k("photos", detection=path, root=tmp_path)
    assert len(source) == len(frames) and all(len(source[i].boxes) == 0 for i in range(len(frames)))


def _changed(keys: tuple[Any, ...], value: Any) -> Any:
    content = copy.deepcopy(_frames())
    target: Any = content
    for key in keys[:-1]:
        target = target[key]
    target[keys[-1]] = value
    return content


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        ((0, "name"), "gone.jpg", "frames[0].name: there is no image 'gone.jpg'"),
        ((0, "name"), "../a.jpg", "frames[0].name: '../a.jpg' leads out"),
        ((0, "name"), "/etc/passwd", "leads out"),
        ((0, "name"), "a.jpg", "frames[1].name: 'a.jpg' occurs more than once"),
        ((0, "name"), 5, "frames[0].name: expected text"),
        ((0,), 5, "frames[0]: expected an object"),
        ((0, "labels", 1), 5, "frames[0].labels[1]: expected an object"),
        ((0, "labels", 1, "category"), "unicorn", "frames[0].labels[1].category: there is no category 'unicorn'"),
        ((0, "labels", 1, "category"), None, "frames[0].labels[1].category"),
        ((0, "labels", 1, "box2d"), [1, 2, 3, 4], "frames[0].labels[1].box2d: expected an object"),
        ((0, "labels", 1, "box2d", "x1"), float("nan"), "frames[0].labels[1].box2d: expected 4 finite numbers"),
        ((0, "labels", 1, "box2d", "x1"), "three", "frames[0].labels[1].box2d: expected 4 finite numbers"),
        ((0, "labels", 1, "box2d", "y1"), -3, "frames[0].labels[1].box2d: (3.5, -3)"),
        ((0, "labels", 1, "box2d", "x2"), 1, "is not a box"),
    ],
)
def test_wrong_frames_name_the_field(root: Path, keys: tuple[Any, ...], value: Any, words: str) -> None:
    (root / "det.json").write_text(json.dumps(_changed(keys, value)))
    with pytest.raises(DataError) as error:
        _open(root, detection="det.json")
    assert words in str(error.value) and "det.json" in str(error.value) and "\n" not in str(error.value)


def test_a_box_outside_its_image(root: Path) -> None:
    content = _changed((0, "labels", 1, "box2d"), {"x1": 30, "y1": 1, "x2": 40, "y2": 5})
    (root / "det.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"det.json: frames\[0\].labels\[1\].box2d: it is outside the image of 20 x 12"):
        _open(root, detection="det.json")[1]


@pytest.mark.parametrize("content", ["", "[{", "{}", "[]", '{"frames": 3}', "5", "\x80"])
def test_files_that_are_no_frames(root: Path, content: str) -> None:
    (root / "det.json").write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=r"det.json"):
        _open(root, detection="det.json")


def test_what_is_missing_is_named(root: Path) -> None:
    with pytest.raises(ValueError, match="at least one of"):
        _open(root)
    with pytest.raises(DataError, match=r"gone.json: there is no such file"):
        _open(root, detection="gone.json")
    with pytest.raises(DataError, match="masks"):
        _open(root, semantic="gone")
    with pytest.raises(DataError, match="images"):
        Bdd100k("photos", detection="det.json", root=root)
    with pytest.raises(DataError, match="none of its images has a label"):
        (root / "empty").mkdir()
        _open(root, semantic="empty")


def test_labels_of_other_images_are_refused_or_left_out(root: Path) -> None:
    (root / "images/b.jpg").unlink()
    for options in ({"semantic": "sem_seg"}, {"detection": "det.json"}):
        with pytest.raises(DataError, match="allow_extra: true"):
            _open(root, **options)
    source = _open(root, semantic="sem_seg", detection="det.json", allow_extra=True)
    assert [source[i].image_id for i in range(len(source))] == ["a", "c"]


def test_broken_bitmasks(root: Path) -> None:
    path = root / "pan_seg/a.png"
    whole = path.read_bytes()
    source = _open(root, panoptic="pan_seg")
    rgba = _panoptic()
    rgba[4, 2, 0] = 40
    Image.fromarray(rgba).save(path)
    with pytest.raises(DataError, match=r"a.png: object 31 has pixels of several categories"):
        source[0]
    rgba[4, 2] = (41, 0, 0, 41)
    Image.fromarray(rgba).save(path)
    with pytest.raises(DataError, match="no class of id 41"):
        source[0]
    Image.fromarray(_panoptic()[:, :-1]).save(path)
    with pytest.raises(DataError, match="19 x 12"):
        source[0]
    Image.fromarray(_panoptic()[..., :3]).save(path)
    with pytest.raises(DataError, match="found mode RGB"):
        source[0]
    huge_png(path, color=6)
    with pytest.raises(DataError, match=r"a.png"):
        source[0]
    for content in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a.png"):
            source[0]
    path.unlink()
    with pytest.raises(DataError, match="there is no such mask"):
        source[0]


def test_broken_masks_and_images(root: Path) -> None:
    source = _open(root, semantic="sem_seg")
    path = root / "sem_seg/b.png"
    Image.fromarray(np.full((HEIGHT, WIDTH), 19, dtype=np.uint8)).save(path)
    with pytest.raises(DataError, match=r"b.png: there is no class of id 19"):
        source[0]
    Image.new("RGB", (WIDTH, HEIGHT)).save(path)
    with pytest.raises(DataError, match="found mode RGB"):
        source[0]
    boxes = _open(root, detection="det.json")
    huge_png(root / "images/b.jpg", color=2)
    with pytest.raises(DataError, match=r"b.jpg"):
        boxes[1]
    (root / "images/b.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"b.jpg"):
        boxes[1]
    (root / "images/b.jpg").unlink()
    with pytest.raises(DataError, match=r"b.jpg"):
        boxes[1]
