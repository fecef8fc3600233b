"""What a run has stored in Weights & Biases, read back so that a continued run adds only what is missing."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

STEP = "trainer/global_step"
"""The name under which Lightning logs the step."""

MODEL = "model"
"""The type of the artifacts that are checkpoints."""

_HEADER, _BLOCK, _RECORD = 7, 32768, 7
_WHOLE, _LAST = 1, 4
_ROWS = 20
"""More rows than are logged at one step: figures of training and validation, and pictures."""


def last_point(rows: Iterable[Mapping[str, Any]]) -> tuple[int, set[str]] | None:
    """Return the last step of a history and the names of what was logged at it; None for an empty history."""
    last, names = -1, set[str]()
    for row in rows:
        step = int(row.get(STEP) or 0) if STEP in row else -1
        if step > last:
            last, names = step, set()
        if step == last:
            names |= {name for name, value in row.items() if value is not None}
    return None if last < 0 else (last, names)


def sent_rows(path: str) -> Iterator[dict[str, Any]]:
    """Yield the last rows of a run that the server has.

    Args:
        path: Address of the run, ``entity/project/id``.
    """
    import wandb

    run = wandb.Api().run(path)
    yield from run.scan_history(min_step=max(0, int(run.lastHistoryStep) - _ROWS))


def kept_rows(folder: Path, run_id: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a run that were logged offline, over all its starts.

    Args:
        folder: Folder of one start; the folders of the others are next to it.
        run_id: Id of the run.
    """
    for message in _messages(folder, run_id, "history"):
        items = message.history.item
        yield {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def kept_versions(folder: Path, run_id: str) -> Iterator[dict[str, Any]]:
    """Yield the metadata of the checkpoints that a run stored offline, over all its starts.

    Args:
        folder: Folder of one start; the folders of the others are next to it.
        run_id: Id of the run.
    """
    for message in _messages(folder, run_id, "artifact"):
        if message.artifact.type == MODEL:
            yield json.loads(message.artifact.metadata)


def sent_versions(path: str) -> Iterator[dict[str, Any]]:
    """Yield the metadata of the checkpoints of a run that the server has.

    Args:
        path: Address of the run, ``entity/project/id``.
    """
    import wandb

    for artifact in wandb.Api().run(path).logged_artifacts():
        if artifact.type == MODEL:
            yield artifact.metadata


def has_item(names: Iterable[str], item: str) -> bool:
    """Return whether a picture, a table or a chart is among the names of a row; offline, its parts have names."""
    parts = (item, f"{item}_table")
    return any(name in parts or name.startswith(tuple(f"{part}/" for part in parts)) for name in names)


def _messages(folder: Path, run_id: str, kind: str) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2 as messages

    for path in sorted(folder.parent.glob(f"*/wandb/*-{run_id}/run-{run_id}.wandb")):
        for record in _records(path.read_bytes()):
            message = messages.Record.FromString(record)  # type: ignore[attr-defined]
            if message.WhichOneof("record_type") == kind:
                yield message


def _records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a file in LevelDB's log format after a header; an incomplete record at its end is left out.

    A record consists of one or more fragments, each with its checksum, length and kind, and none across the border of
    two blocks. The rest of a block that has no room for another fragment's head is empty.
    """
    place, record = _HEADER, b""
    while place + _RECORD <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _RECORD:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        end = place + _RECORD + length
        if kind == 0 or end > len(data):
            return
        record += data[place + _RECORD : end]
        place = end
        if kind in (_WHOLE, _LAST):
            yield record
            record = b""
