"""Who reads what, when, and at which size."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from torch.utils.data import Dataset

from ocrnet_pl.data.loading.aspect_groups import aspect_sizes, group_by_aspect
from ocrnet_pl.data.loading.samplers import EvaluationSampler, Item, MultiScaleSampler, scaled_sizes
from ocrnet_pl.data.loading.stratified_order import turns
from ocrnet_pl.data.randomness import item_seed
from ocrnet_pl.data.records import Part

SIZES = [(64, 64), (96, 96), (128, 160)]


class Numbers(Dataset[int]):
    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length


def _epoch(length: int, epoch: int = 0, batch_size: int = 4, **options: int) -> list[Item]:
    sampler = MultiScaleSampler(Numbers(length), batch_size, SIZES, **options)
    sampler.set_epoch(epoch)
    items = list(sampler)
    assert len(items) == len(sampler)
    return items


def _batches(items: list[Item], batch_size: int = 4) -> list[list[Item]]:
    return [items[start : start + batch_size] for start in range(0, len(items), batch_size)]


def test_one_size_a_batch_and_all_sizes_in_turn() -> None:
    items = [item for epoch in range(5) for item in _epoch(40, epoch)]
    assert all(len({item.size for item in batch}) == 1 for batch in _batches(items))
    assert {item.size for item in items} == set(SIZES)


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_processes_agree_on_sizes_and_share_the_images(replicas: int) -> None:
    shares = [_epoch(50, 3, num_replicas=replicas, rank=rank, seed=9) for rank in range(replicas)]
    sizes = [[batch[0].size for batch in _batches(share)] for share in shares]
    assert all(size == sizes[0] for size in sizes)
    counts = Counter(item.index for share in shares for item in share)
    assert set(counts.values()) == {1}
    assert len(counts) == 50 // (4 * replicas) * 4 * replicas  # whole batches only


def test_epochs_and_seeds_differ_and_repeat() -> None:
    assert _epoch(40, 1) == _epoch(40, 1)
    for other in (_epoch(40, 2), _epoch(40, 1, seed=1)):
        assert [item.index for item in other] != [item.index for item in _epoch(40, 1)]
        assert {item.seed for item in other}.isdisjoint({item.seed for item in _epoch(40, 1)})


def test_the_random_stream_of_an_image_does_not_depend_on_the_processes() -> None:
    alone = {item.index: item.seed for item in _epoch(40, 2)}
    for rank in range(2):
        for item in _epoch(40, 2, num_replicas=2, rank=rank):
            assert alone[item.index] == item.seed


@pytest.mark.parametrize(("length", "replicas", "expected"), [(3, 1, 3), (3, 2, 2), (1, 4, 1), (9, 2, 4)])
def test_less_than_a_batch_is_not_dropped(length: int, replicas: int, expected: int) -> None:
    shares = [_epoch(length, num_replicas=replicas, rank=rank) for rank in range(replicas)]
    assert [len(share) for share in shares] == [expected] * replicas
    if length < 9:
        assert {item.index for share in shares for item in share} == set(range(length))


def test_keeping_the_rest() -> None:
    items = _epoch(10, drop_last=False)
    assert sorted(item.index for item in items) == list(range(10))
    assert [len(batch) for batch in _batches(items)] == [4, 4, 2]


@pytest.mark.parametrize(("length", "replicas"), [(7, 1), (7, 2), (7, 3), (2, 5), (0, 2)])
def test_evaluation_sees_each_image_once(length: int, replicas: int) -> None:
    samplers = [EvaluationSampler(Numbers(length), (64, 64), num_replicas=replicas, rank=r) for r in range(replicas)]
    for sampler in samplers:
        sampler.set_epoch(5)
        assert len(sampler) == len(list(sampler))
    items = [item for sampler in samplers for item in sampler]
    assert sorted(item.index for item in items if item.counted) == list(range(length))
    if length:
        assert all(len(sampler) >= 1 for sampler in samplers)  # so that no process waits for the others for ever
    assert sum(not item.counted for item in items) == (max(0, replicas - length) if length else 0)


def test_prediction_needs_no_filling() -> None:
    assert list(EvaluationSampler(Numbers(1), (64, 64), num_replicas=2, rank=1, fill=False)) == []


def test_seeds_do_not_collide() -> None:
    seeds = {item_seed(seed, epoch, index) for seed in range(10) for epoch in range(10) for index in range(200)}
    assert len(seeds) == 10 * 10 * 200
    assert min(seeds) >= 0 and max(seeds) < 2**63


def test_sizes_are_rounded_to_multiples() -> None:
    assert scaled_sizes((256, 256), [0.75, 1.0, 1.25]) == [(192, 192), (256, 256), (320, 320)]
    assert scaled_sizes((200, 300), [1.0]) == [(200, 300)]
    assert scaled_sizes((200, 300), [0.5]) == [(96, 160)]
    assert scaled_sizes((64, 64), [0.1, 0.2, 0.9, 1.1]) == [(32, 32), (64, 64)]
    for scales in ([], [0.0], [1.0, -1.0]):
        with pytest.raises(ValueError, match="scales"):
            scaled_sizes((64, 64), scales)


def test_options_out_of_range() -> None:
    with pytest.raises(ValueError, match="sizes"):
        MultiScaleSampler(Numbers(3), 2, [])
    with pytest.raises(ValueError, match="batch size"):
        MultiScaleSampler(Numbers(3), 0, SIZES)


SHARES = {"a": 3.0, "b": 1.0, "c": 0.7}


def _parts(shares: dict[str, float], lengths: list[int]) -> list[Part]:
    starts = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    return [Part(n, starts[i], starts[i + 1], s) for i, (n, s) in enumerate(shares.items())]


def _mixed(parts: list[Part], epoch: int, batch_size: int, replicas: int = 1, **options: Any) -> list[list[Item]]:
    shares = []
    for rank in range(replicas):
        sampler = MultiScaleSampler(
            Numbers(parts[-1].stop), batch_size, SIZES, num_replicas=replicas, rank=rank, parts=parts, **options
        )
        sampler.set_epoch(epoch)
        shares.append(list(sampler))
        assert len(shares[-1]) == len(sampler)
    return shares


@pytest.mark.parametrize("shares", [[1, 1], [3, 1], [1, 2, 5], [0.7, 0.2, 0.1], [1 / 3, 2 / 3], [5, 3, 2, 1, 1, 1]])
def test_turns_are_never_a_whole_turn_off(shares: list[float]) -> None:
    order = turns(shares)
    counts = np.zeros(len(shares))
    exact = np.array(shares) / sum(shares)
    for number, chosen in enumerate(np.tile(order, 3)[:3000].tolist(), 1):
        counts[chosen] += 1
        assert (np.abs(counts - number * exact) < 1).all()


def test_whole_shares_are_exact_in_every_batch_of_every_process() -> None:
    parts = _parts({"a": 0.5, "b": 0.25, "c": 0.25}, [7, 40, 13])
    for epoch in range(3):
        for share in _mixed(parts, epoch, 8, 2):
            for batch in _batches(share, 8):
                assert [sum(p.start <= i.index < p.stop for i in batch) for p in parts] == [4, 2, 2]


def test_other_shares_are_exact_over_batches() -> None:
    """Over any run of batches of the whole run, epochs and processes included."""
    parts = _parts(SHARES, [50, 20, 30])
    counts, exact, seen = np.zeros(3), np.array([*SHARES.values()]) / sum(SHARES.values()), 0
    for epoch in range(4):
        first, second = (_batches(share, 7) for share in _mixed(parts, epoch, 7, 2))
        for pair in zip(first, second, strict=True):
            for batch in pair:
                own = np.array([sum(p.start <= i.index < p.stop for i in batch) for p in parts])
                counts, seen = counts + own, seen + len(batch)
                assert (np.abs(counts - seen * exact) < 1).all()
                assert (np.abs(own - len(batch) * exact) < 2).all()


def test_each_part_is_gone_through_before_it_comes_again() -> None:
    parts = _parts({"a": 1.0, "b": 1.0}, [6, 30])
    epochs = [_mixed(parts, epoch, 4)[0] for epoch in range(10)]
    for part in parts:
        drawn = [i.index for items in epochs for i in items if part.start <= i.index < part.stop]
        length = part.stop - part.start
        for start in range(0, len(drawn) - length + 1, length):
            assert sorted(drawn[start : start + length]) == list(range(part.start, part.stop))
        assert drawn[:length] != drawn[length : 2 * length]
    seeds = [(i.index, i.seed) for items in epochs for i in items]
    assert len(set(seeds)) == len(seeds)  # an image that comes again is augmented anew


def test_processes_share_a_mixture_without_overlap() -> None:
    parts = _parts({"a": 1.0, "b": 1.0}, [60, 60])
    alone = _mixed(parts, 2, 4, 3)
    assert [[b[0].size for b in _batches(share)] for share in alone[1:]] == [
        [b[0].size for b in _batches(alone[0])]
    ] * 2
    used = Counter(i.index for share in alone for i in share)
    assert set(used.values()) == {1} and alone == _mixed(parts, 2, 4, 3)
    assert alone != _mixed(parts, 2, 4, 3, seed=1)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("replicas", [1, 2])
def test_batches_of_one_aspect(mixed: bool, replicas: int) -> None:
    rng = np.random.default_rng(0)
    shapes = np.array([(480, 640), (640, 480), (500, 500), (300, 900)])
    image_sizes = shapes[rng.integers(4, size=203)].astype(np.int32)
    ratios = [0.75, 1.0, 1.333, 3.0]
    aspects = group_by_aspect(image_sizes, (256, 256), [0.75, 1.0], ratios)
    parts = _parts({"a": 1.0, "b": 1.0}, [100, 103]) if mixed else []
    sizes = [(192, 192), (256, 256)]
    for epoch in range(3):
        shares = []
        for rank in range(replicas):
            sampler = MultiScaleSampler(
                Numbers(203), 4, sizes, num_replicas=replicas, rank=rank, parts=parts, aspects=aspects
            )
            sampler.set_epoch(epoch)
            shares.append(_batches(list(sampler)))
        assert len({len(share) for share in shares}) == 1 and len(shares[0]) == 203 // (4 * replicas)
        off = 0
        for step in zip(*shares, strict=True):
            assert len({item.size for batch in step for item in batch}) == 1
            height, width = step[0][0].size
            group = int(np.argmin([abs(np.log(width / height / ratio)) for ratio in ratios]))
            off += any(aspects.groups[item.index] != group for batch in step for item in batch)
            if mixed:
                for batch in step:
                    assert sum(item.index < 100 for item in batch) == 2
        # Groups are dealt out one after the other: only where one ends and the next begins, a step has two. The
        # sources of a mixture have their ends at different steps.
        assert off <= (len(ratios) - 1) * (6 if mixed else 1)
        used = Counter(item.index for share in shares for batch in share for item in batch)
        assert max(used.values()) <= (2 if mixed else 1)
        first = [batch[0].size for batch in shares[0]]
        assert first != sorted(first) and len(set(first)) >= 6


def test_sizes_of_equal_area() -> None:
    for size in (row for group in aspect_sizes((512, 512), [1.0], [0.5, 0.75, 1.0, 1.5, 2.0]) for row in group):
        assert size[0] % 32 == size[1] % 32 == 0 and 0.85 < size[0] * size[1] / 512**2 < 1.15
    assert aspect_sizes((256, 256), [1.0], [4.0]) == [[(128, 512)]]
    assert group_by_aspect(
        np.array([[0, 0], [10, 40]], dtype=np.int32), (64, 64), [1.0], [4.0, 1.0]
    ).groups.tolist() == [
        1,
        0,
    ]
    for ratios in ([], [0.0], [float("nan")]):
        with pytest.raises(ValueError, match="aspect_ratios"):
            aspect_sizes((64, 64), [1.0], ratios)


@pytest.mark.parametrize("parts", [[], _parts(SHARES, [20, 20, 20])])
def test_starting_in_the_middle_gives_the_batches_that_follow(parts: list[Part]) -> None:
    whole = _mixed(parts, 3, 4)[0] if parts else _epoch(60, 3)
    sampler = MultiScaleSampler(Numbers(60), 4, SIZES, parts=parts)
    sampler.set_epoch(3)
    sampler.start = 5 * sampler.batch_size
    assert list(sampler) == whole[20:]


def test_plain_epochs() -> None:
    sampler = MultiScaleSampler(Numbers(8), 4, SIZES, plain_from=2)
    for epoch in range(4):
        sampler.set_epoch(epoch)
        assert {item.plain for item in sampler} == {epoch >= 2}
