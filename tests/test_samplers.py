"""Who reads what, when, and at which size."""

from __future__ import annotations

from collections import Counter

import pytest
from torch.utils.data import Dataset

from ocrnet_pl.data.samplers import EvaluationSampler, Item, MultiScaleSampler, item_seed, scaled_sizes

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
