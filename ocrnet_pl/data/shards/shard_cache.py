"""Copies of shards on a local disk, in a bounded folder that all processes of the machine share."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ocrnet_pl.errors import DataError, StoreError

_POLL = 0.05
"""Time in seconds between two looks for space, while other processes fetch."""


class ShardCache:
    """A folder of copies of limited size, for all processes of this machine.

    A process that fetches a file holds a lock on ``NAME.part`` next to it, whose length is the space that is reserved
    for it. The bytes are written to ``NAME.new``, which is renamed when it is complete. Locks of killed processes are
    free, so the next process removes what they left behind.

    Args:
        folder: Folder on a local disk, created if necessary.
        limit: Largest number of bytes, of all sets in the folder together.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def ensure(self, path: Path, size: int, fetch: Callable[[Path], None], wait: bool = True) -> None:
        """Make a file available here, unless it is already, or another process is fetching it.

        Args:
            path: Path of the file in a folder of the cache.
            size: Size of the file in bytes.
            fetch: Function that writes the file to a path.
            wait: Whether to wait for another process that fetches it; otherwise returns at once.

        Raises:
            StoreError: The cache cannot be written to, or is too small.
        """
        part, new = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.new")
        while not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                lock = os.open(part, os.O_RDWR | os.O_CREAT, 0o600)
            except OSError as error:
                raise self._unwritable(error) from error
            try:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                except BlockingIOError:
                    return
                if not _same(part, lock) or path.exists():
                    continue
                try:
                    try:
                        self._take_room(lock, size)
                        fetch(new)
                        new.replace(path)
                    finally:
                        new.unlink(missing_ok=True)
                        # Not while another process counts, which may have looked before the file was renamed.
                        with self._alone():
                            part.unlink(missing_ok=True)
                except OSError as error:
                    raise self._unwritable(error) from error
                return
            finally:
                os.close(lock)

    def _unwritable(self, error: OSError) -> DataError:
        return StoreError.at(
            self.folder,
            f"the cache cannot be written to ({error.strerror or error})",
            advice="set `cache` and `cache_gb`",
        )

    def _take_room(self, lock: int, size: int) -> None:
        """Remove the least recently used files until there is space, and reserve it."""
        while True:
            with self._alone():
                files = sorted(self._files())
                used = sum(length for _, length, _ in files)
                for _, length, path in files:
                    if used + size <= self.limit:
                        break
                    if _removed(path):
                        used -= length
                if used + size <= self.limit:
                    os.ftruncate(lock, size)
                    return
                coming = any(path.suffix == ".part" and length for _, length, path in files)
            if not coming:
                raise StoreError.at(
                    self.folder,
                    f"indices take {used / 1e9:.3g} of {self.limit / 1e9:.3g} GB, and {size / 1e9:.3g} are needed",
                    advice="raise `cache_gb`, or delete the folders of old sets",
                )
            time.sleep(_POLL)  # other processes are fetching; then their files can be removed

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """Yield time of last use, size and path of everything that takes space."""
        for path in self.folder.glob("*/*"):
            if path.suffix in (".tar", ".safetensors", ".part"):
                with suppress(FileNotFoundError):
                    stat = path.stat()
                    yield stat.st_mtime_ns, stat.st_size, path

    @contextmanager
    def _alone(self) -> Iterator[None]:
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _same(path: Path, file: int) -> bool:
    try:
        return os.stat(path).st_ino == os.fstat(file).st_ino
    except FileNotFoundError:
        return False


def _removed(path: Path) -> bool:
    """Remove a file of the cache, unless it is an index, or is being fetched by a process that is alive."""
    if path.suffix == ".safetensors":
        return False
    if path.suffix == ".part":
        try:
            lock = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same(path, lock):
                path.with_suffix(".new").unlink(missing_ok=True)
                path.unlink(missing_ok=True)
        except BlockingIOError:
            return False
        finally:
            os.close(lock)
        return True
    path.unlink(missing_ok=True)
    return True
