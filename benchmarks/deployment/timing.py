"""Times of several ways to do the same, taken in turn."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping


def medians(ways: Mapping[str, Callable[[], object]], rounds: int, threads: int) -> dict[str, float]:
    """Return each way's median seconds; in each round all ways take their turn, after one that does not count.

    Args:
        ways: The ways by name.
        rounds: Number of rounds.
        threads: Number of threads that a way uses: with one it is processor time, which waiting for other programs does
            not lengthen, otherwise time by the clock.
    """
    clock = time.process_time if threads == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            started = clock()
            way()
            if turn:
                times[name].append(clock() - started)
    return {name: statistics.median(own) for name, own in times.items()}


def conditions(rounds: int, threads: int) -> str:
    """Return under which conditions the times were taken, for the head of a table."""
    kind = "processor time on one thread" if threads == 1 else f"time by the clock, {threads} threads"
    return f"{kind}, medians of {rounds} rounds in turn, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
