"""Decoded samples kept in shared memory or on a disk, for all workers and processes of the machine together.

A cache is a folder of two files. ``data`` contains the samples, one after the other; ``index`` contains one row per
sample, which is written only when the sample is complete, and which has its own checksum. So a process that is killed,
at any moment, leaves at worst some bytes that no row points to, and the next process that opens the cache alone
reclaims them. All writing is done by plain system calls, never through the mapping: a full disk is then an error that
can be handled and that ends the filling, instead of killing the process.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
import tempfile
import weakref
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.cache.content_hash import source_digest
from ocrnet_pl.data.cache.sample_bytes import decode_sample, encode_sample
from ocrnet_pl.data.records import RawBoxes
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.wrappers.base import Wrapped
from ocrnet_pl.imaging.geometry import letterbox_sample
from ocrnet_pl.structures import Sample

_VERSION = 1
_HEADER = 4096
_ROW = 48
_ALIGN = 64
_MAP_NORESERVE = 0x4000  # Linux; the mapping is private only so that a stray write cannot reach the cache


@dataclass(frozen=True)
class CacheOptions:
    """Where decoded samples are kept, and how many.

    Attributes:
        folder: Folder on a local disk where the samples are kept for later runs; null keeps them in shared memory as
            long as the run lasts.
        max_gb: Largest size for each source in gigabytes, above 0. A full cache does not change: every image is read
            once per epoch, so any fixed part serves as well as any other, and replacing entries would only cost time.
            At most half of the free space is used.
        max_side: Longer side in pixels to which larger training images are scaled down before they are kept; null keeps
            them at their size. Evaluation images always keep their size, since the figures are computed at their own
            size.

    Raises:
        ValueError: An option is out of range.
    """

    folder: str | None = None
    max_gb: float = 8.0
    max_side: int | None = None

    def __post_init__(self) -> None:
        if not self.max_gb > 0:
            raise ValueError(f"cache.max_gb: expected a positive number, got {self.max_gb}")
        if self.max_side is not None and self.max_side < 1:
            raise ValueError(f"cache.max_side: expected at least 1, got {self.max_side}")


class Cached(Wrapped):
    """Keeps the decoded samples of another source, for every process of this machine that reads the same one.

    Two sources are the same if everything they contain is: paths, options, annotations. A sample is read again when the
    size or the time of one of its files has changed.

    Args:
        source: Source of the samples.
        options: Where to keep the samples, and how many; None for the defaults.
    """

    def __init__(self, source: Source, options: CacheOptions | None = None) -> None:
        super().__init__(source)
        self.options = options or CacheOptions()
        self._name = source_digest(source, _VERSION, len(source), self.options.max_side)
        self._store: _Store | None = None
        self._open()

    def _open(self) -> _Store:
        if self._store is None:
            shared = self.options.folder is None
            root = _shared_root() if self.options.folder is None else Path(self.options.folder).expanduser()
            self._store = _Store(root / self._name, len(self.source), self.options.max_gb * 1e9, shared)
        return self._store

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the open files; the other process opens the same ones."""
        return self.__dict__ | {"_store": None}

    def image_boxes(self, index: int) -> NDArray[np.float32]:
        """Return the boxes of the source."""
        return self.source.image_boxes(index)

    def image_categories(self, index: int) -> NDArray[np.int64]:
        """Return the categories from the source."""
        return self.source.image_categories(index)

    def raw_boxes(self, index: int) -> RawBoxes | None:
        """Return the stored boxes of the source."""
        return self.source.raw_boxes(index)

    def expect(self, index: int) -> None:
        """Forward it to the source, unless the sample is kept."""
        if not self._open().has(index):
            self.source.expect(index)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample; the tensors of a kept one are in the cache, not copied."""
        store = self._open()
        entry = store.read(index)
        if entry is not None:
            sample, files, stamps = entry
            if stamps == _stamps(files):
                return sample
        # The stamps are taken first: a file that changes while it is read counts as changed.
        files = list(self.source.files(index))
        before = _stamps(files)
        sample = self.source[index]
        if not files:
            files = [sample.path]
            before = _stamps(files)
        side = self.options.max_side
        if side is not None and max(sample.size) > side:
            sample = _shrunk(sample, side)
        store.write(index, sample, files, before)
        return sample


def _shrunk(sample: Sample, side: int) -> Sample:
    factor = side / max(sample.size)
    height, width = (max(1, round(length * factor)) for length in sample.size)
    return letterbox_sample(sample, (height, width))


def _stamps(files: list[str]) -> list[list[int]]:
    """Return time and size of each file; a generated sample has none."""
    stamps = []
    for file in files:
        try:
            stat = os.stat(file)
        except OSError:
            stamps.append([0, 0])
        else:
            stamps.append([stat.st_mtime_ns, stat.st_size])
    return stamps


class _Store:
    """The two files of a cache.

    Every process that uses them holds a shared lock on the folder's ``lock`` file, through the open file that forked
    workers inherit. A process that gets the lock exclusively is alone: it may tidy up, or remove the folder.

    Args:
        folder: Folder of the files; created if necessary.
        count: Number of samples.
        limit: Largest number of bytes.
        temporary: Whether the last process to leave removes the folder.
    """

    def __init__(self, folder: Path, count: int, limit: float, temporary: bool) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if temporary:
            _sweep(folder.parent, folder.name)
        self.folder, self.count, self._temporary = folder, count, temporary
        self._lock = _join(folder)
        size = _HEADER + count * _ROW
        self._index_file = os.open(folder / "index", os.O_RDWR | os.O_CREAT, 0o600)
        self._data_file = os.open(folder / "data", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._lock, fcntl.LOCK_SH)  # the first process has tidied up before this returns
        else:
            self._tidy(size)
            fcntl.flock(self._lock, fcntl.LOCK_SH)
        if os.fstat(self._index_file).st_size < size:  # two processes came at the same time, so neither was alone
            os.ftruncate(self._index_file, size)
        free = shutil.disk_usage(folder).free
        self.limit = int(min(limit, self._tail() + free / 2))
        self._rows = np.frombuffer(mmap.mmap(self._index_file, size, access=mmap.ACCESS_READ), dtype=np.uint8)
        self._data: NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)
        self._full = False
        self._boot = _boot()
        self._verified: set[int] = set()
        self._finalizer = weakref.finalize(
            self, _leave, folder, (self._lock, self._index_file, self._data_file), temporary, os.getpid()
        )

    def _tidy(self, size: int) -> None:
        """Set the index to its size and reclaim what no row points to; called only by a process that is alone."""
        os.ftruncate(self._index_file, size)
        rows = np.frombuffer(os.pread(self._index_file, size, 0), dtype=np.uint8)[_HEADER:].reshape(-1, _ROW)
        kept = os.fstat(self._data_file).st_size
        ends = [end for row in map(_parse, rows) if row is not None and (end := row[0] + row[1]) <= kept]
        tail = max(ends, default=0)
        os.ftruncate(self._data_file, tail)
        os.pwrite(self._index_file, int(tail).to_bytes(8, "little"), 0)

    def _tail(self) -> int:
        return int.from_bytes(os.pread(self._index_file, 8, 0), "little")

    def has(self, index: int) -> bool:
        """Return whether there is a row for a sample."""
        start = _HEADER + index * _ROW
        return _parse(self._rows[start : start + _ROW]) is not None

    def read(self, index: int) -> tuple[Sample, list[str], list[list[int]]] | None:
        """Return a sample and the files it was made from with their stamps; None if there is no complete one."""
        start = _HEADER + index * _ROW
        row = _parse(self._rows[start : start + _ROW])
        if row is None:
            return None
        offset, length, check, boot = row
        if offset + length > len(self._data) and not self._map(offset + length):
            return None
        content = self._data[offset : offset + length]
        if not (self._temporary and boot == self._boot) and index not in self._verified:
            # A power cut may have left the row without its data, and a disk may return something else.
            if zlib.crc32(content.data) != check:
                return None
            self._verified.add(index)
        try:
            return decode_sample(content)
        # Damaged on the disk since it was written: whatever is there now, the sample is read again.
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError, RuntimeError):
            return None

    def _map(self, needed: int) -> bool:
        size = os.fstat(self._data_file).st_size
        if size < needed:
            return False
        flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
        mapping = mmap.mmap(self._data_file, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        self._data = np.frombuffer(mapping, dtype=np.uint8)
        return True

    def write(self, index: int, sample: Sample, files: list[str], stamps: list[list[int]]) -> None:
        """Keep a sample if there is space."""
        if self._full:
            return
        content = encode_sample(sample, files, stamps)
        offset = self._reserve(len(content))
        if offset is None:
            self._full = True
            return
        try:
            _pwrite(self._data_file, content, offset)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            self._full = True
            return
        values = np.array([offset, len(content), zlib.crc32(content), self._boot, 1], dtype=np.uint64)
        row = values.tobytes()
        os.pwrite(self._index_file, row + zlib.crc32(row).to_bytes(8, "little"), _HEADER + index * _ROW)

    def _reserve(self, size: int) -> int | None:
        """Return the position to write to; None if the cache is full. The lock is per process, also after a fork."""
        room = -(-size // _ALIGN) * _ALIGN
        fcntl.lockf(self._index_file, fcntl.LOCK_EX, 8)
        try:
            offset = -(-self._tail() // _ALIGN) * _ALIGN
            if offset + room > self.limit:
                return None
            os.pwrite(self._index_file, (offset + room).to_bytes(8, "little"), 0)
            return offset
        finally:
            fcntl.lockf(self._index_file, fcntl.LOCK_UN, 8)


def _parse(row: NDArray[np.uint8]) -> tuple[int, int, int, int] | None:
    """Return offset, length, checksum and boot of a row; None if it is empty or being written."""
    raw = row.tobytes()
    values = np.frombuffer(raw, dtype="<u8")
    if not values[4] or zlib.crc32(raw[:40]) != values[5]:
        return None
    return int(values[0]), int(values[1]), int(values[2]), int(values[3])


def _pwrite(file: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def _join(folder: Path) -> int:
    """Take a shared lock on the folder; another process may be removing it at this moment."""
    while True:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            if os.stat(folder / "lock").st_ino == os.fstat(lock).st_ino:
                return lock
        except FileNotFoundError:
            pass
        os.close(lock)  # the folder was removed in between


def _leave(folder: Path, files: tuple[int, int, int], temporary: bool, owner: int) -> None:
    """Close the files; the last process that leaves a temporary folder removes it."""
    if temporary and os.getpid() == owner:
        _remove_unused(folder, files[0])
    for file in files:
        os.close(file)


def _remove_unused(folder: Path, lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(folder / "lock").st_ino != os.fstat(lock).st_ino:
            return  # by now another folder of the same name, which others use
    except OSError:
        return
    # The lock file is removed last, so that no process joins a folder that is half gone.
    for name in ("index", "data", "lock"):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _sweep(root: Path, besides: str) -> None:
    """Remove what killed runs have left in shared memory."""
    for folder in root.iterdir():
        try:
            lock = os.open(folder / "lock", os.O_RDWR)
        except OSError:
            continue
        try:
            if folder.name != besides:
                _remove_unused(folder, lock)
        finally:
            os.close(lock)


def _shared_root() -> Path:
    memory = Path("/dev/shm")
    base = memory if memory.is_dir() else Path(tempfile.gettempdir())
    return base / f"ocrnet_pl-{os.getuid()}"


def _boot() -> int:
    """Return a number of the machine's current start."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(text.replace("-", "")[:15], 16)
