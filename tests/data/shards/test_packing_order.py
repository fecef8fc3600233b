"""Reading in runs: every sample once, few shards at a time, the same whatever the workers."""

from __future__ import annotations

import multiprocessing
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.data.loading.aspect_groups import Aspects
from ocrnet_pl.data.loading.block_order import windowed
from ocrnet_pl.data.loading.dataset import PreparedDataset
from ocrnet_pl.data.loading.samplers import EvaluationSampler, MultiScaleSampler
from ocrnet_pl.data.records import Blocks, Part
from ocrnet_pl.data.shards.source import Packed
from ocrnet_pl.data.sources.wrappers.mixture import Mixture
from ocrnet_pl.data.sources.wrappers.partial import Partial
from ocrnet_pl.data.sources.wrappers.split import Split
from ocrnet_pl.data.sources.wrappers.tiled import Tiled
from tests.helpers.packed_data import Numbered, packed_folder, served


def blocks_of(lengths: list[int], window: int) -> Blocks:
    return Blocks(np.cumsum([0, *lengths]), window)


def in_use(samples: NDArray[np.int64], blocks: Blocks) -> NDArray[np.int64]:
    """Return how many blocks are between their first and their last use, by a plain loop."""
    owners = [max(b for b in range(len(blocks.bounds) - 1) if blocks.bounds[b] <= sample) for sample in samples]
    counts = np.zeros(len(samples), dtype=np.int64)
    for block in set(owners):
        places = [place for place, owner in enumerate(owners) if owner == block]
        counts[places[0] : places[-1] + 1] += 1
    return counts


@pytest.mark.parametrize("lengths", [[10] * 30, [7, 13, 10, 1, 12] * 6])
@pytest.mark.parametrize("window", [1, 4])
def test_few_blocks_are_in_use_and_they_are_mixed(lengths: list[int], window: int) -> None:
    blocks = blocks_of(lengths, window)
    order = windowed(blocks, np.random.default_rng(3))
    assert sorted(order) == list(range(sum(lengths)))
    used = in_use(order, blocks)
    assert used.max() <= window + 2 and used.mean() <= window + 1
    if window > 1:
        assert used.mean() > window / 2  # mixed, also at the ends
        assert np.quantile(used[10:-10], 0.1) >= window // 2
    assert not np.array_equal(order, windowed(blocks, np.random.default_rng(4)))


def test_a_window_of_all_blocks_is_a_plain_shuffle() -> None:
    """Each sample comes at each place about as often as at any other."""
    blocks = blocks_of([3, 2, 3], 3)
    counts = np.zeros((8, 8))
    for seed in range(4000):
        counts[windowed(blocks, np.random.default_rng(seed)), np.arange(8)] += 1
    assert np.abs(counts / 500 - 1).max() < 0.2


def samplers(replicas: int, blocks: Blocks | None, **options: Any) -> list[MultiScaleSampler]:
    count = options.pop("count", 300)
    return [
        MultiScaleSampler(
            range(count),  # type: ignore[arg-type]
            4,
            [(32, 32), (64, 64)],
            num_replicas=replicas,
            rank=rank,
            seed=5,
            blocks=blocks,
            **options,
        )
        for rank in range(replicas)
    ]


@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize("drop_last", [True, False])
def test_processes_share_an_epoch_and_keep_to_shards_of_their_own(replicas: int, drop_last: bool) -> None:
    blocks = blocks_of([10] * 30, 3)
    for epoch in (0, 1):
        seen: list[list[int]] = []
        for sampler in samplers(replicas, blocks, drop_last=drop_last):
            sampler.set_epoch(epoch)
            items = list(sampler)
            assert len(items) == len(sampler)
            seen.append([item.index for item in items])
            assert len({index // 10 for index in seen[-1]}) <= 30 / replicas + 2
            assert in_use(np.array(seen[-1]), blocks).mean() <= 4
            # What is fetched ahead is what comes a shard later.
            assert [item.ahead for item in items] == [*seen[-1][10:], *[-1] * 10]
            sampler.start = 5 * sampler.batch_size
            assert list(sampler) == items[20:]
        every = list(chain(*seen))
        full = 300 // (4 * replicas) * 4 * replicas
        assert len({len(own) for own in seen}) == 1
        assert len(set(every)) == (full if drop_last else 300)
        assert len(every) == (full if drop_last else -(-300 // replicas) * replicas)


def test_the_order_changes_with_the_epoch_and_sizes_agree() -> None:
    one, two = samplers(2, blocks_of([10] * 30, 3))
    first = list(one)
    assert [item.size for item in first] == [item.size for item in two]
    one.set_epoch(1)
    assert [item.index for item in first] != [item.index for item in one]


@pytest.mark.parametrize("replicas", [1, 2])
def test_groups_of_aspect_ratios_stay_within_windows(replicas: int) -> None:
    blocks = blocks_of([20] * 30, 3)
    groups = np.random.default_rng(0).integers(0, 2, 600)
    aspects = Aspects(groups=groups, sizes=[[(32, 64)] * 2, [(64, 32)] * 2])
    seen = [list(sampler) for sampler in samplers(replicas, blocks, aspects=aspects, count=600)]
    every = [item.index for own in seen for item in own]
    assert len(set(every)) == len(every) == 600 // (4 * replicas) * 4 * replicas
    steps = [[item for own in seen for item in own[at : at + 4]] for at in range(0, len(seen[0]), 4)]
    mixed = sum(len({int(groups[item.index]) for item in step}) > 1 for step in steps)
    assert mixed <= len(steps) / 5  # one border of groups in each window
    assert all(len({item.size for item in step}) == 1 for step in steps)
    assert in_use(np.array([item.index for item in seen[0]]), blocks).mean() <= 8


def test_parts_have_windows_of_their_own() -> None:
    parts = (
        Part("a", 0, 200, 1.0, blocks_of([10] * 20, 2)),
        Part("b", 200, 300, 1.0),
    )
    (sampler,) = samplers(1, None, parts=parts)
    items = list(sampler)
    own = np.array([item.index for item in items if item.index < 200])
    assert len(own) == 150 == len(set(own.tolist()))
    assert in_use(own, parts[0].blocks).mean() <= 3  # type: ignore[arg-type]
    for start in range(0, len(items), 4):
        assert sum(item.index < 200 for item in items[start : start + 4]) == 2


def test_evaluation_comes_in_order_and_is_fetched_ahead() -> None:
    sampler = EvaluationSampler(range(50), (8, 8), blocks=blocks_of([10] * 5, 2))  # type: ignore[arg-type]
    assert [(item.index, item.ahead) for item in sampler] == [(i, i + 10 if i < 40 else -1) for i in range(50)]
    assert {item.ahead for item in EvaluationSampler(range(50), (8, 8))} == {-1}  # type: ignore[arg-type]


def module(source: Any, workers: int, share: tuple[int, int] = (1, 0)) -> JointDataModule:
    made = JointDataModule(source, source, size=32, scales=[1.0, 2.0], batch_size=3, num_workers=workers, seed=2)
    made._share = lambda: share  # type: ignore[method-assign]
    return made


def batches(made: JointDataModule, epoch: int = 0, done: int | None = None) -> list[tuple[list[Any], int]]:
    """Return ids and a checksum of the pixels of each batch."""
    loader = made.train_dataloader()
    loader.sampler.set_epoch(epoch)
    if done is not None:
        loader.load_state_dict({"epoch": epoch, "batches": done})
    return [(batch.image_ids, int(batch.images.long().sum())) for batch in loader]


def test_the_order_does_not_depend_on_the_workers_and_goes_on_in_the_middle(tmp_path: Path) -> None:
    source = Packed(packed_folder(tmp_path / "packed"), cache=tmp_path / "cache", window=2)
    whole = batches(module(source, 0), epoch=1)
    assert len(whole) == 6
    for workers in (1, 2):
        assert batches(module(source, workers), epoch=1) == whole
    assert batches(module(source, 1), epoch=1, done=4) == whole[4:]
    assert batches(module(source, 0)) != whole


def _epoch(rank: int, address: str, cache: Path, seen: Any) -> None:
    made = module(Packed(address, cache=cache, window=2), 1, (2, rank))
    seen.put((rank, batches(made), [batch.image_ids for batch in made.val_dataloader()]))


def test_two_processes_see_each_sample_once_and_fetch_each_shard_once(tmp_path: Path) -> None:
    """Two training processes on one machine, each with a worker, start at the same time with an empty cache."""
    folder = packed_folder(tmp_path / "packed", Numbered(length=24))
    context = multiprocessing.get_context("fork")
    seen = context.Queue()
    with served(folder) as (address, counts):
        ranks = [context.Process(target=_epoch, args=(r, address, tmp_path / "cache", seen)) for r in range(2)]
        for process in ranks:
            process.start()
        results = sorted(seen.get(timeout=120) for _ in ranks)
        for process in ranks:
            process.join()
    for rank, train, _ in results:
        assert train == batches(module(Packed(folder, window=2), 0, (2, rank)))
        assert len(train) == 4
    assert sorted(chain(*(ids for _, train, _ in results for ids, _ in train))) == list(range(24))
    assert sorted(chain(*(ids for _, _, val in results for ids in val))) == list(range(24))
    assert {name: count for name, count in counts.items() if name != "packed.json"} == {
        path.name: 1 for path in folder.iterdir() if path.name != "packed.json"
    }


def test_a_mixture_of_packed_sets(tmp_path: Path) -> None:
    packed = Packed(packed_folder(tmp_path / "a", Numbered(length=24)), window=1)
    mixture = Mixture({"near": Numbered(length=12), "packed": packed}, {"near": 1.0, "packed": 2.0})
    for ids, _ in batches(module(mixture, 0)):
        assert sum(str(name).startswith("packed/") for name in ids) == 2


def test_partners_for_mixing_are_of_the_same_shard(tmp_path: Path) -> None:
    packed = Packed(packed_folder(tmp_path / "a", Numbered(length=24)))
    bounds = packed.blocks.bounds  # type: ignore[union-attr]
    mixture = Mixture({"near": Numbered(length=12), "packed": packed})
    for source, parts, offset in ((packed, (), 0), (mixture, mixture.parts, 12)):
        dataset = PreparedDataset(source, (8, 8), parts=parts)
        for index in range(24):
            block = int(np.searchsorted(bounds, index, side="right")) - 1
            found = {dataset.partner(offset + index, draw) - offset for draw in range(100)}
            assert found == set(range(bounds[block], bounds[block + 1]))
    assert {dataset.partner(3, draw) for draw in range(100)} == set(range(12))


def test_what_comes_later_is_announced_through_all_sources() -> None:
    announced: list[int] = []

    class Listening(Numbered):
        @property
        def blocks(self) -> Blocks:
            return blocks_of([4] * 6, 2)

        def expect(self, index: int) -> None:
            announced.append(index)

    source = Listening(length=24)
    sampler = MultiScaleSampler(source, 4, [(32, 32)], blocks=source.blocks)
    dataset = PreparedDataset(source, (32, 32))
    items = list(sampler)
    for item in items:
        dataset[item]
    assert announced == [item.ahead for item in items if item.ahead >= 0] == [item.index for item in items][4:]
    announced.clear()
    split = Split(source, "a", {"a": [str(i) for i in range(1, 24, 2)], "b": None})
    Partial(split).expect(3)
    Mixture({"other": Numbered(length=5), "own": source}).expect(7)
    Tiled(source, size=16, overlap=0.25).expect(9)
    assert announced == [7, 2, 2]  # four tiles an image
