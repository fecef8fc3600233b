"""All processes of a run continue from the same checkpoint, or none does."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from ocrnet_pl.distributed.gather import is_distributed
from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.storage.checkpoints import verify_checkpoint

_NAMED = 8
"""Number of processes that are named one by one in a message."""


class Start(NamedTuple):
    """What a process continues from.

    Attributes:
        text: The checkpoint, its step and epoch, or why there is none.
        identity: Identity of the content; None if there is nothing to read.
        usable: Whether the process can continue.
    """

    text: str
    identity: str | None
    usable: bool


def expects_others(nodes: int = 1) -> bool:
    """Return whether this process was started as one of several, which will wait for it.

    Args:
        nodes: Number of nodes of the run; with several, a process was started by hand on each.
    """
    count = os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or "1"
    return nodes > 1 or (count.isdecimal() and int(count) > 1)


def read_start(path: str | Path | None) -> Start:
    """Return what a process continues from, given a checkpoint or none.

    The content is identified by the checksums stored in the file, which are compared with the content whenever it is
    loaded; only its table of contents, its step and its epoch are read. Files in an object store are the same if their
    addresses are.

    Args:
        path: Path of the checkpoint; None for a new start.
    """
    if path is None:
        return Start("no checkpoint", None, True)
    if "://" in str(path):
        return Start(f"{str(path)!r}", str(path), True)
    try:
        if not zipfile.is_zipfile(path):
            # The message says which of the many reasons applies.
            verify_checkpoint(path)
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        step, epoch = int(content["global_step"]), int(content["epoch"])
        with zipfile.ZipFile(path) as archive:
            # Entries are in a folder that has the file's name when it was written.
            sums = sorted((e.filename.partition("/")[2], e.file_size, e.CRC) for e in archive.infolist())
    except FileNotFoundError as error:
        return Start(str(error), None, False)
    except CheckpointError as error:
        return Start(str(error), None, False)
    except Exception as error:
        # Whatever is wrong with it, the other processes have to learn of it.
        return Start(f"checkpoint {str(path)!r}: unreadable ({type(error).__name__})", None, False)
    identity = hashlib.sha256(repr(sums).encode()).hexdigest()
    return Start(f"{str(path)!r} of step {step}, epoch {epoch}, content {identity[:8]}", identity, True)


def check_same_checkpoint(path: str | Path | None) -> None:
    """Raise an error on all processes if they do not continue from the same checkpoint; one alone may use any.

    All processes have to call this, also those without a checkpoint.

    Args:
        path: Path of the checkpoint from which this process continues; None for a new start.

    Raises:
        CheckpointError: A process has no checkpoint, an unreadable one, or another one than the others.
    """
    if not is_distributed():
        return
    starts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(starts, tuple(read_start(path)))
    found = [Start(*start) for start in starts]
    if all(start.usable and start.identity == found[0].identity for start in found):
        return
    if len({start.text for start in found}) == 1:
        raise CheckpointError(found[0].text)
    texts: dict[str, list[int]] = {}
    for rank, start in enumerate(found):
        texts.setdefault(start.text, []).append(rank)
    each = "; ".join(f"{_named(ranks)}: {text}" for text, ranks in texts.items())
    raise CheckpointError(
        f"the processes do not continue from the same checkpoint ({each}); give all of them the same file with "
        "--ckpt_path, on storage that they share"
    )


def _named(ranks: list[int]) -> str:
    if len(ranks) == 1:
        return f"process {ranks[0]}"
    more = f" and {len(ranks) - _NAMED} more" if len(ranks) > _NAMED else ""
    return f"processes {', '.join(map(str, ranks[:_NAMED]))}{more}"
