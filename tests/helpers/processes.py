"""Processes for the tests. They are forked, which spares them the seconds that importing Lightning takes."""

from __future__ import annotations

import faulthandler
import functools
import gc
import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import wandb

from ocrnet_pl.cli.main import main

LIMIT = 240.0
"""Seconds after which processes that wait for each other are ended."""


def started(what: list[str] | Callable[[], object]) -> ForkProcess:
    """Start a command line, or something else, in a process of its own."""

    def run() -> None:
        _settle()
        os.setsid()
        if callable(what):
            what()
        else:
            main(what)

    _prepare()
    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def _prepare() -> None:
    """Prepare this process for a fork."""
    # A process of its own has a service of its own, not one that an earlier test left to be inherited.
    wandb.teardown()
    if dist.is_initialized():
        # Nor can it talk in a group that an earlier run of one process left.
        dist.destroy_process_group()


def _settle() -> None:
    """Prepare a process that was just forked."""
    # The threads of the parent's pools do not exist here: what waits for them, or lets go of them, would not return.
    torch.set_num_threads(1)
    gc.freeze()
    # A process that is about to be given up says where it is.
    faulthandler.dump_traceback_later(LIMIT - 10.0, file=2)


def in_a_process(what: list[str] | Callable[[], object]) -> int | None:
    """Run a command line, or something else, in a process of its own, and return its status."""
    process = started(what)
    process.join(LIMIT)
    return process.exitcode


def run_together(folder: Path, count: int, function: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
    """Run a function in so many processes that Lightning takes for torchrun's; return what each returned.

    Args:
        folder: A folder of the caller's own; the results pass through it.
        count: Number of processes.
        function: Called with the arguments in every process.
        arguments: Positional arguments, anything that a fork hands on.
        options: Arguments by name, anything that a fork hands on.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _prepare()
    context = multiprocessing.get_context("fork")
    folder.mkdir(parents=True, exist_ok=True)
    processes = [
        context.Process(
            target=_member, args=(rank, count, port, folder, functools.partial(function, *arguments, **options))
        )
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    end = time.monotonic() + LIMIT
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
    late = [process for process in processes if process.is_alive()]
    for process in late:
        process.kill()
    errors = [path.read_text() for path in sorted(folder.glob("error-*.txt"))]
    assert not errors, "\n".join(errors)
    assert not late, f"{len(late)} of {count} processes were still waiting after {LIMIT} s"
    return [torch.load(folder / f"result-{rank}.pt", weights_only=False) for rank in range(count)]


def _member(rank: int, count: int, port: int, folder: Path, function: Callable[[], Any]) -> None:
    status = 1
    try:
        _settle()
        here = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        there = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
        os.environ |= {name: str(value) for name, value in (here | there).items()}
        torch.save(function(), folder / f"result-{rank}.pt")
        if dist.is_initialized():
            dist.barrier()
        status = 0
    except BaseException:
        (folder / f"error-{rank}.txt").write_text(f"process {rank}:\n{traceback.format_exc()}")
    finally:
        # Nothing of the parent's that a fork inherits, such as pytest's own, may run here.
        os._exit(status)
