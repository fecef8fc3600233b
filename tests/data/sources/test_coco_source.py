"""COCO instance files against pycocotools, brute force, and hand-made cases."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as reference
from pycocotools.coco import COCO

from ocrnet_pl.data.sources.coco import CocoInstances
from ocrnet_pl.errors import DataError
from tests.helpers.map_files import maps

HEIGHT, WIDTH = 20, 30


def _rle(mask: np.ndarray, *, compressed: bool) -> dict[str, Any]:
    if compressed:
        encoded = reference.encode(np.asfortranarray(mask))
        return {"size": list(mask.shape), "counts": encoded["counts"].decode()}
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, len(flat)]).tolist()
    return {"size": list(mask.shape), "counts": ([0] if flat[0] else []) + runs}


def _box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


def _content() -> dict[str, Any]:
    """Ids with gaps, lists in no order, every kind of segmentation, a crowd, a box without area."""
    return {
        "images": [
            {"id": 70, "file_name": "b.png", "height": HEIGHT, "width": WIDTH},
            {"id": 3, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},
            {"id": 12, "file_name": "empty.png", "height": HEIGHT, "width": WIDTH},
        ],
        "categories": [{"id": 90, "name": "zebra"}, {"id": 4, "name": "ant"}],
        "annotations": [
            {
                "image_id": 3,
                "category_id": 4,
                "bbox": [2, 3, 10.5, 6],
                "iscrowd": 0,
                "segmentation": [[2, 3, 12.5, 3, 12.5, 9, 2, 9]],
            },
            {
                "image_id": 70,
                "category_id": 90,
                "bbox": [0, 0, 30, 20],
                "iscrowd": 1,
                "segmentation": _rle(_box(0, 0, 20, 30), compressed=False),
            },
            {
                "image_id": 70,
                "category_id": 4,
                "bbox": [5, 5, 4, 4],
                "iscrowd": 0,
                "segmentation": _rle(_box(5, 5, 4, 4), compressed=True),
            },
            {
                "image_id": 70,
                "category_id": 90,
                "bbox": [3, 3, 12, 10],
                "iscrowd": 0,
                "segmentation": _rle(_box(3, 3, 10, 12), compressed=False),
            },
            {
                "image_id": 3,
                "category_id": 90,
                "bbox": [4, 4, 0, 5],
                "iscrowd": 0,
                "segmentation": [[4, 4, 4, 9, 4, 4]],
            },
        ],
    }


Writer = Callable[[dict[str, Any]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    def write(content: dict[str, Any]) -> Path:
        (tmp_path / "images").mkdir(exist_ok=True)
        for name in ("a.png", "b.png", "empty.png"):
            Image.new("RGB", (WIDTH, HEIGHT), (9, 8, 7)).save(tmp_path / "images" / name)
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(content))
        return path

    return write


def _open(path: Path, **options: Any) -> CocoInstances:
    return CocoInstances(path.parent / "images", path, **options)


def test_ids_order_boxes_and_crowds(write: Writer) -> None:
    source = _open(write(_content()))
    assert [c.name for c in source.taxonomy.detection_categories] == ["zebra", "ant"]
    assert [c.name for c in source.taxonomy.semantic_categories] == ["background", "zebra", "ant"]
    assert [source[i].image_id for i in range(3)] == [70, 3, 12]
    crowded, single, empty = source[0], source[1], source[2]
    assert crowded.labels.tolist() == [0, 1, 0] and crowded.crowd.tolist() == [True, False, False]
    assert crowded.boxes.tolist() == [[0, 0, 30, 20], [5, 5, 9, 9], [3, 3, 15, 13]]
    assert single.labels.tolist() == [1] and single.boxes.tolist() == [[2, 3, 12.5, 9]]  # the one without area is gone
    assert empty.boxes.shape == (0, 4) and maps(empty)[1].max() == 0 and maps(empty)[0].max() == 0


def test_small_masks_lie_over_large_ones_and_crowds_below_all(write: Writer) -> None:
    instances, semantic = maps(_open(write(_content()))[0])
    expected = np.zeros((HEIGHT, WIDTH), dtype=int)
    expected[3:13, 3:15] = 3
    expected[5:9, 5:9] = 2
    assert np.array_equal(instances, expected)
    # The crowd's pixels have its class (zebra, 1) but no instance.
    assert np.array_equal(semantic, np.where(expected == 2, 2, 1))


def test_polygons_are_drawn_as_pycocotools_draws_them(write: Writer) -> None:
    rng = np.random.default_rng(0)
    content = _content()
    content["annotations"] = []
    parts = [[(rng.random((5, 2)) * [WIDTH, HEIGHT]).ravel().tolist() for _ in range(2)] for _ in range(3)]
    for image_id, polygons in zip((70, 3, 12), parts, strict=True):
        content["annotations"].append(
            {"image_id": image_id, "category_id": 4, "bbox": [1, 1, 5, 5], "segmentation": polygons}
        )
    source = _open(write(content))
    for i, polygons in enumerate(parts):
        encoded = reference.merge(reference.frPyObjects(polygons, HEIGHT, WIDTH))
        assert np.array_equal(maps(source[i])[0], reference.decode(encoded))


def test_background_is_optional(write: Writer) -> None:
    path = write(_content())
    source = _open(path, background=None)
    assert [c.name for c in source.taxonomy.semantic_categories] == ["zebra", "ant"]
    instances, semantic = maps(source[1])
    assert np.array_equal(semantic, np.where(instances == 1, 1, 255))
    with pytest.raises(DataError, match="background"):
        _open(path, background="ant")


def test_boxes_alone(write: Writer) -> None:
    content = _content()
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    path = write(content)
    with pytest.raises(DataError, match="semantic: false"):
        _open(path)
    sample = _open(path, semantic=False)[0]
    assert sample.semantic is None and sample.instances is None and len(sample.boxes) == 3
    assert sample.supervision.detection.all() and sample.supervision.semantic.numel() == 0


def test_a_box_without_a_mask_leaves_its_pixels_unknown(write: Writer) -> None:
    content = _content()
    content["annotations"].append({"image_id": 3, "category_id": 90, "bbox": [10, 1, 12, 10]})
    content["annotations"].append({"image_id": 12, "category_id": 90, "bbox": [10, 1, 12, 10]})
    source = _open(write(content))
    instances, semantic = maps(source[1])
    unknown = np.zeros((HEIGHT, WIDTH), dtype=bool)
    unknown[1:11, 10:22] = True
    assert np.array_equal(semantic == 255, unknown & (instances != 1))
    assert source[2].semantic is None and not source[2].supervision.semantic.any()


def _set(keys: tuple[Any, ...], value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        target = content
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("keys", "value", "field"),
    [
        (("images", 1, "file_name"), "gone.png", "images[1].file_name"),
        (("images", 1, "file_name"), "../instances.json", "leads out of the folder"),
        (("images", 1, "file_name"), "/etc/passwd", "leads out of the folder"),
        (("images", 1, "id"), 70, "images[1].id"),
        (("images", 1, "height"), 0, "images[1].height"),
        (("images", 1, "width"), None, "images[1].width"),
        (("images",), [], "images"),
        (("images",), {}, "images"),
        (("categories",), [], "categories"),
        (("categories", 0, "id"), 4, "categories[1].id"),
        (("annotations", 2), 5, "annotations[2]"),
        (("annotations", 2, "image_id"), 71, "annotations[2].image_id"),
        (("annotations", 2, "category_id"), 1, "annotations[2].category_id"),
        (("annotations", 2, "bbox"), [1, 2, 3], "annotations[2].bbox"),
        (("annotations", 2, "bbox"), [1, 2, 3, float("nan")], "annotations[2].bbox"),
        (("annotations", 2, "segmentation"), [[1, 2, "x"]], "annotations[2].segmentation"),
        (("annotations", 2, "segmentation"), [[1, 2, 3, 4, 5, 6, 7]], "annotations[2].segmentation"),
        (("annotations", 2, "segmentation"), "abc", "annotations[2].segmentation"),
        (("annotations", 2, "segmentation", "size"), [30, 20], "annotations[2].segmentation.size"),
        (("annotations", 3, "segmentation", "counts"), [5, 9999], "annotations[3].segmentation.counts"),
    ],
)
def test_wrong_files_name_the_field(write: Writer, keys: tuple[Any, ...], value: Any, field: str) -> None:
    content = copy.deepcopy(_content())
    _set(keys, value)(content)
    with pytest.raises(DataError) as error:
        _open(write(content))
    assert field in str(error.value) and "instances.json" in str(error.value)


def test_missing_and_broken_files(write: Writer, tmp_path: Path) -> None:
    path = write(_content())
    with pytest.raises(DataError, match="no such folder"):
        CocoInstances(tmp_path / "gone", path)
    with pytest.raises(DataError, match=r"gone\.json"):
        _open(tmp_path / "gone.json")
    for text in ("{", "[]", ""):
        path.write_text(text)
        with pytest.raises(DataError, match=r"instances\.json"):
            _open(path)


def test_a_broken_compressed_mask_is_an_error_when_read(write: Writer) -> None:
    content = _content()
    content["annotations"][2]["segmentation"]["counts"] = "zzzz"
    source = _open(write(content))
    with pytest.raises(DataError, match="image 70"):
        source[0]


def test_an_image_of_another_size_than_annotated(write: Writer, tmp_path: Path) -> None:
    source = _open(write(_content()))
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(tmp_path / "images" / "b.png")
    with pytest.raises(DataError, match=r"images\[0\]"):
        source[0]


def test_annotations_drawn_before_the_exif_rotation(write: Writer, tmp_path: Path) -> None:
    source = _open(write(_content()))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / "b.png", exif=exif)
    assert source[0].size == (HEIGHT, WIDTH)


def test_nuclei_as_pycocotools_reads_them(shared_data: Path) -> None:
    folder = shared_data / "nuclei"
    source = CocoInstances(folder / "val", folder / "instances_val.json")
    coco = COCO(str(folder / "instances_val.json"))
    assert len(source) == 60 and source.taxonomy.num_detection == 1 and source.taxonomy.num_semantic == 2
    for i in range(0, 60, 6):
        sample = source[i]
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=sample.image_id))
        boxes = np.array([a["bbox"] for a in annotations], dtype=np.float32)
        boxes[:, 2:] += boxes[:, :2]
        assert np.array_equal(sample.boxes.numpy(), boxes)
        instances, semantic = maps(sample)
        union = np.zeros(sample.size, dtype=bool)
        for row, annotation in enumerate(annotations):
            mask = coco.annToMask(annotation).astype(bool)
            union |= mask
            assert (mask | (instances != row + 1)).all()  # never outside its own mask
        assert np.array_equal(semantic == 1, union) and np.array_equal(instances > 0, union)


def test_real_detection_form_of_the_panoptic_sample(shared_data: Path) -> None:
    """The same two images as plain instances: polygons and RLE of 133 categories."""
    folder = shared_data / "formats" / "coco_panoptic"
    path = folder / "panoptic_coco_detection_format.json"
    source = CocoInstances(folder / "input_images", path)
    coco = COCO(str(path))
    for i in range(len(source)):
        sample = source[i]
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=sample.image_id))
        instances = maps(sample)[0]
        for row, annotation in enumerate(annotations):
            mask = coco.annToMask(annotation).astype(bool)
            expected = np.zeros_like(mask) if annotation["iscrowd"] else mask
            assert np.array_equal(instances == row + 1, expected)  # these masks do not overlap
