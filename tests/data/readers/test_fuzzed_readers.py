"""Every reader against damaged files: each is read, or refused with one line that names it, in time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from ocrnet_pl.doctor.result import Recipe
from tests.helpers.doctor_data import findings, run
from tests.helpers.fuzzing import attack, bounded, damage, judge
from tests.helpers.small_sets import SETS

PART = 16
"""Attacks of each part; the parts are tests of their own, so that two processes share them."""


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in (1, 2, 3))])
@pytest.mark.parametrize("name", list(SETS))
def test_damaged_files_are_read_or_refused_with_one_line(name: str, part: int, tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    SETS[name].write(tmp_path / "clean")
    if not part:
        assert judge(SETS[name], tmp_path / "clean").kind == "read"
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    for seed in range(part * PART, (part + 1) * PART):
        what, verdict = attack(name, seed, tmp_path / "clean", tmp_path)
        outcomes[verdict.kind] += 1
        if verdict.kind == "fault":
            faults.append(f"{what}: {verdict.text}")
    assert not faults, "\n".join(faults)
    # A fuzzer that damages nothing, or everything beyond recognition, tests nothing; a kept index is replaced instead.
    assert outcomes["refused"] or name in ("coco kept", "cached")


@pytest.mark.parametrize("name", ["coco", "coco lists", "voc", "yolo", "bdd100k", "table", "packed members"])
def test_the_check_outlives_what_training_refuses(name: str, tmp_path: Path) -> None:
    small = SETS[name]
    (tmp_path / "clean").mkdir()
    small.write(tmp_path / "clean")
    for seed in range(1000, 1006):
        root = damage(name, seed, tmp_path / "clean", tmp_path)
        arguments = small.arguments | {"root": str(root)}
        recipe = Recipe(lambda root=root, **changes: small.open(root, **changes), small.source_class, arguments)
        with bounded():
            errors = run({"train": recipe}, tmp_path / "report")
        if judge(small, root).kind == "refused":
            assert errors, f"{name} {seed}: the check finds nothing wrong"
        assert all(row["message"].isprintable() for row in findings(tmp_path / "report"))
