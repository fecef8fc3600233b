"""The files of a packed data set: in a folder, or at an address, with copies in a cache."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ocrnet_pl.data.shards.manifest import Shard
from ocrnet_pl.data.shards.shard_cache import ShardCache
from ocrnet_pl.errors import DataError, StoreError, one_line
from ocrnet_pl.storage.ordinary_files import read_bytes
from ocrnet_pl.storage.secrets import hidden, secrets_in

T = TypeVar("T")

_TRIES = 4
_WAIT = 1.0
"""Time in seconds before a failed download is tried again; it doubles after each try."""


class Store(ABC):
    """The location of the files of one packed set.

    Args:
        name: Folder or address, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name.rstrip("/")

    def where(self, file: str) -> str:
        """Return a file's full name, for messages."""
        return f"{self.name}/{file}"

    @abstractmethod
    def small(self, file: str) -> bytes | None:
        """Return the content of a small file; None if there is none.

        Raises:
            StoreError: The folder cannot be read.
        """

    @abstractmethod
    def local(self, shard: Shard) -> Path:
        """Return a copy of a file on this machine; it may vanish at any time, and is then requested again.

        Raises:
            StoreError: It is not available, or is damaged.
        """

    def read(self, shard: Shard, start: int, length: int) -> bytes:
        """Return a part of a file.

        Raises:
            StoreError: It is not available, or is damaged.
        """
        while True:
            path = self.local(shard)
            try:
                file = os.open(path, os.O_RDONLY)
                try:
                    return os.pread(file, length, start)
                finally:
                    os.close(file)
            except FileNotFoundError:
                continue  # removed in between, to make space
            except OSError as error:
                raise StoreError.at(self.where(shard.name), f"it cannot be read ({error.strerror})") from error

    def discard(self, shard: Shard) -> bool:
        """Drop a copy that turned out to be damaged, and return whether another one is available."""
        return False

    def expect(self, shard: Shard) -> None:  # noqa: B027 - in a folder there is nothing to fetch
        """Start to fetch a file that will be needed, and return at once."""


class FolderStore(Store):
    """A packed set in a folder of this machine, read in place."""

    def small(self, file: str) -> bytes | None:
        """Return the content of a small file; None if there is none."""
        path = os.path.join(self.name, file)
        if not os.path.lexists(path):
            return None
        try:
            return read_bytes(path)
        except DataError as error:
            raise StoreError(str(error)) from error

    def check_files(self, shards: tuple[Shard, ...]) -> None:
        """Check that all files are there and have their sizes.

        Raises:
            StoreError: One is missing or incomplete.
        """
        with os.scandir(self.name) as entries:
            sizes = {entry.name: os.path.getsize(entry.path) for entry in entries if os.path.isfile(entry.path)}
        for shard in shards:
            found = sizes.get(shard.name)
            if found != shard.size:
                problem = "the file is missing" if found is None else f"it has {found} bytes instead of {shard.size}"
                raise StoreError.at(self.where(shard.name), problem, advice="copy it again, or pack again")

    def local(self, shard: Shard) -> Path:
        """Return the file itself."""
        path = Path(self.name, shard.name)
        if not os.path.isfile(path):
            raise StoreError.at(path, "the file is missing", advice="copy it again, or pack again")
        return path


class _Connection:
    """Opens a file system when it is called, once per process.

    Args:
        address: Address of a folder in it.
        options: Options of the file system.
    """

    in_digest: ClassVar[bool] = False
    """How a set is reached does not change its content."""

    def __init__(self, address: str, options: Mapping[str, Any]) -> None:
        self.address = address
        self.options = dict(options)
        self.secrets = secrets_in({"storage_options": self.options, "address": address})
        # By process: a forked process cannot use its parent's file system, nor safely release it.
        self._systems: dict[int, tuple[Any, str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_systems": {}}

    def __call__(self) -> tuple[Any, str]:
        """Return the file system and the path in it."""
        if os.getpid() not in self._systems:
            import fsspec

            try:
                system, path = fsspec.core.url_to_fs(
                    self.address, skip_instance_cache=True, use_listings_cache=False, **self.options
                )
            except ImportError as error:
                problem = f"its file system needs another package ({error})"
                raise StoreError.at(hidden(self.address), problem) from error
            except Exception as error:  # file systems raise whatever their libraries do
                reason = hidden(one_line(error), self.secrets)
                problem = f"this is not an address that can be read ({reason})"
                raise StoreError.at(hidden(self.address), problem) from error
            self._systems[os.getpid()] = (system, str(path).rstrip("/"))
        return self._systems[os.getpid()]


class RemoteStore(Store):
    """A packed set at an address of any file system that fsspec supports, with whole shards kept in a local folder.

    Args:
        address: Address, such as ``s3://bucket/prefix``.
        cache: Cache of the copies.
        options: Options of the file system; None for none.
    """

    def __init__(self, address: str, cache: ShardCache, options: dict[str, Any] | None = None) -> None:
        # The name is for messages, which do not show credentials.
        super().__init__(hidden(address))
        self.cache = cache
        self.folder: Path | None = None
        self._connect = _Connection(address.rstrip("/"), options or {})
        self._ahead: threading.Thread | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the thread."""
        return self.__dict__ | {"_ahead": None}

    def use(self, identity: str) -> None:
        """Keep the copies under this name of the set; another set at the same address gets other copies."""
        address = hashlib.sha256(self.name.encode()).hexdigest()[:12]
        self.folder = self.cache.folder / f"{address}-{identity}"

    def small(self, file: str) -> bytes | None:
        """Return the content of a small file; None if there is none."""
        system, path = self._connect()

        def fetch() -> bytes | None:
            try:
                return bytes(system.cat_file(f"{path}/{file}"))
            except FileNotFoundError:
                return None

        return _tried(fetch, self.where(file), self._connect.secrets)

    def local(self, shard: Shard) -> Path:
        """Return the copy, fetched if necessary."""
        path = self._path(shard)
        try:
            os.utime(path)  # the least recently used is removed first
        except OSError:
            self.cache.ensure(path, shard.size, partial(self._fetch, shard))
        return path

    def discard(self, shard: Shard) -> bool:
        """Drop the copy; the original may be sound."""
        self._path(shard).unlink(missing_ok=True)
        return True

    def expect(self, shard: Shard) -> None:
        """Let a thread fetch it, unless one is still fetching; it is asked for again with the next image."""
        # A fork has none of its parent's threads, and knows them for dead.
        busy = self._ahead is not None and self._ahead.is_alive()
        if not busy and not self._path(shard).exists():
            self._ahead = threading.Thread(target=self._fetch_ahead, args=(shard,), name="fetch_ahead", daemon=True)
            self._ahead.start()

    def _path(self, shard: Shard) -> Path:
        assert self.folder is not None
        return self.folder / shard.name

    def _fetch_ahead(self, shard: Shard) -> None:
        # The code that needs the shard meets the same fault and reports it.
        with suppress(StoreError, OSError):
            self.cache.ensure(self._path(shard), shard.size, partial(self._fetch, shard), wait=False)

    def _fetch(self, shard: Shard, target: Path) -> None:
        system, path = self._connect()

        def fetch() -> None:
            system.get_file(f"{path}/{shard.name}", str(target))
            found = target.stat().st_size
            if found != shard.size:
                raise _DamagedError(f"it has {found} bytes instead of {shard.size}")
            if file_digest(target) != shard.sha256:
                raise _DamagedError("its content is not what was packed")

        _tried(fetch, self.where(shard.name), self._connect.secrets)


class _DamagedError(Exception):
    """A file arrived with the wrong content."""


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _tried(action: Callable[[], T], where: str, secrets: Collection[str]) -> T:
    """Do something over the network, and again after a while if it fails; messages do not show the credentials."""
    for attempt in range(_TRIES):
        try:
            return action()
        except (FileNotFoundError, PermissionError) as error:
            problem = "there is no such file" if isinstance(error, FileNotFoundError) else "the access is denied"
            raise StoreError.at(where, problem, advice="check the address and the credentials") from error
        except StoreError:
            raise
        except _DamagedError as error:
            # Try once more, for the fault may have been on the way here.
            if attempt:
                raise StoreError.at(where, str(error), advice="upload it again, or pack again") from error
        except Exception as error:  # file systems raise whatever their libraries do
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise  # of the cache's disk
            if attempt == _TRIES - 1:
                reason = hidden(one_line(error), secrets)
                raise StoreError.at(where, f"it cannot be read ({reason})", advice="check the network") from error
            time.sleep(_WAIT * 2**attempt)
    raise AssertionError("the last try returns or raises")
