"""The samples that loading processes have started, so that the loss of a process can be reported with its file."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, get_worker_info

from ocrnet_pl.data.loading.death_watch import next_delivery, torch_handler_undone
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.errors import DataError

SILENT = "DataLoader timed out"

_LOST = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)(?: is killed by signal: (.*?)\. )?")
_SIGNALS: dict[str | None, int] = {signal.strsignal(number): number for number in signal.valid_signals()}
_SHOWN = 4


class TakenUp:
    """The sample that each loading process has started last; all processes see the same table.

    Args:
        workers: Number of loading processes.
    """

    def __init__(self, workers: int) -> None:
        # Process and sample, one row for each loading process.
        self._rows = torch.full((max(workers, 1), 2), -1, dtype=torch.int64).share_memory_()

    def note(self, index: int) -> None:
        """Record the sample that a loading process starts; outside of one, nothing happens."""
        info = get_worker_info()
        if info is not None and info.id < len(self._rows):
            self._rows[info.id, 0] = os.getpid()
            self._rows[info.id, 1] = index

    def of(self, processes: list[int]) -> list[int]:
        """Return the samples that these processes have started last, or those of all if none is given."""
        rows = self._rows.tolist()
        return [index for process, index in rows if index >= 0 and (process in processes or not processes)]


def is_of_processes(error: RuntimeError) -> bool:
    """Return whether an error says that loading processes are dead or silent; torch has no class for such errors."""
    return str(error).startswith(SILENT) or _LOST.match(str(error)) is not None


def lost(error: RuntimeError, taken_up: TakenUp, source: Source, deliveries: Iterator[Any]) -> tuple[str, str]:
    """Describe the loss of loading processes that are dead or silent.

    Args:
        error: An error for which :func:`is_of_processes` is true.
        taken_up: The samples that they have started.
        source: The source that they read from.
        deliveries: Iterator of the DataLoader.

    Returns:
        What happened to them and at which file, and what to do about it.
    """
    match = _LOST.match(str(error))
    processes = [] if match is None else [int(process) for process in match[1].split(",")]
    files = [str(source.image_path(index) or f"sample {index}") for index in taken_up.of(processes)]
    at = f", at {', '.join(files[:_SHOWN])}" if files else ""
    if match is None:
        slow = "if those files are read slowly, raise data.worker_timeout, else look at them or at their disk"
        return f"nothing came from any of them in time{at}", slow
    who = f"process {match[1]}"
    number = _SIGNALS.get(match[2])
    if number is None:
        # If the death is noticed by checking and not by its signal, the message does not give the cause.
        gone = [worker.exitcode for worker in getattr(deliveries, "_workers", ()) if worker.pid in processes]
        number = next((-code for code in gone if code is not None and code < 0), None)
    if number is None:
        return f"{who} ended without a message{at}", "look at its last output above, and at that file"
    text = f"{who} was killed by signal {number} ({signal.Signals(number).name}){at}"
    if number == signal.SIGKILL:
        memory = "if nobody ended it, the machine ran out of memory: set fewer processes, or smaller batches"
        return text, memory
    if number == signal.SIGBUS:
        return text, "shared memory is full: give the machine or container more of it, or set fewer processes"
    if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        return text, "somebody ended it"
    return text, "reading that file crashes the process: replace or remove it"


def watched(loader: DataLoader[Any], taken_up: TakenUp, source: Source) -> Iterator[Any]:
    """Yield what loading processes send, and report their loss in one line.

    Args:
        loader: Starts the processes; they send anything but None.
        taken_up: The samples that they have started.
        source: The source that they read from.

    Yields:
        What they send.

    Raises:
        DataError: Loading processes are lost.
    """
    with torch_handler_undone():
        deliveries = iter(loader)
    while True:
        try:
            sent = next_delivery(deliveries)
        except RuntimeError as error:
            if not is_of_processes(error):
                raise
            text, advice = lost(error, taken_up, source, deliveries)
            raise DataError(f"data.num_workers: loading processes failed ({text}); {advice}") from error
        if sent is None:
            return
        yield sent
