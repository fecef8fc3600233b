"""A packed data set: shards in a folder, in an object store, or at any other address."""

from __future__ import annotations

import os
import zlib
from os import PathLike, fspath
from os.path import expanduser, join
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.records import Blocks, Part
from ocrnet_pl.data.shards.description import read_description, read_id
from ocrnet_pl.data.shards.format import MEMBERS, decode, extent, extents, split_members
from ocrnet_pl.data.shards.manifest import INDEX, MANIFEST, UNFINISHED, Manifest
from ocrnet_pl.data.shards.shard_cache import ShardCache
from ocrnet_pl.data.shards.store import FolderStore, RemoteStore, Store, file_digest
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.split_keys import SPLITS
from ocrnet_pl.errors import DataError, StoreError
from ocrnet_pl.storage.flat_arrays import Texts, map_arrays
from ocrnet_pl.structures import Sample, Taxonomy

_ARRAYS = ("shard", "start", "check", "lengths", "sizes")
_TYPES: tuple[Any, ...] = (np.int32, np.int64, np.int64, np.int64, np.int32)
_AHEAD = 2
"""Number of shards in addition to those of the window: one that arrives, one that leaves."""


class Packed(Source):
    """The result of ``train.py pack``: the samples of another source, equal to the last bit.

    Shards in a folder of this machine are read in place. From an address they are fetched whole, each once for all
    processes of the machine, and kept in a cache of bounded size, evicting the least recently used.

    Training draws at random from a window of shards that moves over a random order of all of them, so that each is
    fetched once per epoch and in time. The order depends only on the seed, the epoch, the window and the number of
    processes.

    Args:
        path: Folder with ``packed.json``, or the address of one, such as ``s3://bucket/prefix/train``.
        cache: Folder on a local disk where shards are kept. Null means the user's cache folder for an address, and no
            cache for a folder. If it is set with a folder, that folder is read like an address, which is good for
            network disks.
        cache_gb: Largest size in gigabytes of the cache folder, of all sets in it together; above 0.
        window: Number of shards that a process draws from at a time, at least 1; null for all, which must then fit the
            cache.
        root: Folder that ``path`` starts from, unless it is an address; ``data.root`` on the command line.
        storage_options: Options of the address's file system, as fsspec takes them, such as ``{anon: true}``; null for
            none. Give credentials as references, ``${oc.env:NAME}``.

    Raises:
        ValueError: An option is out of range.
        DataError: There is no packed set, it is unfinished, damaged or out of date, or it does not fit the cache.
    """

    _shard: NDArray[np.int32]
    _start: NDArray[np.int64]
    _check: NDArray[np.int64]
    _lengths: NDArray[np.int64]
    _sizes: NDArray[np.int32]
    _ids: Texts
    _paths: Texts

    def __init__(
        self,
        path: str | PathLike[str],
        cache: str | PathLike[str] | None = None,
        cache_gb: float = 50.0,
        window: int | None = 8,
        root: str | PathLike[str] = ".",
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        if not cache_gb > 0:
            raise ValueError(f"Packed: cache_gb must be a positive number, got {cache_gb}")
        if window is not None and window < 1:
            raise ValueError(f"Packed: window must be at least 1 shard, got {window}")
        self.root = root
        self.path = fspath(path) if "://" in fspath(path) else join(root, expanduser(fspath(path)))
        self.window = window
        self._store: Store
        if "://" in self.path or cache is not None:
            folder = _default_cache() if cache is None else Path(cache).expanduser()
            limit = int(cache_gb * 1e9)
            self._store = remote = RemoteStore(self.path, ShardCache(folder, limit), storage_options)
            self._manifest = _read_manifest(remote)
            self._check_room(limit, folder)
            remote.use(self._manifest.identity)
        else:
            self._store = local = FolderStore(self.path)
            self._manifest = _read_manifest(local)
            local.check_files((*self._manifest.shards, self._manifest.index))
        index = self._manifest.index
        file = self._store.local(index)
        try:
            self._map(file, check=True)
        except StoreError:
            # A copy may be damaged while the original is sound.
            if not self._store.discard(index):
                raise
            self._map(self._store.local(index), check=True)

    def _check_room(self, limit: int, folder: Path) -> None:
        """Raise an error for a cache into which every shard would be fetched again and again."""
        sizes = sorted((shard.size for shard in self._manifest.shards), reverse=True)
        count = len(sizes) if self.window is None else self.window + _AHEAD
        needed = sum(sizes[:count]) + self._manifest.index.size
        if needed > limit:
            wanted = "all shards" if self.window is None else f"a window of {self.window} shards"
            raise DataError.at(
                folder,
                f"{wanted} and the index of {self._store.name} take {needed / 1e9:.3g} GB, "
                f"the cache is limited to {limit / 1e9:.3g}",
                advice="raise `cache_gb`, or lower `window`",
            )

    def _map(self, file: Path, check: bool = False) -> None:
        """Map the index.

        Args:
            file: Path of the index.
            check: Whether to check all of it, which is necessary only once.
        """
        try:
            arrays, described = map_arrays(file)
            if described["identity"] != self._manifest.identity:
                raise self._outdated()
            for name in _ARRAYS:
                setattr(self, f"_{name}", arrays[name])
            self._ids = Texts(arrays["ids"], arrays["ids_ends"])
            self._paths = Texts(arrays["paths"], arrays["paths_ends"])
            if len(self._start) != self._manifest.samples or len(self._paths) != self._manifest.samples:
                raise self._outdated()
            if check:
                self._check_index(file)
        except StoreError:
            raise
        except DataError as error:
            raise StoreError(str(error)) from error
        except (OSError, KeyError) as error:
            raise StoreError.at(
                self._store.where(INDEX), f"the index cannot be read ({error})", advice="copy it again, or pack again"
            ) from error
        except (ValueError, TypeError) as error:
            raise StoreError.at(
                self._store.where(INDEX), "this is not a complete index", advice="copy it again, or pack again"
            ) from error
        self._index_file = file

    def _check_index(self, file: Path) -> None:
        """Check that the index is the one that was packed, and that its positions are inside the shards.

        Raises:
            ValueError: It is damaged.
        """
        # It has a few megabytes for a hundred thousand images.
        if file_digest(file) != self._manifest.index.sha256:
            raise ValueError("its content is not what was packed")
        count = self._manifest.samples
        for name, kind in zip(_ARRAYS, _TYPES, strict=True):
            shape = {"lengths": (count, MEMBERS), "sizes": (count, 2)}.get(name, (count,))
            array = getattr(self, f"_{name}")
            if array.dtype != kind or array.shape != shape:
                raise ValueError(f"{name} is of another kind")
        self._ids.check(count)
        self._paths.check(count)
        if (self._sizes < 1).any():
            raise ValueError("a size is damaged")
        samples = [shard.samples for shard in self._manifest.shards]
        if not np.array_equal(self._shard, np.repeat(np.arange(len(samples)), samples)):
            raise ValueError("the shards are damaged")
        sizes = np.array([shard.size for shard in self._manifest.shards], dtype=np.int64)[self._shard]
        wrong = (self._lengths < -1) | (self._lengths > sizes[:, None]) | (self._start < 0)[:, None]
        if wrong.any() or (self._lengths[:, :2] < 0).any() or (self._start > sizes).any():
            raise ValueError("a place is damaged")
        if (self._start + extents(self._lengths) > sizes).any():
            raise ValueError("a place is damaged")

    def _outdated(self) -> DataError:
        return StoreError.at(
            self._store.where(INDEX),
            f"the index does not belong to {MANIFEST}; they are from two different packings",
            advice="copy both again, or pack again",
        )

    def __getstate__(self) -> dict[str, Any]:
        """Pickle with the index as a file name, so that nothing is copied."""
        mapped = {f"_{name}" for name in (*_ARRAYS, "ids", "paths")}
        return {name: value for name, value in self.__dict__.items() if name not in mapped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map(self._index_file)

    @property
    def taxonomy(self) -> Taxonomy:
        """The categories of the packed source."""
        return self._manifest.taxonomy

    def __len__(self) -> int:
        return self._manifest.samples

    @property
    def sizes(self) -> NDArray[np.int32]:
        """The sizes, as packed."""
        return self._sizes

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the size from the index."""
        return int(self._sizes[index, 0]), int(self._sizes[index, 1])

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return the id and the path that the image had where it was packed."""
        return read_id(self._ids[index], self._store.where(INDEX)), self._paths[index]

    @property
    def blocks(self) -> Blocks | None:
        """The shards, within which samples are read in runs; None if the window holds all of them at once."""
        return self._blocks(0, len(self))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of a mixture that was packed, with their shares."""
        return tuple(
            Part(name, start, stop, share, self._blocks(start, stop))
            for name, start, stop, share in self._manifest.parts
        )

    def _blocks(self, start: int, stop: int) -> Blocks | None:
        if self.window is None:
            return None
        bounds = np.cumsum([0, *(shard.samples for shard in self._manifest.shards)])
        return Blocks(np.unique(np.clip(bounds, start, stop)) - start, self.window)

    def expect(self, index: int) -> None:
        """Start to fetch the shard."""
        self._store.expect(self._manifest.shards[self._shard[index]])

    def image_boxes(self, index: int) -> NDArray[np.float32]:
        """Return the boxes, without reading the image."""
        lengths = self._lengths[index, :1]
        shard = self._manifest.shards[self._shard[index]]
        content = self._store.read(shard, int(self._start[index]), extent(lengths))
        description = split_members(content, lengths.tolist())[0]
        name = f"{self._store.where(shard.name)}: {self._paths[index]}"
        return read_description(description or b"", self.taxonomy, name).boxes

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = self._manifest.shards[self._shard[index]]
        start, lengths = int(self._start[index]), self._lengths[index]
        size, check = extent(lengths), int(self._check[index])
        content = self._store.read(shard, start, size)
        if zlib.crc32(content) != check and self._store.discard(shard):
            content = self._store.read(shard, start, size)
        if zlib.crc32(content) != check:
            raise self._damaged(index)
        name = f"{self._store.where(shard.name)}: {self._paths[index]}"
        return decode(content, lengths.tolist(), self.taxonomy, name)

    def _damaged(self, index: int) -> DataError:
        shard = self._manifest.shards[self._shard[index]]
        return StoreError.at(
            self._store.where(shard.name),
            f"the shard is damaged at byte {int(self._start[index])}, the image {self._paths[index]}",
            advice="copy it again, or pack again",
        )


def _default_cache() -> Path:
    default = os.environ.get("XDG_CACHE_HOME") or join("~", ".cache")
    return Path(os.environ.get("OCRNET_PL_CACHE") or join(default, "ocrnet_pl")).expanduser() / "shards"


def _read_manifest(store: Store) -> Manifest:
    text = store.small(MANIFEST)
    if text is not None:
        manifest = Manifest.from_text(text, store.where(MANIFEST))
        if not manifest.samples:
            raise DataError.at(store.where(MANIFEST), "the packed set has no images", advice="pack it again")
        return manifest
    if store.small(UNFINISHED) is not None:
        raise DataError.at(
            store.name, "the packing was not finished", advice="run the same `train.py pack` again: it continues"
        )
    inside = [name for name in SPLITS if store.small(f"{name}/{MANIFEST}") is not None]
    advice = f"give {store.where(inside[0])}" if inside else "give the folder to which `train.py pack` wrote a split"
    raise DataError.at(store.name, f"there is no {MANIFEST}", advice=advice)
