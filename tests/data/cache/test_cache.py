"""The cache: what comes out is what went in, whoever wrote it, and whoever was killed."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ocrnet_pl.data.cache import shared_cache as cache_module
from ocrnet_pl.data.cache.content_hash import source_digest
from ocrnet_pl.data.cache.shared_cache import Cached, CacheOptions
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.data.records import make_sample
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.imaging.geometry import letterbox_sample
from ocrnet_pl.imaging.images import read_image
from ocrnet_pl.structures import Sample, Supervision, Taxonomy

_fork = multiprocessing.get_context("fork")


class _Files(Source):
    """Image files with drawn labels; counts its reads over all processes."""

    def __init__(self, folder: Path, count: int = 6, seed: int = 0, maps: bool = True) -> None:
        self.folder, self.count, self.seed, self.maps = folder, count, seed, maps
        folder.mkdir(exist_ok=True)
        for i in range(count):
            if not self.path(i).exists():
                pixels = np.random.default_rng(i).integers(0, 256, (40 + i, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(self.path(i))

    def path(self, index: int) -> Path:
        return self.folder / f"{index}.png"

    @property
    def taxonomy(self) -> Taxonomy:
        return Taxonomy.build(things=["a", "b"], stuff=["c"])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        with open(self.folder.parent / "reads", "a") as file:
            file.write(f"{index}\n")
        image = read_image(self.path(index))
        size = (int(image.shape[1]), int(image.shape[2]))
        random = np.random.default_rng([self.seed, index])
        n = index % 3
        return make_sample(
            image,
            boxes=random.random((n, 4)),
            labels=random.integers(0, 2, n),
            crowd=random.integers(0, 2, n),
            semantic=random.integers(0, 3, size, dtype=np.uint8) if self.maps else None,
            instances=random.integers(0, n + 1, size, dtype=np.int32) if self.maps else None,
            supervision=Supervision(torch.tensor([True, False]), torch.tensor([True, False, True])),
            image_id=f"é{index}" if index % 2 else index,
            path=str(self.path(index)),
        )

    @property
    def reads(self) -> int:
        path = self.folder.parent / "reads"
        return len(path.read_text().split()) if path.exists() else 0


def _assert_same(one: Sample, two: Sample) -> None:
    for name in ("image", "boxes", "labels", "crowd", "semantic", "instances"):
        first, second = getattr(one, name), getattr(two, name)
        assert type(first) is type(second), name
        if first is not None:
            assert first.dtype == second.dtype and torch.equal(first, second), name
    assert torch.equal(one.supervision.detection, two.supervision.detection)
    assert torch.equal(one.supervision.semantic, two.supervision.semantic)
    assert one.boxes.canvas_size == two.boxes.canvas_size
    assert (one.image_id, one.path, one.placement) == (two.image_id, two.path, two.placement)


@pytest.fixture
def disk(tmp_path: Path) -> CacheOptions:
    return CacheOptions(folder=str(tmp_path / "cache"))


@pytest.mark.parametrize("maps", [True, False])
@pytest.mark.parametrize("where", ["disk", "memory"])
def test_samples_come_out_as_they_went_in(
    tmp_path: Path, disk: CacheOptions, where: str, maps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_shared_root", lambda: tmp_path / "memory")
    source = _Files(tmp_path / "images", maps=maps)
    cached = Cached(source, disk if where == "disk" else None)
    for _ in range(2):
        for i in range(len(source)):
            _assert_same(cached[i], source[i])
    assert source.reads == 3 * len(source)  # twice for the comparison, once for the cache
    sample = cached[1]
    del cached
    assert (tmp_path / "memory").exists() == (where == "memory")
    if where == "memory":
        assert list((tmp_path / "memory").iterdir()) == []  # the last one to leave removed it
    _assert_same(sample, source[1])  # and what was given out lives on


def test_kept_for_the_next_run_on_disk(tmp_path: Path, disk: CacheOptions) -> None:
    source = _Files(tmp_path / "images")
    for sample in map(Cached(source, disk).__getitem__, range(6)):
        assert sample is not None
    _assert_same(Cached(_Files(tmp_path / "images"), disk)[3], source[3])
    assert source.reads == 7
    Cached(_Files(tmp_path / "images", seed=1), disk)[3]  # another option is another source
    assert source.reads == 8


def test_a_changed_file_is_read_anew(tmp_path: Path, disk: CacheOptions) -> None:
    source = _Files(tmp_path / "images")
    cached = Cached(source, disk)
    before = cached[2]
    Image.fromarray(np.full((42, 50, 3), 7, dtype=np.uint8)).save(source.path(2))
    assert cached[2].image.unique().tolist() == [7] and len(before.image.unique()) > 200
    assert cached[2].image.unique().tolist() == [7] and source.reads == 2


def test_full_cache_stays_within_its_bound(tmp_path: Path, disk: CacheOptions) -> None:
    source = _Files(tmp_path / "images", count=12)
    options = CacheOptions(folder=disk.folder, max_gb=70_000 / 1e9)
    cached = Cached(source, options)
    for _ in range(3):
        for i in range(12):
            _assert_same(cached[i], source[i])
    (data,) = Path(str(disk.folder)).glob("*/data")
    assert 30_000 < data.stat().st_size <= 70_000
    missed = (source.reads - 36 - 12) // 2  # all are read for the comparisons, and once for the cache
    assert 0 < missed < 12
    with pytest.raises(ValueError, match="max_gb"):
        CacheOptions(max_gb=0)
    with pytest.raises(ValueError, match="max_side"):
        CacheOptions(max_side=0)


def test_full_disk_ends_the_filling(tmp_path: Path, disk: CacheOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    source = _Files(tmp_path / "images")
    cached = Cached(source, disk)
    monkeypatch.setattr(cache_module, "_pwrite", full)
    _assert_same(cached[0], source[0])
    _assert_same(cached[0], source[0])


def _in_process(function: Callable[..., None], *args: Any) -> None:
    process = _fork.Process(target=_one_thread, args=(function, *args))
    process.start()
    process.join(30)
    assert process.exitcode == 0


def _one_thread(function: Callable[..., None], *args: Any) -> None:
    """Call a function in a forked process, where the threads of PyTorch's pool are missing and would be waited for."""
    torch.set_num_threads(1)
    function(*args)


def _read_all(cached: Cached, order: list[int]) -> None:
    for i in order:
        _assert_same(cached[i], cached.source[i])


def test_two_processes_share_it(tmp_path: Path, disk: CacheOptions) -> None:
    source = _Files(tmp_path / "images", count=20)
    cached = Cached(source, disk)
    # Forked workers that share the open files, filling at the same time, and a process of its own.
    processes = [_fork.Process(target=_one_thread, args=(_read_all, cached, list(range(k, 20, 2)))) for k in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert source.reads == 40
    other: Cached = pickle.loads(pickle.dumps(cached))
    _in_process(_read_all, other, list(range(20)))
    assert source.reads == 60
    _read_all(cached, list(range(20)))
    assert source.reads == 80


def _fill_for_ever(folder: Path, options: CacheOptions, ready: Any) -> None:
    cached = Cached(_Files(folder, count=40), options)
    ready.set()
    while True:
        for i in range(40):
            os.utime(folder / f"{i}.png")
            cached[i]


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.05, 0.2])
def test_killed_writer(tmp_path: Path, disk: CacheOptions, delay: float) -> None:
    ready = _fork.Event()
    writer = _fork.Process(target=_one_thread, args=(_fill_for_ever, tmp_path / "images", disk, ready))
    writer.start()
    assert ready.wait(30)
    time.sleep(delay)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    source = _Files(tmp_path / "images", count=40)
    cached = Cached(source, disk)
    for i in range(40):
        _assert_same(cached[i], source[i])


def test_half_an_entry_is_never_read(tmp_path: Path, disk: CacheOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def half(file: int, content: bytes, offset: int) -> None:
        os.pwrite(file, content[: len(content) // 2], offset)
        raise Killed

    source = _Files(tmp_path / "images")
    cached = Cached(source, disk)
    cached[0]
    (data,) = Path(str(disk.folder)).glob("*/data")
    size = data.stat().st_size
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(cache_module, "_pwrite", half)
        cached[1]
    assert data.stat().st_size > size
    _assert_same(cached[1], source[1])
    del cached
    index = data.with_name("index")
    row = cache_module._HEADER + cache_module._ROW
    torn = bytearray(index.read_bytes())
    torn[row + 20] ^= 1
    index.write_bytes(torn)  # a row that was being written
    reads = source.reads
    again = Cached(source, disk)
    assert data.stat().st_size == size  # what no row points to was taken back
    _assert_same(again[1], source[1])
    assert source.reads == reads + 2


def test_data_lost_in_a_power_cut_is_noticed(
    tmp_path: Path, disk: CacheOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _Files(tmp_path / "images")
    cached = Cached(source, disk)
    cached[0], cached[1]
    del cached
    (data,) = Path(str(disk.folder)).glob("*/data")
    content = bytearray(data.read_bytes())
    content[5000:6000] = bytes(1000)
    data.write_bytes(content)
    monkeypatch.setattr(cache_module, "_boot", lambda: 12345)
    again = Cached(source, disk)
    reads = source.reads
    _assert_same(again[0], source[0])
    assert source.reads == reads + 2
    _assert_same(again[1], source[1])
    assert source.reads == reads + 3


def test_leftovers_in_shared_memory_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_shared_root", lambda: tmp_path / "memory")

    def die(folder: Path) -> None:
        cached = Cached(_Files(folder))
        cached[0]
        os.kill(os.getpid(), signal.SIGKILL)

    killed = _fork.Process(target=_one_thread, args=(die, tmp_path / "images"))
    killed.start()
    killed.join(30)
    (left,) = (tmp_path / "memory").iterdir()
    used = Cached(_Files(tmp_path / "images", seed=1))
    other = Cached(_Files(tmp_path / "images", seed=2))
    assert not left.exists() and len(list((tmp_path / "memory").iterdir())) == 2
    _assert_same(used[0], used.source[0])
    _assert_same(other[0], other.source[0])


def test_smaller_samples_for_training(tmp_path: Path, disk: CacheOptions) -> None:
    source = _Files(tmp_path / "images")
    cached = Cached(source, CacheOptions(folder=disk.folder, max_side=25))
    for _ in range(2):
        sample = cached[2]
        assert sample.size == (21, 25)
        _assert_same(sample, letterbox_sample(source[2], (21, 25)))
    module = JointDataModule(source, source, cache=CacheOptions(folder=disk.folder, max_side=25), num_workers=0)
    assert isinstance(module.train, Cached) and isinstance(module.val, Cached)
    assert module.train[2].size == (21, 25) and module.val[2].size == (42, 50)


def test_writing_into_a_sample_does_not_reach_the_cache(tmp_path: Path, disk: CacheOptions) -> None:
    source = _Files(tmp_path / "images")
    cached = Cached(source, disk)
    cached[0]
    cached[0].image.zero_()
    _in_process(_read_all, pickle.loads(pickle.dumps(cached)), [0])


class _Shift:
    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, value: int) -> int:
        return value + self.by


def test_what_a_source_calls_is_part_of_its_name(tmp_path: Path) -> None:
    def digest(call: Any) -> str:
        source = _Files(tmp_path / "images")
        source.call = call  # type: ignore[attr-defined]
        return source_digest(source)

    calls = [_Shift(1), _Shift(2), partial(max, 1), partial(max, 2), partial(max, key=len), max, len, _Shift, np]
    assert len({digest(call) for call in calls}) == len(calls)
    assert digest(_Shift(1)) == digest(_Shift(1)) and digest(partial(max, 1)) == digest(partial(max, 1))
