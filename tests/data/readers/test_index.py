"""The index of a COCO file: the fast reader, the plain one and the kept file all say the same."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ocrnet_pl.data.readers import coco_index, coco_readers
from ocrnet_pl.data.readers.coco_arrays import NO_MASK, POLYGONS, RLE, CocoIndex
from ocrnet_pl.data.readers.folder_index import FolderIndex
from ocrnet_pl.data.readers.json_fields import Fields
from ocrnet_pl.data.sources.coco import CocoInstances
from ocrnet_pl.errors import DataError
from ocrnet_pl.storage.flat_arrays import Numbers, Texts, map_arrays, save_arrays

_FIELDS = ("sizes", "labels", "boxes", "crowd", "ignored", "kinds", "ends", "masks", "order", "starts")


def _content(count: int = 60, text_ids: bool = False) -> dict[str, Any]:
    """A file with every kind of mask, boxes without area, images without annotations and ids in any order."""
    from faster_coco_eval import mask as mask_api

    random = np.random.default_rng(0)
    ids: list[Any] = random.permutation(count * 5)[:count].tolist()
    if text_ids:
        ids = [f"img-{i}é" for i in ids]
    images = [
        {"id": i, "file_name": f"{k % 3}/{k}.png", "height": 20 + k % 5, "width": 30, "license": "a}, {b"}
        for k, i in enumerate(ids)
    ]
    annotations: list[dict[str, Any]] = []
    for number in range(count * 3):
        row = int(random.integers(count // 2))
        height = images[row]["height"]
        x, y = (round(float(v), 2) for v in random.random(2) * 10)
        annotation: dict[str, Any] = {
            "id": number,
            "image_id": ids[row],
            "category_id": [7, 3, 90][number % 3],
            "bbox": [x, y, 0.0 if number % 11 == 0 else 8, 6.5],
            "iscrowd": int(number % 5 == 2),
        }
        if number % 5 == 0:
            square = [x, y, x + 8, y, x + 8, y + 6.5, x, y + 6.5]
            annotation["segmentation"] = [square, [1, 1, 5, 1, 5, 5]] if number % 2 else [square, [1, 2, 3, 4]]
        elif number % 5 == 2:
            mask = np.zeros((height, 30), dtype=np.uint8, order="F")
            mask[2:9, 3:20] = 1
            counts = mask_api.encode(mask)["counts"]
            annotation["segmentation"] = {"size": [height, 30], "counts": counts.decode()}
        elif number % 5 == 3:
            annotation["segmentation"] = []
        annotations.append(annotation)
    categories = [{"id": i, "name": f"c{i}"} for i in (7, 3, 90)]
    return {"info": {"images": []}, "annotations": annotations, "categories": categories, "images": images}


def _write(root: Path, content: dict[str, Any], **style: Any) -> tuple[Path, FolderIndex, Fields]:
    for image in content["images"]:
        path = root / "images" / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    file = root / "a.json"
    file.write_text(json.dumps(content, **style), encoding="utf-8")
    return file, FolderIndex(root / "images", "images"), Fields(file)


def _assert_equal(one: CocoIndex, two: CocoIndex) -> None:
    assert (one.category_ids, one.category_names) == (two.category_ids, two.category_names)
    assert list(one.ids) == list(two.ids) and list(map(type, one.ids)) == list(map(type, two.ids))
    assert list(one.names) == list(two.names)
    for name in _FIELDS:
        first, second = getattr(one, name), getattr(two, name)
        assert first.dtype == second.dtype and np.array_equal(first, second), name


@pytest.mark.parametrize("text_ids", [False, True])
@pytest.mark.parametrize("style", [{}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}])
def test_fast_equals_plain(
    tmp_path: Path, text_ids: bool, style: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coco_readers, "_BLOCK", 700)  # a few objects a block
    content = _content(text_ids=text_ids)
    for image in content["images"]:
        image["license"] = "plain"
    file, folder, fields = _write(tmp_path, content, **style)
    fast = coco_readers.read_fast(file, folder)
    assert fast is not None
    plain = coco_readers.read_plain(file, folder, fields)
    _assert_equal(fast, plain)
    assert set(plain.kinds.tolist()) == {NO_MASK, POLYGONS, RLE} and len(plain.order) < len(content["annotations"])


def test_a_block_that_ends_in_a_string_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_readers, "_BLOCK", 100)
    file, folder, fields = _write(tmp_path, _content())
    assert coco_readers.read_fast(file, folder) is None
    index = coco_index.open_index(file, folder, fields, tmp_path / "cache")
    assert len(index.ids) == 60


def _spoil(content: dict[str, Any], fault: str) -> None:
    image, annotation = content["images"][4], content["annotations"][8]
    changes = {
        "unknown image": (annotation, "image_id", -1),
        "unknown category": (annotation, "category_id", 5),
        "nan": (annotation, "bbox", [float("nan"), 1, 2, 3]),
        "short box": (annotation, "bbox", [1, 2, 3]),
        "odd polygon": (annotation, "segmentation", [[1, 2, 3, 4, 5, 6, 7]]),
        "absent file": (image, "file_name", "0/none.png"),
        "climbs out": (image, "file_name", "../a.json"),
        "absolute": (image, "file_name", "/etc/passwd"),
        "two names": (image, "file_name", "0/0.png\n0/3.png"),
        "no height": (image, "height", 0),
        "twice": (image, "id", content["images"][5]["id"]),
        "nameless": (content["categories"][1], "name", ""),
        "category twice": (content["categories"][1], "id", 7),
        "mask size": (annotation, "segmentation", {"size": [1, 1], "counts": "00"}),
    }
    target, key, value = changes[fault]
    target[key] = value


@pytest.mark.parametrize(
    "fault",
    [
        *("unknown image", "unknown category", "nan", "short box", "odd polygon", "absent file", "climbs out"),
        *("absolute", "two names", "no height", "twice", "nameless", "category twice", "mask size"),
    ],
)
def test_faults_are_left_to_the_plain_reader(tmp_path: Path, fault: str) -> None:
    content = _content()
    file, folder, fields = _write(tmp_path, content)
    assert coco_readers.read_fast(file, folder) is not None
    _spoil(content, fault)
    file.write_text(json.dumps(content))
    assert coco_readers.read_fast(file, folder) is None
    with pytest.raises(DataError, match=r"a\.json: (images|annotations|categories)\["):
        coco_index.open_index(file, folder, fields)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"images": {}}', '{"images": [], "annotations": [], "categories": []}']
)
def test_what_is_no_such_file(tmp_path: Path, text: str) -> None:
    file, folder, fields = _write(tmp_path, _content())
    file.write_text(text)
    assert coco_readers.read_fast(file, folder) is None
    with pytest.raises(DataError, match=r"a\.json"):
        coco_index.open_index(file, folder, fields)
    with pytest.raises(DataError, match="there is no such file"):
        coco_index.open_index(tmp_path / "gone.json", folder, fields)


def test_kept_index_is_used_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_index, "_KEEP_FROM", 0)
    content = _content()
    file, folder, fields = _write(tmp_path, content)
    first = coco_index.open_index(file, folder, fields, tmp_path / "cache")
    assert first.file is not None
    _assert_equal(first, coco_readers.read_plain(file, folder, fields))

    def never(*_: Any) -> None:
        raise AssertionError("the JSON was read again")

    with monkeypatch.context() as patch:
        patch.setattr(coco_index, "read_fast", never)
        _assert_equal(coco_index.open_index(file, folder, fields, tmp_path / "cache"), first)
    # Half a file is no file.
    whole = Path(first.file).read_bytes()
    Path(first.file).unlink()
    Path(first.file).write_bytes(whole[: len(whole) // 2])
    _assert_equal(coco_index.open_index(file, folder, fields, tmp_path / "cache"), first)
    # Another size or time means another content.
    content["annotations"].pop()
    file.write_text(json.dumps(content))
    assert len(coco_index.open_index(file, folder, fields, tmp_path / "cache").labels) == len(first.labels) - 1
    # The images are looked for each time.
    (tmp_path / "images" / content["images"][0]["file_name"]).unlink()
    with pytest.raises(DataError, match=r"images\[0\]\.file_name: there is no file"):
        coco_index.open_index(file, FolderIndex(tmp_path / "images", "images"), fields, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_nowhere_to_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_index, "_KEEP_FROM", 0)
    file, folder, fields = _write(tmp_path, _content())
    index = coco_index.open_index(file, folder, fields, file)  # a file where the folder should be
    assert index.file is None and len(index.ids) == 60


def test_a_kept_source_travels_as_a_file_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_index, "_KEEP_FROM", 0)
    content = _content()
    file, _, _ = _write(tmp_path, content)
    for image in content["images"]:
        Image.new("RGB", (30, image["height"])).save(tmp_path / "images" / image["file_name"])
    source = CocoInstances("images", file.name, root=tmp_path, index_cache=tmp_path / "cache")
    packed = pickle.dumps(source)
    assert len(packed) < 5000
    again = pickle.loads(packed)
    for index in (0, 20):
        one, two = source[index], again[index]
        assert one.image_id == two.image_id and np.array_equal(one.boxes, two.boxes)
        assert np.array_equal(one.instances, two.instances) and np.array_equal(one.semantic, two.semantic)
    monkeypatch.setattr(coco_index, "_KEEP_FROM", 1 << 40)
    plain = pickle.loads(pickle.dumps(CocoInstances("images", file.name, root=tmp_path)))
    assert np.array_equal(plain[20].instances, source[20].instances)


def _private_bytes(index: CocoIndex, answer: Any) -> None:
    """Read everything, then tell how much of the arrays' memory belongs to this process alone."""
    for name in _FIELDS:
        getattr(index, name).sum()
    assert len(set(index.names)) == len(index.names)
    private, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if ":" not in line.split()[0]:
            inside = bool(index.file) and line.endswith(str(index.file))
        elif inside and line.startswith("Private_Dirty"):
            private += int(line.split()[1])
    answer.put(private)


def test_workers_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_index, "_KEEP_FROM", 0)
    file, folder, fields = _write(tmp_path, _content())
    index = coco_index.open_index(file, folder, fields, tmp_path / "cache")
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    worker = context.Process(target=_private_bytes, args=(index, answer))
    worker.start()
    assert answer.get(timeout=30) == 0
    worker.join()


def test_sequences(tmp_path: Path) -> None:
    words = ["a", "", "été", "日本", "z" * 300]
    texts = Texts.pack(words)
    assert list(texts) == words == texts.unpack() and texts[-1] == words[-1] and texts[1:3] == words[1:3]
    with pytest.raises(IndexError):
        texts[5]
    numbers = Numbers(np.array([3, 1], dtype=np.int64))
    assert list(numbers) == [3, 1] and type(numbers[0]) is int


def test_arrays_file(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    arrays = {
        "flags": np.array([True, False, True]),
        "wide": np.arange(6, dtype=np.float64).reshape(2, 3),
        "none": np.zeros((0, 4), dtype=np.float32),
        "ids": np.arange(5, dtype=np.int64)[::2],
    }
    save_arrays(tmp_path / "x.safetensors", arrays, {"key": "é"})
    mapped, metadata = map_arrays(tmp_path / "x.safetensors")
    reference = load_file(tmp_path / "x.safetensors")
    assert metadata == {"key": "é"} and set(mapped) == set(arrays)
    for name, array in arrays.items():
        assert np.array_equal(mapped[name], array) and np.array_equal(reference[name], array)
        assert not mapped[name].flags.writeable
    assert os.listdir(tmp_path) == ["x.safetensors"]
