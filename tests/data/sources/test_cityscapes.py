"""Cityscapes files against brute force over every pixel and a real frame."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from ocrnet_pl.data.sources.cityscapes import LABELS, Cityscapes
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import Sample
from tests.helpers.bad_files import huge_png

SIZE = (10, 20)
NINETEEN = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
# From the label definitions' table, typed here once more: label id -> training id.
TRAIN_ID = {
    **{7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10},
    **{24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18},
}


def _instance_ids() -> np.ndarray:
    """Road and sky, two cars, a group of cars, a person, a caravan, a license plate's car, void."""
    ids = np.full(SIZE, 7, dtype=np.uint16)
    ids[0] = 23
    ids[1, :3] = 0
    ids[2:5, 2:6] = 26000
    ids[3:8, 5:9] = 26013
    ids[6:9, 15:20] = 26
    ids[0:4, 12:14] = 24000
    ids[5:7, 10:12] = 29000
    ids[9, :4] = 1
    ids[9, 6:9] = 9
    return ids


def _label_ids(ids: np.ndarray) -> np.ndarray:
    return np.where(ids >= 1000, ids // 1000, ids).astype(np.uint8)


def _write(root: Path, stem: str, *, split: str = "train", kinds: tuple[str, ...], suffix: str = "gtFine") -> Path:
    city = stem.split("_")[0]
    images, labels = root / "leftImg8bit" / split / city, root / "gtFine" / split / city
    for folder in (images, labels):
        folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIZE[1], SIZE[0]), (1, 2, 3)).save(images / f"{stem}_leftImg8bit.png")
    ids = _instance_ids()
    label_ids = _label_ids(ids)
    train_ids = np.vectorize(lambda value: TRAIN_ID.get(value, 255))(label_ids).astype(np.uint8)
    maps = {"instanceIds": ids, "labelIds": label_ids, "labelTrainIds": train_ids}
    for kind in kinds:
        Image.fromarray(maps[kind]).save(labels / f"{stem}_{suffix}_{kind}.png")
    (labels / f"{stem}_{suffix}_polygons.json").write_text("{}")
    (labels / f"{stem}_{suffix}_color.png").touch()
    return labels


ALL = ("instanceIds", "labelIds", "labelTrainIds")


def _open(root: Path, **options: Any) -> Cityscapes:
    return Cityscapes(options.pop("split", "train"), root=root, **options)


def _semantic(sample: Sample) -> np.ndarray:
    assert sample.semantic is not None
    return sample.semantic.as_subclass(Tensor).numpy()


def test_the_nineteen_classes_stand_in_the_official_order(tmp_path: Path) -> None:
    _write(tmp_path, "ulm_000000_000019", kinds=ALL)
    taxonomy = _open(tmp_path).taxonomy
    assert tuple(c.name for c in taxonomy.semantic_categories) == NINETEEN
    assert tuple(c.name for c in taxonomy.detection_categories) == NINETEEN[11:]
    assert [c.is_thing for c in taxonomy.categories] == [False] * 11 + [True] * 8
    assert {label.id: label.train_id for label in LABELS if label.train_id != 255} == TRAIN_ID
    assert [label.id for label in LABELS] == list(range(34))


def _check_things(sample: Sample, ids: np.ndarray) -> None:
    """Compare boxes, classes, crowds and instance map with a loop over the ids."""
    assert sample.instances is not None
    instances = sample.instances.as_subclass(Tensor).numpy()
    covered = np.zeros(ids.shape, dtype=bool)
    row = 0
    for value in sorted(np.unique(ids).tolist()):
        label = value // 1000 if value >= 1000 else value
        if label not in range(24, 34) or label not in TRAIN_ID:
            continue
        ys, xs = np.nonzero(ids == value)
        assert sample.boxes[row].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert int(sample.labels[row]) == TRAIN_ID[label] - 11
        assert bool(sample.crowd[row]) == (value < 1000)
        assert np.unique(instances[ids == value]).tolist() == [0 if value < 1000 else row + 1]
        covered |= ids == value
        row += 1
    assert row == len(sample.boxes) and not instances[~covered].any()


def test_instance_ids_tell_everything(tmp_path: Path) -> None:
    _write(tmp_path, "ulm_000000_000019", kinds=("instanceIds",))
    sample = _open(tmp_path)[0]
    ids = _instance_ids()
    _check_things(sample, ids)
    assert sample.crowd.sum() == 1 and len(sample.boxes) == 4
    for y in range(SIZE[0]):
        for x in range(SIZE[1]):
            assert _semantic(sample)[y, x] == TRAIN_ID.get(int(_label_ids(ids)[y, x]), 255)
    assert sample.supervision.detection.all() and sample.supervision.semantic.all()
    assert sample.image_id == "ulm_000000_000019"


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_without_instances_only_the_pixels_are_supervised(tmp_path: Path, kind: str) -> None:
    _write(tmp_path, "ulm_000000_000019", kinds=("instanceIds",))
    _write(tmp_path, "bonn_000000_000019", kinds=(kind,))
    source = _open(tmp_path)
    sample, whole = source[0], source[1]
    assert sample.image_id == "bonn_000000_000019"
    assert np.array_equal(_semantic(sample), _semantic(whole))
    assert len(sample.boxes) == 0 and sample.instances is None
    assert not sample.supervision.detection.any() and sample.supervision.semantic.all()


def test_chosen_classes(tmp_path: Path) -> None:
    _write(tmp_path, "ulm_000000_000019", kinds=ALL)
    _write(tmp_path, "bonn_000000_000019", kinds=("labelTrainIds",))
    source = _open(tmp_path, classes=["caravan", "road", "parking", "car"])
    assert [c.name for c in source.taxonomy.semantic_categories] == ["road", "parking", "caravan", "car"]
    partial, sample = source[0], source[1]
    labels = _label_ids(_instance_ids())
    expected = np.select([labels == 7, labels == 9, labels == 29, labels == 26], [0, 1, 2, 3], 255)
    assert np.array_equal(_semantic(sample), expected)
    assert sample.labels.tolist() == [1, 1, 1, 0] and sample.crowd.tolist() == [True, False, False, False]
    # Training ids know neither parking nor caravans.
    assert partial.supervision.semantic.tolist() == [True, False, False, True]
    assert set(np.unique(_semantic(partial))) == {0, 3, 255}
    with pytest.raises(ValueError, match="no label 'street'"):
        _open(tmp_path, classes=["street"])


def test_coarse_labels(tmp_path: Path) -> None:
    _write(tmp_path, "ulm_000000_000019", split="train_extra", kinds=ALL, suffix="gtCoarse")
    (tmp_path / "gtFine").rename(tmp_path / "gtCoarse")
    sample = _open(tmp_path, split="train_extra", annotations="gtCoarse")[0]
    assert len(sample.boxes) == 4


def test_the_real_frame_by_brute_force(shared_data: Path) -> None:
    root = shared_data / "formats/cityscapes"
    sample = _open(root, split="val")[0]
    prefix = root / "gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_"
    labels = np.array(Image.open(f"{prefix}labelIds.png"))
    expected = np.vectorize(lambda value: TRAIN_ID.get(value, 255))(labels)
    assert np.array_equal(_semantic(sample), expected)
    _check_things(sample, np.array(Image.open(f"{prefix}instanceIds.png")).astype(int))
    assert len(sample.boxes) == 7 and sample.image.shape == (3, 128, 256)


def test_the_real_frame_with_training_ids_alone(shared_data: Path, tmp_path: Path) -> None:
    for part in ("leftImg8bit", "gtFine"):
        shutil.copytree(shared_data / "formats/cityscapes" / part, tmp_path / part)
    folder = tmp_path / "gtFine/val/frankfurt"
    for folder_or_file in (tmp_path, *tmp_path.rglob("*")):
        folder_or_file.chmod(0o755)
    for kind in ("instanceIds", "labelIds"):
        (folder / f"frankfurt_000000_000294_gtFine_{kind}.png").unlink()
    expected = np.array(Image.open(folder / "frankfurt_000000_000294_gtFine_labelTrainIds.png"))
    assert np.array_equal(_semantic(_open(tmp_path, split="val")[0]), expected)


def test_wrong_trees(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        _open(tmp_path)
    labels = _write(tmp_path, "ulm_000000_000019", kinds=())
    image = tmp_path / "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png"
    with pytest.raises(DataError, match=r"ulm_000000_000019_leftImg8bit.png: .* has none of its label files"):
        _open(tmp_path)
    _write(tmp_path, "ulm_000000_000019", kinds=ALL)
    image.unlink()
    with pytest.raises(DataError, match="there is no image named"):
        _open(tmp_path)
    _write(tmp_path, "bonn_000000_000019", kinds=ALL)
    with pytest.raises(DataError, match=r"ulm_000000_000019_gtFine_\w+.png: there is no image ulm/ulm_000000_000019"):
        _open(tmp_path)
    _write(tmp_path, "ulm_000000_000019", kinds=("labelIds",), suffix="gtCoarse")
    _write(tmp_path, "ulm_000000_000019", kinds=ALL)
    shutil.copy(
        labels / "ulm_000000_000019_gtFine_instanceIds.png", labels / "ulm_000000_000019_gtCoarse_instanceIds.png"
    )
    with pytest.raises(DataError, match="labels the same image"):
        _open(tmp_path)


@pytest.mark.parametrize("split", ["../other", "/etc", "train/../.."])
def test_splits_that_lead_out_are_refused(tmp_path: Path, split: str) -> None:
    _write(tmp_path, "ulm_000000_000019", kinds=ALL)
    with pytest.raises(DataError, match="leads out of the folder"):
        _open(tmp_path, split=split)


@pytest.mark.parametrize(
    ("kind", "value", "dtype"),
    [
        ("instanceIds", 34, np.uint16),
        ("instanceIds", 999, np.uint16),
        ("instanceIds", 34000, np.uint16),
        ("instanceIds", 65535, np.uint16),
        ("labelIds", 34, np.uint8),
        ("labelIds", 255, np.uint8),
        ("labelTrainIds", 19, np.uint8),
    ],
)
def test_unknown_ids_are_named(tmp_path: Path, kind: str, value: int, dtype: Any) -> None:
    labels = _write(tmp_path, "ulm_000000_000019", kinds=(kind,))
    path = labels / f"ulm_000000_000019_gtFine_{kind}.png"
    ids = np.array(Image.open(path)).astype(dtype)
    ids[4, 4] = value
    Image.fromarray(ids).save(path)
    with pytest.raises(DataError) as error:
        _open(tmp_path)[0]
    assert f"no label for the id {value}" in str(error.value) and f"_{kind}.png" in str(error.value)


def test_broken_files_raise_when_they_are_read(tmp_path: Path) -> None:
    labels = _write(tmp_path, "ulm_000000_000019", kinds=ALL)
    source = _open(tmp_path)
    path = labels / "ulm_000000_000019_gtFine_instanceIds.png"
    whole = path.read_bytes()
    Image.fromarray(np.zeros((SIZE[0], SIZE[1] + 1), dtype=np.uint16)).save(path)
    with pytest.raises(DataError, match="21 x 10"):
        source[0]
    Image.new("RGBA", (SIZE[1], SIZE[0])).save(path)
    with pytest.raises(DataError, match="found mode RGBA"):
        source[0]
    huge_png(path, color=3)
    with pytest.raises(DataError, match=r"instanceIds\.png"):
        source[0]
    for content in (b"", b"text", whole[:60]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"instanceIds\.png"):
            source[0]
    path.unlink()
    with pytest.raises(DataError, match="there is no such mask"):
        source[0]
    path.write_bytes(whole)
    image = tmp_path / "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png"
    huge_png(image, color=2)
    with pytest.raises(DataError, match=r"leftImg8bit\.png"):
        source[0]
    image.write_bytes(b"")
    with pytest.raises(DataError, match=r"leftImg8bit\.png"):
        source[0]
