"""Derived boxes, classes and semantic maps against loops over every pixel."""

from __future__ import annotations

import time

import numpy as np
import pytest

from ocrnet_pl.data.readers.derived_labels import (
    boxes_from_instances,
    classes_from_semantic,
    renumber,
    runs,
    semantic_from_instances,
)


def _map(seed: int, count: int, size: tuple[int, int] = (23, 31)) -> np.ndarray:
    """Blobs and single pixels, some of them at the borders, some numbers without a pixel."""
    rng = np.random.default_rng(seed)
    values = np.zeros(size, dtype=np.int32)
    for number in range(1, count + 1):
        if number % 4 == 0:
            continue
        y, x = rng.integers(0, size[0]), rng.integers(0, size[1])
        values[y : y + rng.integers(1, 9), x : x + rng.integers(1, 9)] = number
    values[rng.random(size) < 0.1] = 0
    return values


@pytest.mark.parametrize("seed", range(5))
def test_boxes_bound_every_pixel_tightly(seed: int) -> None:
    instances = _map(seed, 12)
    boxes = boxes_from_instances(instances, 12)
    for number in range(1, 13):
        pixels = [(y, x) for y in range(23) for x in range(31) if instances[y, x] == number]
        expected = [0, 0, 0, 0]
        if pixels:
            ys, xs = zip(*pixels, strict=True)
            expected = [min(xs), min(ys), max(xs) + 1, max(ys) + 1]
        assert boxes[number - 1].tolist() == expected
    assert boxes.dtype == np.float32


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_boxes_of_thin_maps(shape: tuple[int, int]) -> None:
    assert boxes_from_instances(np.ones(shape, dtype=np.int32), 1).tolist() == [[0, 0, shape[1], shape[0]]]
    assert boxes_from_instances(np.zeros(shape, dtype=np.int32), 0).shape == (0, 4)


def test_maps_in_any_memory_order_give_the_same() -> None:
    instances = _map(3, 9)
    assert np.array_equal(boxes_from_instances(np.asfortranarray(instances), 9), boxes_from_instances(instances, 9))
    assert np.array_equal(renumber(np.asfortranarray(instances))[0], renumber(instances)[0])


@pytest.mark.parametrize("seed", range(3))
def test_runs_rebuild_the_map(seed: int) -> None:
    values = _map(seed, 9)
    of = runs(values)
    rebuilt = np.full_like(values, -1)
    for value, row, start, length in zip(*of, strict=True):
        assert start + length <= values.shape[1]
        rebuilt[row, start : start + length] = value
    assert np.array_equal(rebuilt, values)
    assert not ((of.values[1:] == of.values[:-1]) & (of.rows[1:] == of.rows[:-1])).any()


@pytest.mark.parametrize("empty", [True, False])
def test_renumbering_keeps_every_id_apart(empty: bool) -> None:
    ids = (_map(1, 9).astype(np.int64) * 70_001).astype(np.int32)
    if not empty:
        ids[ids == 0] = 5
    numbers, values = renumber(ids)
    assert sorted(set(ids.ravel().tolist()) - {0}) == values.tolist()
    for y in range(ids.shape[0]):
        for x in range(ids.shape[1]):
            assert (values[numbers[y, x] - 1] if numbers[y, x] else 0) == ids[y, x]


@pytest.mark.parametrize("seed", range(5))
def test_the_class_of_an_instance_is_that_of_most_of_its_pixels(seed: int) -> None:
    instances = _map(seed, 12)
    semantic = np.random.default_rng(seed).choice(np.array([0, 3, 7, 255], dtype=np.uint8), instances.shape)
    classes = classes_from_semantic(instances, 12, semantic)
    for number in range(1, 13):
        votes = [0] * 255
        for y, x in zip(*np.nonzero(instances == number), strict=True):
            if semantic[y, x] != 255:
                votes[semantic[y, x]] += 1
        assert classes[number - 1] == (votes.index(max(votes)) if any(votes) else -1)


def test_semantic_maps_follow_the_instances() -> None:
    instances = np.array([[0, 1, 1, 0], [0, 2, 2, 0], [0, 0, 0, 0]], dtype=np.int32)
    # The third instance lies somewhere in its box; the fourth has no class.
    boxes = np.array([[1, 0, 3, 1], [1, 1, 3, 2], [1.5, 0.5, 3.5, 1.5]], dtype=np.float32)
    result = semantic_from_instances(instances, np.array([4, -1, 6]), 9, boxes)
    assert result.tolist() == [[9, 4, 4, 255], [9, 255, 255, 255], [9, 9, 9, 9]]
    assert semantic_from_instances(instances, np.array([4, 5, 6]), 255).tolist() == [
        [255, 4, 4, 255],
        [255, 5, 5, 255],
        [255, 255, 255, 255],
    ]


def test_large_maps_take_milliseconds() -> None:
    """A loop over the instances goes over the map once each, seconds here; the bound is far from both."""
    side, cell = 2000, 40
    grid = np.arange((side // cell) ** 2, dtype=np.int32).reshape(side // cell, -1) + 1
    instances = np.kron(grid, np.ones((cell, cell), dtype=np.int32))
    start = time.perf_counter()
    boxes = boxes_from_instances(instances, grid.size)
    taken = time.perf_counter() - start
    expected = [(x * cell, y * cell, (x + 1) * cell, (y + 1) * cell) for y in range(50) for x in range(50)]
    assert boxes.tolist() == [list(map(float, box)) for box in expected]
    assert taken < 1.0
