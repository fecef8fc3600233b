"""The manifest of a packed data set: which shards and which index belong to it, and what they contain."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from ocrnet_pl.data.readers.json_text import parse_json
from ocrnet_pl.data.readers.values import is_text, is_whole, shown
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import Taxonomy

FORMAT, VERSION = "ocrnet_pl packed", 1
MANIFEST, INDEX, UNFINISHED = "packed.json", "index.safetensors", "packing.json"
"""Files of a packed set. The manifest is written last, and the note of an unfinished set is then removed."""

_MOST = 1 << 50
"""Largest number of bytes or samples in one file."""

_SHARD = re.compile(r"shard-\d{5,}\.tar")


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:05d}.tar"


@dataclass(frozen=True)
class Shard:
    """A shard as the manifest knows it.

    Attributes:
        name: Name of the file.
        size: Size in bytes.
        sha256: SHA-256 of its content.
        samples: Number of samples.
    """

    name: str
    size: int
    sha256: str
    samples: int


@dataclass(frozen=True)
class Manifest:
    """The description of a packed data set.

    Attributes:
        taxonomy: Categories of the samples.
        samples: Number of samples.
        shards: The shards, in order.
        index: Name, size and checksum of the index; its ``samples`` is the number of all samples.
        parts: Name, first sample, index after the last sample, and share of each part; empty if there is only one.
        source: A hash of everything that the packed source contained.
        identity: A name of this packed set, which is also stored in the index.
        skipped: Path and reason of each image that was left out.
    """

    taxonomy: Taxonomy
    samples: int
    shards: tuple[Shard, ...]
    index: Shard
    parts: tuple[tuple[str, int, int, float], ...]
    source: str
    identity: str
    skipped: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and dicts, for JSON."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "identity": self.identity,
            "source": self.source,
            "samples": self.samples,
            "parts": [list(part) for part in self.parts],
            "skipped": [list(entry) for entry in self.skipped],
            "taxonomy": self.taxonomy.to_dict(),
            "index": vars(self.index),
            "shards": [vars(shard) for shard in self.shards],
        }

    @classmethod
    def from_text(cls, text: bytes, where: str) -> Manifest:
        """Read a manifest.

        Args:
            text: JSON.
            where: Name of the file, for messages.

        Raises:
            DataError: It is not a manifest, of another version, or does not add up.
        """

        def fail(problem: str) -> DataError:
            text = f"this is not the manifest of a packed data set: {problem}"
            return DataError.at(where, text, advice="copy it again, or pack again")

        content = parse_json(text, fail)
        if not isinstance(content, dict) or "format" not in content:
            raise fail("it names no format")
        if content["format"] != FORMAT or content.get("version") != VERSION:
            raise DataError.at(
                where,
                f"expected version {VERSION}, found {shown(content.get('version'))}",
                field="version",
                advice="pack it again with this version of the project",
            )
        try:
            manifest = cls(
                Taxonomy.from_dict(content["taxonomy"]),
                _whole(content["samples"]),
                tuple(_shard(**shard) for shard in content["shards"]),
                _shard(**content["index"]),
                _parts(content["parts"], _whole(content["samples"])),
                _text(content["source"]),
                _text(content["identity"]),
                # Sets that were packed by earlier versions have no such entry.
                tuple((str(path), str(reason)) for path, reason in content.get("skipped", ())),
            )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise DataError.at(where, f"a field is missing or wrong ({error})", advice="pack it again") from error
        for position, shard in enumerate(manifest.shards):
            if not _SHARD.fullmatch(shard.name):
                raise DataError.at(
                    where, f"{shard.name!r} is not the name of a shard", field=f"shards[{position}].name"
                )
        if manifest.index.name != INDEX or sum(shard.samples for shard in manifest.shards) != manifest.samples:
            raise DataError.at(where, "its shards do not add up to its samples", advice="pack it again")
        return manifest


def _whole(value: Any) -> int:
    if not is_whole(value) or not 0 <= value < _MOST:
        raise ValueError(f"expected a number of bytes or samples, found {shown(value)}")
    return int(value)


def _text(value: Any) -> str:
    if not is_text(value):
        raise ValueError(f"expected text, found {shown(value)}")
    return value


def _shard(name: Any, size: Any, sha256: Any, samples: Any) -> Shard:
    return Shard(_text(name), _whole(size), _text(sha256), _whole(samples))


def _parts(entries: Any, samples: int) -> tuple[tuple[str, int, int, float], ...]:
    """Return the parts, which contain every sample once and in order."""
    parts: list[tuple[str, int, int, float]] = []
    for name, start, stop, share in entries:
        if _whole(start) != (parts[-1][2] if parts else 0) or not _whole(start) < _whole(stop) <= samples:
            raise ValueError(f"the part {shown(name)} does not begin where the previous one ends")
        if not isinstance(share, int | float) or not 0 < share < math.inf:
            raise ValueError(f"the share of the part {shown(name)} is {shown(share)}")
        parts.append((_text(name), int(start), int(stop), float(share)))
    if parts and parts[-1][2] != samples:
        raise ValueError("the parts do not contain all samples")
    return tuple(parts)
