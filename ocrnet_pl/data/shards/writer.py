"""Writing a source as shards; an interrupted run is continued, with exactly the same files as a result."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from ocrnet_pl.data.loading.lost_workers import TakenUp, watched
from ocrnet_pl.data.shards.format import MEMBERS, Record, encode
from ocrnet_pl.data.shards.manifest import FORMAT, INDEX, MANIFEST, UNFINISHED, VERSION, Manifest, Shard, shard_name
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.errors import DataError, StoreError
from ocrnet_pl.storage.files import complete_file, write_json
from ocrnet_pl.storage.flat_arrays import Arrays, Texts, map_arrays, save_arrays


class Outcome(NamedTuple):
    """The result of packing.

    Attributes:
        manifest: Manifest of the set; it names the images that were left out, by this run or an earlier one.
        written: Number of samples that this run wrote; the others already existed.
    """

    manifest: Manifest
    written: int


def pack(
    source: Source,
    folder: Path,
    fingerprint: str,
    *,
    shard_bytes: int = 128_000_000,
    workers: int = 0,
    tolerant: bool = False,
    advance: Callable[[int], None] = lambda done: None,
) -> Outcome:
    """Write all samples of a source as shards.

    Every shard and other file gets its name only when it is complete and on the disk. The manifest comes last: a set
    without it is not read. A run that was interrupted is continued by the same call. Nothing in the files depends on
    the time or on the number of workers.

    Args:
        source: The source to read.
        folder: Folder to write to; created if necessary.
        fingerprint: A hash of everything that the source contains.
        shard_bytes: Number of bytes from which a shard is closed; it contains at least one sample.
        workers: Number of processes that read and encode.
        tolerant: Whether images that cannot be read are left out instead of raising an error. The files record what was
            left out, and a set that lacks images is not accepted as a complete one.
        advance: Called with the number of images done.

    Returns:
        The manifest and the number of samples written.

    Raises:
        DataError: An image cannot be read, the folder contains something else or a set that lacks images, another
            process packs into it, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        done = _finished(folder, fingerprint)
        if done is not None:
            _check_whole(folder, done.skipped, tolerant)
            advance(len(source))
            return Outcome(done, 0)
        with _claim(folder, {"source": fingerprint, "samples": len(source), "shard_bytes": shard_bytes}):
            return _write(source, folder, fingerprint, shard_bytes, workers, tolerant, advance)
    except OSError as error:
        raise DataError.at(
            folder,
            f"it cannot be written to ({error.strerror or error})",
            advice="free some space and run the same command again: it continues"
            if error.errno in (errno.ENOSPC, errno.EDQUOT)
            else "check the folder",
        ) from error


def _finished(folder: Path, fingerprint: str) -> Manifest | None:
    """Return the manifest of a folder that is already packed."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    manifest = Manifest.from_text(path.read_bytes(), str(path))
    if manifest.source != fingerprint:
        raise DataError.at(folder, "it contains a packed set of other data or options", advice="give another --output")
    return manifest


def _check_whole(folder: Path, skipped: Sequence[tuple[str, str]], tolerant: bool) -> None:
    """Raise an error for continuing with a set that lacks images if none may be left out."""
    if skipped and not tolerant:
        raise DataError.at(
            folder,
            f"the set in it was packed without {len(skipped)} image(s) that could not be read, such as {skipped[0][0]}",
            advice="pack into another --output, or set data.on_error to skip",
        )


@contextmanager
def _claim(folder: Path, note: dict[str, Any]) -> Iterator[None]:
    """Record in the folder what is being packed, and keep other processes out in the meantime."""
    path = folder / UNFINISHED
    note = {"format": FORMAT, "version": VERSION, **note}
    if not path.exists():
        if any(folder.iterdir()):
            raise DataError.at(folder, "it contains other files", advice="give another --output")
        write_json(path, note)
    with open(path, "rb+") as file:
        try:
            # A lock of this process only: workers that outlive it for a moment do not hold it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise DataError.at(folder, "another process is packing into it", advice="wait for it") from error
        try:
            begun = json.loads(file.read())
        except ValueError:
            begun = None
        if begun != note:
            raise DataError.at(
                folder,
                "it contains an unfinished pack of other data or options",
                advice="delete it, or give another --output",
            )
        yield


class _Encoder(Dataset["tuple[Record | None, tuple[str, str]]"]):
    """Encodes single samples, in the workers."""

    def __init__(self, source: Source, tolerant: bool, taken_up: TakenUp) -> None:
        self.source = source
        self.tolerant = tolerant
        self.taken_up = taken_up

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Record | None, tuple[str, str]]:
        self.taken_up.note(index)
        try:
            return encode(self.source[index], index), ("", "")
        except DataError as error:
            if not self.tolerant or isinstance(error, StoreError):
                raise
            path, _, reason = str(error).partition(": ")
            return None, (path, reason)


def _as_it_is(entry: Any) -> Any:
    return entry


class _OpenShard:
    """The shard that is being filled.

    Args:
        folder: Folder of the set.
        number: Number of the shard.
        start: Index of the next sample in the source.
    """

    def __init__(self, folder: Path, number: int, start: int) -> None:
        self.folder, self.number, self.next = folder, number, start
        self.path = folder / shard_name(number)
        self.unfinished = folder / f".{self.path.name}.part"
        self.hash = hashlib.sha256()
        self.size = 0
        self.records: list[tuple[int, Record, int, int]] = []
        self.skipped: list[tuple[str, str]] = []
        # Unbuffered: the error of a full disk is raised where the data are written, not where the file is closed.
        self.file = open(self.unfinished, "wb", buffering=0)  # noqa: SIM115 - closed in close()

    def add(self, index: int, record: Record) -> None:
        """Write a sample."""
        self.records.append((index, Record(b"", *_described(record)), self.size, record.check))
        self._append(record.content)

    def _append(self, content: bytes) -> None:
        view = memoryview(content)
        while view:
            view = view[self.file.write(view) :]
        self.hash.update(content)
        self.size += len(content)

    def close(self) -> None:
        """Give the shard its name, and then its own index."""
        self._append(bytes(1024))  # the end of a tar
        os.fsync(self.file.fileno())
        self.file.close()
        self.unfinished.replace(self.path)
        records = [record for _, record, _, _ in self.records]
        ids, paths = (
            Texts.pack([json.dumps(record.image_id) for record in records]),
            Texts.pack([record.path for record in records]),
        )
        arrays: Arrays = {
            "origin": np.array([index for index, _, _, _ in self.records], dtype=np.int64),
            "start": np.array([start for _, _, start, _ in self.records], dtype=np.int64),
            "check": np.array([check for _, _, _, check in self.records], dtype=np.int64),
            "lengths": np.array([record.lengths for record in records], dtype=np.int64).reshape(-1, MEMBERS),
            "sizes": np.array([record.size for record in records], dtype=np.int32).reshape(-1, 2),
            "ids": ids.data,
            "ids_ends": ids.ends,
            "paths": paths.data,
            "paths_ends": paths.ends,
        }
        described = {
            "size": str(self.size),
            "sha256": self.hash.hexdigest(),
            "next": str(self.next),
            "skipped": json.dumps(self.skipped),
        }
        save_arrays(_own_index(self.folder, self.number), arrays, described)

    def abandon(self) -> None:
        """Remove what has been written."""
        self.file.close()
        self.unfinished.unlink(missing_ok=True)


def _described(record: Record) -> tuple[tuple[int, ...], tuple[int, int], int | str, str]:
    return record.lengths, record.size, record.image_id, record.path


def _own_index(folder: Path, number: int) -> Path:
    return folder / f".{shard_name(number)}.safetensors"


def _complete_shards(folder: Path) -> Iterator[tuple[Arrays, dict[str, str]]]:
    """Yield the index of each shard that is complete, up to the first that is not."""
    number = 0
    while True:
        try:
            arrays, described = map_arrays(_own_index(folder, number))
            whole = os.stat(folder / shard_name(number)).st_size == int(described["size"])
            count = len(arrays["start"])
            known = all(len(arrays[name]) == count for name in ("origin", "check", "lengths", "sizes"))
            int(described["next"]), _skipped(described), described["sha256"]
            for name in ("ids", "paths"):
                Texts(arrays[name], arrays[f"{name}_ends"]).check(count)
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return
        if not whole or not known:
            return
        yield arrays, described
        number += 1


def _skipped(described: dict[str, str]) -> list[tuple[str, str]]:
    """Return what was left out while a shard was filled."""
    return [(path, reason) for path, reason in json.loads(described.get("skipped", "[]"))]


def _write(
    source: Source,
    folder: Path,
    fingerprint: str,
    shard_bytes: int,
    workers: int,
    tolerant: bool,
    advance: Callable[[int], None],
) -> Outcome:
    known = list(_complete_shards(folder))
    number, start = len(known), int(known[-1][1]["next"]) if known else 0
    _check_whole(folder, [entry for _, described in known for entry in _skipped(described)], tolerant)
    del known
    borders = {part.start for part in source.parts}
    written = 0
    advance(start)
    encoder = _Encoder(source, tolerant, TakenUp(workers))
    loader: DataLoader[Any] = DataLoader(
        encoder,
        sampler=range(start, len(source)),
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
    )
    shard: _OpenShard | None = None
    try:
        for index, (record, fault) in enumerate(watched(loader, encoder.taken_up, source), start):
            if shard is not None and shard.records and index in borders:
                # A shard with samples of two parts would be read for both.
                shard.close()
                number, shard = number + 1, None
            if shard is None:
                shard = _OpenShard(folder, number, index)
            shard.next = index + 1
            if record is None:
                shard.skipped.append(fault)
            else:
                shard.add(index, record)
                written += 1
            if shard.size >= shard_bytes:
                shard.close()
                number, shard = number + 1, None
            advance(index + 1)
        if shard is not None and shard.records:
            shard.close()
            shard = None
    finally:
        if shard is not None:
            shard.abandon()
    # Images left out after the last shard are in no index. A run that continues here meets them again.
    trailing = [] if shard is None else shard.skipped
    return Outcome(_finish(source, folder, fingerprint, trailing), written)


def _finish(source: Source, folder: Path, fingerprint: str, trailing: list[tuple[str, str]]) -> Manifest:
    """Join the indices of the shards, and write the index and the manifest.

    Args:
        source: The source that was packed.
        folder: Folder of the shards.
        fingerprint: Hash of the source.
        trailing: Path and reason of each image that was left out after the last shard.
    """
    parts = list(_complete_shards(folder))
    if not parts:
        raise DataError.at(folder, "no image could be read, so there is nothing to pack")
    shards = tuple(
        Shard(shard_name(number), int(described["size"]), described["sha256"], len(arrays["start"]))
        for number, (arrays, described) in enumerate(parts)
    )
    joined: Arrays = {
        name: np.concatenate([arrays[name] for arrays, _ in parts]) for name in ("start", "check", "lengths", "sizes")
    }
    joined["shard"] = np.repeat(np.arange(len(parts)), [shard.samples for shard in shards]).astype(np.int32)
    for name in ("ids", "paths"):
        joined[name] = np.concatenate([arrays[name] for arrays, _ in parts])
        joined[f"{name}_ends"] = _joined_ends([arrays[f"{name}_ends"] for arrays, _ in parts])
    origin = np.concatenate([arrays["origin"] for arrays, _ in parts])
    identity = hashlib.sha256(" ".join(shard.sha256 for shard in shards).encode()).hexdigest()[:24]
    save_arrays(folder / INDEX, joined, {"identity": identity})
    content = (folder / INDEX).read_bytes()
    bounds: list[tuple[str, int, int, float]] = []
    for part in source.parts:
        first, last = (int(place) for place in np.searchsorted(origin, [part.start, part.stop]))
        if last > first:
            bounds.append((part.name, first, last, part.share))
    manifest = Manifest(
        source.taxonomy,
        len(origin),
        shards,
        Shard(INDEX, len(content), hashlib.sha256(content).hexdigest(), len(origin)),
        tuple(bounds),
        fingerprint,
        identity,
        (*(entry for _, described in parts for entry in _skipped(described)), *trailing),
    )
    with complete_file(folder / MANIFEST) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
        json.dump(manifest.to_dict(), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    for number in range(len(shards)):
        _own_index(folder, number).unlink(missing_ok=True)
    (folder / UNFINISHED).unlink(missing_ok=True)
    return manifest


def _joined_ends(ends: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return where each of many texts ends, when several packs of them follow one another."""
    offsets = np.cumsum([0, *(int(own[-1]) for own in ends)])
    return np.concatenate([[0], *(own[1:] + offset for own, offset in zip(ends, offsets, strict=False))]).astype(
        np.int64
    )
