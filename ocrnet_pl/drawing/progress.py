"""Progress of long work: a bar in a terminal, and a line from time to time where there is none."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

_SECONDS = 60.0
"""Longest time between two lines in seconds, if there is any progress."""
_LEAST_SECONDS = 10.0
_SHARE = 0.1


def is_terminal() -> bool:
    """Return whether the output is a terminal, where a bar can move."""
    from rich import get_console

    console = get_console()
    return console.is_jupyter or (console.is_interactive and sys.stdout.isatty())


def duration(seconds: float) -> str:
    """Return seconds as "H:MM:SS"."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


class Pace:
    """Decides when a line is due: a minute after the last, or when another tenth is done, but not too often.

    Args:
        total: Total amount of work; None if it is unknown.
        seconds: Seconds after which a line is due; None for a line at every tenth only.
        least: Smallest number of seconds between two lines.
    """

    def __init__(self, total: float | None, seconds: float | None = _SECONDS, least: float = _LEAST_SECONDS) -> None:
        self.total = total
        self._seconds, self._least = seconds, least
        self._start = self._told_at = time.monotonic()
        self._before = self._told = 0.0

    def start_at(self, done: float) -> None:
        """Count from the work that was done before, which says nothing about the time that the rest takes."""
        self._before = self._told = done
        self._start = self._told_at = time.monotonic()

    def due(self, done: float) -> bool:
        """Return whether a line is due, and if so, count it as printed.

        Args:
            done: Amount of the total that is done.
        """
        now = time.monotonic()
        waited = now - self._told_at
        much = self.total is not None and done - self._told >= _SHARE * self.total
        late = self._seconds is not None and waited >= self._seconds
        if waited < self._least or done <= self._told or not (much or late):
            return False
        self._told, self._told_at = done, now
        return True

    def text(self, done: float) -> str:
        """Return how much is done, and how long the rest will take."""
        if not self.total:
            return f"{done:.0f}"
        left = (time.monotonic() - self._start) / max(done - self._before, 1e-9) * (self.total - done)
        return f"{done:.0f} of {self.total:.0f} ({done / self.total:.0%}), {duration(left)} left"


class Work:
    """One piece of work of a :class:`Progress`.

    Args:
        what: Name of the work.
        total: Number of its steps; None if it is unknown.
        bars: The bars of a terminal; None without a terminal.
    """

    def __init__(self, what: str, total: int | None, bars: Bars | None) -> None:
        self._what, self._done = what, 0
        self._bars, self._pace = bars, Pace(total)
        self._task = bars.add_task(what, total=total) if bars is not None else None

    def reach(self, done: int) -> None:
        """Set the number of finished steps; if the first call gives more than one, they were done before."""
        if not self._done and done > 1:
            self._pace.start_at(done)
        self._done = done
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done)
        elif self._pace.due(done):
            sys.stderr.write(f"{self._what}: {self._pace.text(done)}\n")
            sys.stderr.flush()

    def advance(self) -> None:
        """Count one more finished step."""
        self.reach(self._done + 1)

    def finish(self) -> None:
        """Remove the bar."""
        if self._bars is not None and self._task is not None:
            self._bars.remove_task(self._task)


class Progress:
    """Shows on the error stream how far work is: bars in a terminal, which vanish at the end, and lines elsewhere.

    Printed results go to the other stream, so that they can be piped.
    """

    def __init__(self) -> None:
        self._bars: Bars | None = None

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        console = Console(stderr=True)
        # Without a terminal, bars draw themselves once, at the end.
        if console.is_interactive and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            # Output must not follow the bars to the error stream if it goes to a file.
            redirect = sys.stdout.isatty()
            self._bars = Bars(*columns, console=console, transient=True, redirect_stdout=redirect)
            self._bars.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bars is not None:
            self._bars.stop()

    def add(self, what: str, total: int | None = None) -> Work:
        """Start a piece of work.

        Args:
            what: Name of the work.
            total: Number of its steps; None if it is unknown.
        """
        return Work(what, total, self._bars)
