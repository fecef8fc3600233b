"""Shards from afar: fetched once for all processes, in a bounded cache, again where they were damaged."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from ocrnet_pl.data.loading.dataset import PreparedDataset
from ocrnet_pl.data.shards import store as packing_cache
from ocrnet_pl.data.shards.shard_cache import ShardCache
from ocrnet_pl.data.shards.source import Packed
from ocrnet_pl.errors import DataError, StoreError
from tests.helpers.packed_data import Numbered, assert_same, packed_folder, served


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing_cache, "_WAIT", 0.01)


def _as_it_is(entry: Any) -> Any:
    return entry


def _room(cache: ShardCache) -> int:
    """Return the bytes of whole and of coming files; one that is just getting its name counts once."""
    sizes: dict[str, int] = {}
    with cache._alone():
        for path in cache.folder.glob("*/*"):
            if path.suffix != ".new":
                with suppress(FileNotFoundError):
                    size = path.stat().st_size
                    sizes[path.name.removesuffix(".part")] = max(size, sizes.get(path.name.removesuffix(".part"), 0))
    return sum(sizes.values())


def test_workers_fetch_each_shard_once(tmp_path: Path) -> None:
    folder = packed_folder(tmp_path / "packed")
    with served(folder) as (address, counts):
        packed = Packed(address, cache=tmp_path / "cache")
        assert_same(packed[0], Numbered()[0])  # the parent has a connection of its own already
        order = np.random.default_rng(0).permutation(20).tolist()
        loader: DataLoader[Any] = DataLoader(
            packed, sampler=order, batch_size=None, num_workers=2, collate_fn=_as_it_is
        )
        for index, sample in zip(order, loader, strict=True):
            assert_same(sample, Numbered()[index])
        again = Packed(address, cache=tmp_path / "cache")
        assert_same(again[7], Numbered()[7])
    shards = {path.name: 1 for path in folder.glob("*.tar")}
    assert dict(counts) == {"packed.json": 2, "index.safetensors": 1, **shards}
    assert not [path for path in (tmp_path / "cache").glob("*/*") if path.suffix in (".part", ".new")]


def _read_at_random(address: str, cache: Path, gigabytes: float, seed: int) -> None:
    packed = Packed(address, cache=cache, cache_gb=gigabytes, window=1)
    for index in np.random.default_rng(seed).integers(20, size=25).tolist():
        packed.expect((index + 7) % 20)
        assert_same(packed[index], Numbered()[index])


def test_the_bound_is_kept_by_many_processes(tmp_path: Path) -> None:
    """Room for three shards of seven, and three processes that read all over the place and fetch ahead."""
    folder = packed_folder(tmp_path / "packed")
    sizes = [path.stat().st_size for path in folder.glob("*.tar")]
    assert len(sizes) > 5
    limit = sum(sorted(sizes)[-3:]) + (folder / "index.safetensors").stat().st_size
    cache = ShardCache(tmp_path / "cache", limit)
    cache.folder.mkdir()
    context = multiprocessing.get_context("fork")
    arguments = (f"file://{folder}", tmp_path / "cache", (limit + 0.5) / 1e9)
    readers = [context.Process(target=_read_at_random, args=(*arguments, seed)) for seed in range(3)]
    for reader in readers:
        reader.start()
    most = 0
    while any(reader.is_alive() for reader in readers):
        most = max(most, _room(cache))
        time.sleep(0.002)
    assert [reader.exitcode for reader in readers] == [0, 0, 0]
    assert limit / 2 < most <= limit and limit / 2 < _room(cache)


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    folder = packed_folder(tmp_path / "packed")
    sizes = sorted(path.stat().st_size for path in folder.glob("*.tar"))
    limit = sum(sizes[-3:]) + (folder / "index.safetensors").stat().st_size
    packed = Packed(folder, cache=tmp_path / "cache", cache_gb=(limit + 0.5) / 1e9, window=1)
    first = [int(start) for start in packed.blocks.bounds[:4]]  # type: ignore[union-attr]
    for place in (0, 1, 2, 0, 3):
        packed[first[place]]
        time.sleep(0.02)
    here = {path.name for path in (tmp_path / "cache").glob("*/*.tar")}
    assert here == {"shard-00000.tar", "shard-00002.tar", "shard-00003.tar"}


def test_what_a_killed_process_left_is_taken_over_or_removed(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, limit=100)
    path = tmp_path / "set" / "a.tar"
    child = os.fork()
    if child == 0:

        def die(target: Path) -> None:
            target.write_bytes(b"half")
            os._exit(9)

        cache.ensure(path, 60, die)
    os.waitpid(child, 0)
    assert path.with_name("a.tar.part").stat().st_size == 60  # its room is still taken
    other = tmp_path / "set" / "b.tar"
    cache.ensure(other, 70, lambda target: target.write_bytes(b"b" * 70) and None)
    assert [item.name for item in path.parent.iterdir()] == ["b.tar"]
    cache.ensure(path, 30, lambda target: target.write_bytes(b"a" * 30) and None)
    assert sorted(item.name for item in path.parent.iterdir()) == ["a.tar", "b.tar"]


def test_a_cache_full_of_indices_says_so(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, limit=100)
    index = tmp_path / "old" / "index.safetensors"
    cache.ensure(index, 60, lambda target: target.write_bytes(b"i" * 60) and None)
    cache.ensure(tmp_path / "set" / "a.tar", 40, lambda target: target.write_bytes(b"a" * 40) and None)
    line = "indices take 6e-08 of 1e-07 GB, and 5e-08 are needed; raise `cache_gb`, or delete"
    with pytest.raises(StoreError, match=line):
        cache.ensure(tmp_path / "set" / "b.tar", 50, lambda target: pytest.fail("fetched"))
    assert index.exists() and not list(tmp_path.glob("*/*.part"))


def test_who_fetches_ahead_does_not_wait(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, limit=100)
    path = tmp_path / "set" / "a.tar"

    def fetch(target: Path) -> None:
        cache.ensure(path, 10, lambda other: pytest.fail("fetched twice"), wait=False)
        target.write_bytes(b"a" * 10)

    cache.ensure(path, 10, fetch)
    assert path.read_bytes() == b"a" * 10


def test_shards_are_fetched_ahead(tmp_path: Path) -> None:
    folder = packed_folder(tmp_path / "packed")
    packed = Packed(folder, cache=tmp_path / "cache")
    packed.expect(19)
    shard = packed._manifest.shards[-1].name
    stop = time.monotonic() + 20
    while not list((tmp_path / "cache").glob(f"*/{shard}")):
        assert time.monotonic() < stop
        time.sleep(0.01)
    assert len(list((tmp_path / "cache").glob("*/*.tar"))) == 1
    thread = packed._store._ahead  # type: ignore[attr-defined]
    thread.join(20)
    assert not thread.is_alive()


def test_a_damaged_copy_is_fetched_again_and_a_damaged_original_named(tmp_path: Path) -> None:
    folder = packed_folder(tmp_path / "packed")
    packed = Packed(folder, cache=tmp_path / "cache")
    assert_same(packed[0], Numbered()[0])
    copy = next((tmp_path / "cache").glob("*/shard-00000.tar"))
    copy.write_bytes(b"\0" * copy.stat().st_size)
    assert_same(packed[0], Numbered()[0])
    original = folder / "shard-00000.tar"
    content = original.read_bytes()
    copy.unlink()
    original.write_bytes(content[:-1] + b"x")
    with pytest.raises(
        DataError, match=r"packed/shard-00000\.tar: its content is not what was packed; upload it again"
    ):
        packed[0]
    original.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"shard-00000\.tar: it has \d+ bytes instead of \d+; upload"):
        packed[0]
    original.unlink()
    with pytest.raises(DataError, match=r"shard-00000\.tar: there is no such file; check the address"):
        packed[0]
    assert not list((tmp_path / "cache").glob("*/*.part"))


def test_a_set_packed_anew_gets_other_copies(tmp_path: Path) -> None:
    folder = packed_folder(tmp_path / "packed")
    Packed(folder, cache=tmp_path / "cache")[0]
    for path in folder.iterdir():
        path.unlink()
    packed_folder(folder, Numbered(side=30))
    assert_same(Packed(folder, cache=tmp_path / "cache")[0], Numbered(side=30)[0])


def test_a_network_that_fails_for_a_while_and_for_good(tmp_path: Path) -> None:
    folder = packed_folder(tmp_path / "packed")
    with served(folder, failures=2) as (address, _):
        packed = Packed(address, cache=tmp_path / "cache")
        assert_same(packed[3], Numbered()[3])
    with pytest.raises(
        DataError, match=r"http://.*/shard-\d+\.tar: it cannot be read \(.*\); check the network"
    ) as error:
        packed[19]
    assert "\n" not in str(error.value)
    with pytest.raises(StoreError, match="check the network"):
        PreparedDataset(packed, (32, 32), tolerant=True)[19]


def test_a_cache_that_cannot_be_written_to(tmp_path: Path) -> None:
    folder = packed_folder(tmp_path / "packed")
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"cache: the cache cannot be written to \(.*\); set `cache` and `cache_gb`"):
        Packed(folder, cache=tmp_path / "cache")
    (tmp_path / "cache").unlink()
    packed = Packed(folder, cache=tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StoreError, match="the cache cannot be written to"):
        PreparedDataset(packed, (32, 32), tolerant=True)[0]


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="s3fs is installed")
def test_an_address_without_its_package() -> None:
    with pytest.raises(DataError, match=r"s3://bucket/train: its file system needs another package \(Install s3fs"):
        Packed("s3://bucket/train")
