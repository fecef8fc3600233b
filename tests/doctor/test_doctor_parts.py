"""The parts of the data check against naive references."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ocrnet_pl.data.cache.shared_cache import Cached
from ocrnet_pl.data.records import RawBoxes
from ocrnet_pl.data.sources.coco import CocoInstances
from ocrnet_pl.data.sources.coco_panoptic import CocoPanoptic
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.doctor.box_formats import Reading
from ocrnet_pl.doctor.boxes import box_faults, duplicates
from ocrnet_pl.doctor.classes import rare_classes
from ocrnet_pl.doctor.examine import as_raw
from ocrnet_pl.doctor.findings import Finding, FindingLog, Kind
from ocrnet_pl.doctor.fingerprints import fingerprint, similar_pairs
from ocrnet_pl.doctor.masks import mask_bounds, shift, unboxed
from ocrnet_pl.doctor.statistics import SplitStatistics, measure
from ocrnet_pl.structures import Taxonomy
from tests.helpers.doctor_data import load, of_image, rolled, save, write_clean


def raw_of(boxes: list[list[float]], labels: list[int] | None = None) -> RawBoxes:
    count = len(boxes)
    return RawBoxes(
        image="a.png",
        file="a.json",
        field="annotations[{}].bbox",
        numbers=np.arange(count),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        labels=np.array(labels or [0] * count, dtype=np.int64),
        crowd=np.zeros(count, dtype=np.bool_),
        rows=np.arange(count),
    )


def test_coco_gives_the_boxes_as_they_stand_with_their_places(tmp_path: Path) -> None:
    root = write_clean(tmp_path, lengths=(6, 2))
    content = load(root)
    # The order in the file is not that of the images, and some have no area.
    content["annotations"].reverse()
    for image in (1, 3):
        entry = content["annotations"][of_image(content, image)[0]]
        entry["bbox"][2], entry["segmentation"] = 0, []
    save(root, "train", content)
    source = CocoInstances("train", "instances_train.json", root=root)
    for index in range(6):
        raw, sample = source.raw_boxes(index), source[index]
        assert Cached(source).raw_boxes(index).numbers.tolist() == raw.numbers.tolist()  # type: ignore[union-attr]
        assert sorted(raw.numbers.tolist()) == of_image(content, index)
        assert Path(raw.image).name == content["images"][index]["file_name"]
        for row, number in enumerate(raw.numbers):
            x, y, width, height = content["annotations"][number]["bbox"]
            assert raw.boxes[row].tolist() == [x, y, x + width, y + height]
            assert (raw.rows[row] < 0) == (width == 0)
            if raw.rows[row] >= 0:
                assert sample.boxes[raw.rows[row]].tolist() == raw.boxes[row].tolist()
                assert sample.labels[raw.rows[row]] == raw.labels[row]
    assert (source.raw_boxes(1).rows == -1).sum() == 1


def test_panoptic_gives_the_boxes_of_its_things(tmp_path: Path) -> None:
    ids = np.zeros((20, 30, 3), dtype=np.uint8)
    ids[:8, :, 0], ids[10:15, 3:9, 0], ids[12:18, 15:25, 0] = 5, 6, 7
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray(ids).save(tmp_path / "images" / "a.png")
    Image.fromarray(ids).save(tmp_path / "masks" / "a.png")
    segments = [
        {"id": 6, "category_id": 2, "bbox": [3, 10, 6, 5], "iscrowd": 0},
        {"id": 5, "category_id": 1, "bbox": [0, 0, 30, 8], "iscrowd": 0},
        {"id": 7, "category_id": 2, "bbox": [15, 12, 0, 6], "iscrowd": 0},
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 1, "name": "sky", "isthing": 0}, {"id": 2, "name": "car", "isthing": 1}],
    }
    (tmp_path / "p.json").write_text(json.dumps(content))
    source = CocoPanoptic("images", "p.json", "masks", root=tmp_path)
    raw, sample = source.raw_boxes(0), source[0]
    assert [raw.field.format(n) for n in raw.numbers] == [
        "annotations[0].segments_info[0].bbox",
        "annotations[0].segments_info[2].bbox",
    ]
    assert raw.boxes.tolist() == [[3, 10, 9, 15], [15, 12, 15, 18]]
    assert raw.rows.tolist() == [0, -1]
    # The second car's pixels have no box that anything would be trained on.
    ((own, count, bounds),) = unboxed(raw, sample, source.taxonomy)
    assert (source.taxonomy.semantic_categories[own].name, count, bounds) == ("car", 60, (15, 12, 25, 18))
    np.testing.assert_array_equal(mask_bounds(raw, sample)[0], [3, 10, 9, 15])


def test_a_source_without_raw_boxes_is_checked_by_its_samples() -> None:
    source = SyntheticSource(length=3)
    assert source.raw_boxes(0) is None
    raw = as_raw(source[0])
    np.testing.assert_array_equal(raw.boxes, source[0].boxes.numpy())
    np.testing.assert_array_equal(mask_bounds(raw, source[0]), raw.boxes)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 9)] * 4, st.integers(0, 1)), max_size=12))
def test_duplicates_are_those_of_the_naive_search(entries: list[tuple[int, int, int, int, int]]) -> None:
    boxes = [[x, y, x + width, y + height] for x, y, width, height, _ in entries]
    labels = [entry[4] for entry in entries]
    seen: list[int] = []
    later = []
    for row, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        if box[2] <= box[0] or box[3] <= box[1]:
            continue
        # With sides below 10, an overlap over 0.9 is equality.
        if any(boxes[other] == box and labels[other] == label for other in seen):
            later.append(row)
        else:
            seen.append(row)
    assert [row for row, _ in duplicates(raw_of(boxes, labels))] == later


def test_boxes_inside_give_no_fault() -> None:
    boxes = [[0, 0, 100, 50], [-0.5, -0.8, 100.9, 50.4], [10, 10, 11.5, 12], [99, 49, 100, 50]]
    assert list(box_faults(raw_of(boxes, [0, 1, 2, 3]), (50, 100))) == []


def reference(reading: Reading, box: list[float]) -> list[float]:
    """The numbers as stored, read in the wrong way: what the reading has to undo, on an image of 100 x 50."""
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    return {
        Reading.NORMALIZED: [x0 / 100, y0 / 50, x1 / 100, y1 / 50],
        Reading.PIXELS: [x0 * 100, y0 * 50, x1 * 100, y1 * 50],
        Reading.CORNERS: [x0, y0, x0 + x1, y0 + y1],
        Reading.CORNER_AND_SIZE: [x0, y0, width, height],
        Reading.CENTER: [x0 + width / 2, y0 + height / 2, x1 + width / 2, y1 + height / 2],
        Reading.NOT_CENTER: [x0 - width / 2, y0 - height / 2, x1 - width / 2, y1 - height / 2],
        Reading.SWAPPED: [y0, x0, y1, x1],
    }[reading]


@pytest.mark.parametrize("reading", list(Reading))
def test_each_reading_undoes_its_mistake(reading: Reading) -> None:
    box = [12.0, 7.0, 40.0, 31.0]
    found = reading.convert(np.array([reference(reading, box)]), (50, 100))
    np.testing.assert_allclose(found, [box])


def test_a_shift_is_told_from_a_loose_box_and_found_in_a_map_of_classes() -> None:
    source = SyntheticSource(length=12, seed=5, size=(120, 160), max_objects=5)
    taxonomy = source.taxonomy
    found = 0
    for sample in source:
        raw = as_raw(sample)
        assert shift(raw, mask_bounds(raw, sample), sample, taxonomy) is None
        loose = as_raw(sample)
        if len(loose.boxes):
            loose.boxes[0] += [6, 6, 6, 6]
            if len(loose.boxes) > 2:
                assert shift(loose, mask_bounds(loose, sample), sample, taxonomy) is None
        instances = torch.from_numpy(rolled(sample.instances.numpy(), 6, 4))
        semantic = torch.from_numpy(rolled(sample.semantic.numpy(), 6, 4))
        for moved in (sample.replace(instances=instances), sample.replace(instances=None, semantic=semantic)):
            result = shift(raw, mask_bounds(raw, moved), moved, taxonomy)
            if result is not None:
                assert result == pytest.approx((6, 4), abs=1)
                found += 1
    # Objects that the edge or another object cuts cannot be compared.
    assert found >= 10


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return fingerprint(torch.tensor(image).permute(2, 0, 1), "")[1]


def test_similar_images_are_found_among_many_in_a_short_time() -> None:
    """Twenty thousand against two thousand, one pair of which is alike."""
    rng = np.random.default_rng(0)
    photo = np.kron(rng.integers(0, 255, (30, 40, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    image = Image.fromarray(photo)
    buffer = io.BytesIO()
    image.resize((120, 90), Image.Resampling.BILINEAR).save(buffer, format="JPEG", quality=60)
    again = np.asarray(Image.open(buffer))
    one = rng.integers(0, 256, (20_000, 32, 32), dtype=np.uint8)
    two = rng.integers(0, 256, (2_000, 32, 32), dtype=np.uint8)
    one[12_345], two[678] = thumbnail(photo), thumbnail(again)
    reads: list[int] = []

    def load_first(index: int) -> torch.Tensor:
        reads.append(index)
        return torch.from_numpy(photo.copy()).permute(2, 0, 1)

    def load_second(index: int) -> torch.Tensor:
        reads.append(index)
        return torch.from_numpy(again.copy()).permute(2, 0, 1)

    start = time.perf_counter()
    ((first, second, agreement),) = similar_pairs(one, two, (load_first, load_second))
    assert (first, second) == (12_345, 678)
    assert 0.85 < agreement <= 1.0001
    # Only the pair itself is read again.
    assert reads == [12_345, 678]
    assert time.perf_counter() - start < 15


def test_an_image_without_contrast_has_an_empty_thumbnail() -> None:
    digest, small = fingerprint(torch.full((3, 40, 50), 7, dtype=torch.uint8), "")
    assert not small.any() and len(digest) == 16


def test_findings_are_all_written_but_only_the_first_are_kept() -> None:
    file = io.StringIO()
    log = FindingLog(file, kept=5)
    for number in range(1000):
        log.add(Finding(Kind.BOX_OUTSIDE, "train", f"fault {number}"))
    ((key, count),) = log.counts.items()
    assert count == 1000
    assert [finding.message for finding in log.first[key]] == [f"fault {n}" for n in range(5)]
    assert len(file.getvalue().splitlines()) == 1001


def test_statistics_are_those_of_a_naive_count() -> None:
    source = SyntheticSource(length=20, seed=3, size=(64, 96))
    statistics = SplitStatistics("train", source.taxonomy)
    for sample in source:
        statistics.add(measure(sample, source.taxonomy, (64, 64)))
    statistics.add(None)
    samples = list(source)
    for label in range(5):
        assert statistics.boxes[label] == sum(int((s.labels == label).sum()) for s in samples)
        assert statistics.box_images[label] == sum(bool((s.labels == label).any()) for s in samples)
    for own in range(8):
        assert statistics.pixels[own] == sum(int((s.semantic == own).sum()) for s in samples)
    assert (statistics.images, statistics.unreadable) == (20, 1)
    # The longer side, 96, is scaled to 64.
    sides = [min(b[2] - b[0], b[3] - b[1]) * 2 / 3 for s in samples for b in s.boxes.tolist()]
    assert statistics.tiny == sum(side < 4 for side in sides)
    longer = sorted(max(b[2] - b[0], b[3] - b[1]) * 2 / 3 for s in samples for b in s.boxes.tolist())
    limited = SplitStatistics("train", source.taxonomy, widest=(longer[-3] + longer[-4]) / 2)
    for sample in samples:
        limited.add(measure(sample, source.taxonomy, (64, 64)))
    assert limited.wide == 3 and statistics.wide == 0
    assert statistics.sizes.sum() == statistics.boxes.sum() == len(sides)
    sizes = [((b[2] - b[0]) * (b[3] - b[1])) ** 0.5 for s in samples for b in s.boxes.tolist()]
    assert statistics.sizes[:, :8].sum() == sum(size < 16 for size in sizes)


@pytest.mark.parametrize(("counts", "levels"), [((20, 0), ["NOTE"]), ((0, 0), ["WARNING", "WARNING"])])
def test_no_object_at_all_is_more_than_a_class_without_any(counts: tuple[int, int], levels: list[str]) -> None:
    train = SplitStatistics("train", Taxonomy.build(things=["cat", "dog"]))
    train.images = train.boxed = 20
    train.boxes[:] = train.box_images[:] = counts
    assert [finding.severity.name for finding in rare_classes(train, [])] == levels
