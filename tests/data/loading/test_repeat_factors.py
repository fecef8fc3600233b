"""Images with rare classes come more often: exactly, the same on any number of processes, and again after a stop."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.data.loading import repeat_factors as module
from ocrnet_pl.data.loading.repeat_factors import (
    image_weights,
    present_categories,
    repeat_factors,
    repeated_parts,
)
from ocrnet_pl.data.loading.samplers import Item, MultiScaleSampler
from ocrnet_pl.data.loading.stratified_order import Draws
from ocrnet_pl.data.records import Blocks, Part, make_sample
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.coco import CocoInstances
from ocrnet_pl.data.sources.wrappers.mixture import Mixture
from ocrnet_pl.data.sources.wrappers.split import Split
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import Sample, Supervision, Taxonomy
from tests.data.loading.test_samplers import Numbers

THINGS = ["common", "rare", "rarer"]


class Rare(Source):
    """One of 8 images has a box of a rare class, one of 16 pixels of a rarer one; each has a common object."""

    taxonomy = Taxonomy.build(things=THINGS, stuff=["ground"], detected=THINGS[:2])  # type: ignore[assignment]

    def __init__(self, length: int = 32, broken: int = -1) -> None:
        self.length, self.broken = length, broken

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if index == self.broken:
            raise DataError.at(f"{index}.png", "broken")
        rows = [0, *([1] if index % 8 == 3 else [])]
        semantic = np.zeros((32, 32), dtype=np.uint8)
        semantic[:4] = 1
        semantic[8:10] = 3 if index % 16 == 5 else 0
        crowd = np.ones(1, dtype=np.bool_)
        return make_sample(
            torch.zeros(3, 32, 32, dtype=torch.uint8),
            boxes=[[2, 2, 9, 9]] * (len(rows) + 1),
            labels=[*rows, 1],  # a crowd of the rare class in each image, which does not count
            crowd=np.concatenate([np.zeros(len(rows), dtype=np.bool_), crowd]),
            semantic=semantic,
            supervision=Supervision.full(self.taxonomy),
            image_id=index,
            path=f"{index}.png",
        )


def _by_the_paper(images: list[set[int]], threshold: float) -> list[float]:
    factors = []
    for image in images:
        largest = 1.0
        for category in image:
            share = sum(category in other for other in images) / len(images)
            largest = max(largest, math.sqrt(threshold / share))
        factors.append(largest)
    return factors


def test_factors_are_those_of_the_paper() -> None:
    random = np.random.default_rng(3)
    chances = np.array([0.9, 0.3, 0.02, 0.005, 0.0])
    images = [set(np.flatnonzero(random.random(5) < chances).tolist()) for _ in range(400)]
    present = [np.array(sorted(image), dtype=np.int64) for image in images]
    for threshold in (0.001, 0.05, 1.0):
        found = repeat_factors(present, 5, threshold)
        np.testing.assert_allclose(found.images, _by_the_paper(images, threshold), rtol=1e-12)
    assert found.categories[4] == 1 and found.images.max() > 5


def _counts(draws: Draws, start: int, stop: int) -> Counter[int]:
    return Counter(draws.samples(0, start, stop)[0].tolist())


@pytest.mark.parametrize("blocks", [None, Blocks(np.arange(0, 61, 6), 3)])
def test_each_image_comes_as_often_as_its_factor_says(blocks: Blocks | None) -> None:
    factors = np.random.default_rng(0).uniform(1, 4, 60)
    factors[:10], factors[10:12] = 1.0, 3.0
    draws = Draws([Part("all", 0, 60, 1.0, blocks, factors)], seed=5, shuffle=True)
    # The passes, in one row: after any whole number of them each count is within one.
    lengths = [int(draws._before_pass(0, number).sum()) for number in range(8)]
    for number in (1, 2, 7):
        counts = _counts(draws, 0, lengths[number])
        assert all(abs(counts[i] - number * factors[i]) < 1 for i in range(60))
        assert all(counts[i] == number * factors[i] for i in range(12))
    # Cut anywhere, the row is the same, and a sample's appearances are counted through.
    rows, earlier = draws.samples(0, 0, 600)
    pieces = [draws.samples(0, start, start + 37) for start in range(0, 592, 37)]
    np.testing.assert_array_equal(np.concatenate([piece[0] for piece in pieces]), rows[:592])
    np.testing.assert_array_equal(np.concatenate([piece[1] for piece in pieces]), earlier[:592])
    seen: Counter[int] = Counter()
    for row, before in zip(rows.tolist(), earlier.tolist(), strict=True):
        assert before == seen[row]
        seen[row] += 1


def test_over_seeds_the_mean_is_the_factor() -> None:
    factors = np.array([1.0, 1.25, 1.5, 2.75, *[1.0] * 20])
    totals = np.zeros(24)
    for seed in range(400):
        draws = Draws([Part("all", 0, 24, 1.0, None, factors)], seed, shuffle=True)
        totals += draws._before_pass(0, 1)
    np.testing.assert_allclose(totals / 400, factors, atol=0.08)


def _items(
    parts: list[Part], epoch: int, replicas: int = 1, rank: int = 0, start: int = 0, seed: int = 2
) -> list[Item]:
    sampler = MultiScaleSampler(
        Numbers(parts[-1].stop), 4, [(64, 64)], num_replicas=replicas, rank=rank, parts=parts, seed=seed
    )
    sampler.set_epoch(epoch)
    sampler.start = start
    return list(sampler)


def test_processes_seeds_and_continuing_agree() -> None:
    factors = np.linspace(1, 3, 48)
    parts = [Part("all", 0, 48, 48.0, None, factors)]
    alone = _items(parts, 3)
    together = [_items(parts, 3, 2, rank) for rank in (0, 1)]
    # The same images over the epoch; a step of two processes is two steps of one.
    joined = [item for step in range(6) for share in together for item in share[4 * step : 4 * step + 4]]
    assert [(item.index, item.seed) for item in joined] == [(item.index, item.seed) for item in alone]
    assert _items(parts, 3, start=20) == alone[20:] and _items(parts, 3, seed=3) != alone
    # An image that comes twice in a pass is augmented differently each time.
    items = [item for epoch in range(6) for item in _items(parts, epoch)]
    assert len({item.seed for item in items}) == len(items)


def test_mixtures_keep_their_shares_or_grow() -> None:
    parts = [Part("a", 0, 30, 30.0), Part("b", 30, 40, 10.0)]
    factors = np.concatenate([np.ones(30), np.full(10, 2.0)])
    grown = repeated_parts(parts, factors)
    assert [part.share for part in grown] == [30.0, 20.0]
    fixed = repeated_parts([Part("a", 0, 30, 1.0), Part("b", 30, 40, 3.0)], factors)
    assert [part.share for part in fixed] == [1.0, 3.0]
    shares = Counter(item.index >= 30 for epoch in range(5) for item in _items(fixed, epoch))
    assert shares[True] == 3 * shares[False]
    # A class of one part is as rare as the run sees it: b is three quarters of the draws.
    present = [np.array([0])] * 30 + [np.array([1])] * 10
    found = repeat_factors(present, 2, 0.5, image_weights(fixed))
    np.testing.assert_allclose(found.shares, [0.25, 0.75])
    np.testing.assert_allclose(found.images, [math.sqrt(2)] * 30 + [1.0] * 10)


def test_boxes_and_pixels_of_any_source_count() -> None:
    source = Rare(16)
    assert [present.tolist() for present in present_categories(source)] == [
        [0, 1, *([2] if index % 8 == 3 else []), *([3] if index == 5 else [])] for index in range(16)
    ]
    assert source.taxonomy.categories[3].name == "rarer"
    half = Split(source, "b", {"a": ["0", "1"], "b": None})
    assert half.image_categories(1).tolist() == [0, 1, 2]
    other = Rare(4)
    other.taxonomy = Taxonomy.build(things=["other", *THINGS], detected=["other", "common"], stuff=["ground"])
    mixture = Mixture({"a": other, "b": source})
    names = [mixture.taxonomy.categories[i].name for i in mixture.image_categories(4 + 3)]
    assert sorted(names) == ["common", "ground", "rare"]
    with pytest.raises(DataError, match=r"3\.png"):
        present_categories(Rare(8, broken=3))
    assert present_categories(Rare(8, broken=3), tolerant=True)[3].tolist() == []


@pytest.mark.parametrize("semantic", [True, False])
def test_coco_reads_no_image_for_it(tmp_path: Path, semantic: bool) -> None:
    square = [[2.0, 2.0, 9.0, 2.0, 9.0, 9.0, 2.0, 9.0]]
    box = {"bbox": [2, 2, 7, 7], "area": 49, "iscrowd": 0, "segmentation": square}
    crowd = {"bbox": [2, 2, 7, 7], "iscrowd": 1, "segmentation": {"size": [16, 16], "counts": [34, 60, 162]}}
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 16, "height": 16} for i in range(4)],
        "categories": [{"id": 5, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 2, **box},
            {"id": 2, "image_id": 1, "category_id": 5, **box},
            {"id": 3, "image_id": 1, "category_id": 5, **box},
            {"id": 4, "image_id": 2, "category_id": 2, **crowd},
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    for i in range(4):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{i}.png")
    source = CocoInstances(tmp_path, tmp_path / "a.json", semantic=semantic)
    slow = [set(Source.image_categories(source, i).tolist()) for i in range(4)]
    background = 0 if semantic else -1
    for i in range(4):
        (tmp_path / f"{i}.png").unlink()
    assert [set(source.image_categories(i).tolist()) for i in range(4)] == [each - {background} for each in slow]


def _loaded(data: JointDataModule, epochs: int) -> list[Any]:
    loader = data.train_dataloader()
    ids: list[Any] = []
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        ids += [batch.image_ids for batch in loader]
    return ids


def test_the_key_of_the_config(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    def made(**options: Any) -> JointDataModule:
        return JointDataModule(Rare(), size=32, scales=(1.0,), batch_size=4, num_workers=0, seed=1, **options)

    with caplog.at_level("INFO"):
        batches = _loaded(made(repeat_rare=0.5), 12)
    assert "rarer 2.83 times, rare 2.00 times" in caplog.text
    counts = Counter(image for batch in batches for image in batch)
    total = sum(counts.values())
    assert total == 12 * 32  # as many as without
    factors = [2.0 if i % 8 == 3 else math.sqrt(8) if i % 16 == 5 else 1.0 for i in range(32)]
    for image, factor in enumerate(factors):
        assert abs(counts[image] - total * factor / sum(factors)) < 1 + factor
    # Stopped in the middle of an epoch.
    data, again = made(repeat_rare=0.5), made(repeat_rare=0.5)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(2)  # type: ignore[attr-defined]
    batches = list(loader)
    later = again.train_dataloader()
    later.load_state_dict({"epoch": 2, "batches": 3, "length": 8, "images_per_batch": 4})
    later.sampler.set_epoch(2)  # type: ignore[attr-defined]
    rest = list(later)
    assert [batch.image_ids for batch in rest] == [batch.image_ids for batch in batches[3:]]
    assert all(torch.equal(a.images, b.images) for a, b in zip(rest, batches[3:], strict=True))
    for value in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="repeat_rare"):
            made(repeat_rare=value)


def test_processes_read_the_labels_together(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = present_categories(Rare(11))
    monkeypatch.setattr(module, "is_distributed", lambda: True)
    monkeypatch.setattr(module.dist, "get_world_size", lambda: 3)
    parts: list[Any] = []

    def gathered(part: Any, compute: Any) -> Any:
        parts.append(part)
        return compute(parts) if len(parts) == 3 else [np.zeros(0)]

    monkeypatch.setattr(module, "compute_on_first", gathered)
    for rank in range(3):
        monkeypatch.setattr(module.dist, "get_rank", lambda rank=rank: rank)
        found = present_categories(Rare(11))
    assert [len(part) for part in parts] == [4, 4, 3]
    assert [each.tolist() for each in found] == [each.tolist() for each in whole]
