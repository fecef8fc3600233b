"""Runs of pixels, and pairs that are counted over them, against loops over the pixels."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import numpy as np
import pytest

from ocrnet_pl.metrics import matching
from ocrnet_pl.metrics.matching import Pairs, match
from ocrnet_pl.metrics.runs import Runs


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 16, 1001])
def test_runs_are_those_of_equal_pixels(size: int) -> None:
    random = np.random.default_rng(size)
    maps = [np.repeat(random.integers(0, 3, size), 5)[:size].astype(kind) for kind in (np.uint8, np.int32)]
    runs = Runs.of(*maps)
    groups = [len(list(group)) for _, group in groupby(zip(*maps, strict=True))]
    assert runs.lengths.tolist() == groups
    assert runs.starts.tolist() == np.cumsum([0, *groups])[:-1].tolist()


@pytest.mark.parametrize("together", [1, 2**20])
def test_pairs_of_masks_share_the_pixels_of_both(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_TOGETHER", together)
    random = np.random.default_rng(0)
    found, true, pixels = (random.integers(0, 6, 200) for _ in range(3))
    expected: Counter[tuple[int, int]] = Counter()
    for row, column, count in zip(found, true, pixels, strict=True):
        if row and column:
            expected[int(row) - 1, int(column) - 1] += int(count)
    pairs = Pairs.of_masks(found, true, pixels)
    assert dict(zip(zip(pairs.rows, pairs.columns, strict=True), pairs.shared, strict=True)) == expected


@pytest.mark.parametrize("seed", range(4))
def test_pairs_that_nothing_competes_for_are_matched_as_all_others(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, columns = random.permutation(12), random.permutation(12)
    iou, crowd, outside = random.uniform(0.3, 1, 12), random.random(12) < 0.3, random.random((12, 4)) < 0.3
    excluded = (random.random((12, 4)) < 0.3) | crowd[:, None]
    alone = match(rows, columns, iou, excluded, crowd, outside)
    order = np.argsort(rows)
    turn = matching._match_in_turn(
        rows[order].tolist(),
        columns[order].tolist(),
        matching._REACHED[np.searchsorted(matching.THRESHOLDS, iou[order], "right")].tolist(),
        (~excluded @ matching._IN_AREA).tolist(),
        crowd.tolist(),
    )
    for row, hit, other in zip(*turn[:3], strict=True):
        assert int(alone[0][row]) == hit
        assert int(alone[1][row]) == int((~outside @ matching._IN_AREA)[row]) & other
    assert {column: int(row) for column, row in enumerate(alone[2]) if row >= 0} == turn[3]
