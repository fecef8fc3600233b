"""How far long work is: a bar in a terminal, and now and then a line where there is none."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

_SECONDS = 60.0
"""From one line to the next at most, if anything gets done."""
_LEAST_SECONDS = 10.0
_SHARE = 0.1


def is_terminal() -> bool:
    """Return whether somebody watches who sees a bar move."""
    from rich import get_console

    console = get_console()
    return console.is_jupyter or (console.is_interactive and sys.stdout.isatty())


def duration(seconds: float) -> str:
    """Return seconds as "H:MM:SS"."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


class Pace:
    """Says when a line is due: a minute after the last, or when a tenth more is done, but not every moment.

    Args:
        total: Of what there is to do; None if nobody knows.
        seconds: After which a line is due; None leaves that to the tenths.
        least: Seconds from one line to the next at least.
    """

    def __init__(self, total: float | None, seconds: float | None = _SECONDS, least: float = _LEAST_SECONDS) -> None:
        self.total = total
        self._seconds, self._least = seconds, least
        self._start = self._told_at = time.monotonic()
        self._before = self._told = 0.0

    def start_at(self, done: float) -> None:
        """Count from what was done before, which tells nothing of the time that the rest takes."""
        self._before = self._told = done
        self._start = self._told_at = time.monotonic()

    def due(self, done: float) -> bool:
        """Return whether a line is due, and if so, take it for said.

        Args:
            done: Of the total.
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
        what: It is.
        total: Of its steps; None if nobody knows.
        bars: Those of a terminal.
    """

    def __init__(self, what: str, total: int | None, bars: Bars | None) -> None:
        self._what, self._done = what, 0
        self._bars, self._pace = bars, Pace(total)
        self._task = bars.add_task(what, total=total) if bars is not None else None

    def reach(self, done: int) -> None:
        """Say how many steps are done; the first time, what was done before if it is more than one."""
        if not self._done and done > 1:
            self._pace.start_at(done)
        self._done = done
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done)
        elif self._pace.due(done):
            sys.stderr.write(f"{self._what}: {self._pace.text(done)}\n")
            sys.stderr.flush()

    def advance(self) -> None:
        """Say that one more step is done."""
        self.reach(self._done + 1)

    def finish(self) -> None:
        """Take the bar away."""
        if self._bars is not None and self._task is not None:
            self._bars.remove_task(self._task)


class Progress:
    """Shows on the error stream how far work is: bars in a terminal, which vanish at the end, and lines elsewhere.

    The other stream is left to what is printed, so that it can be piped on.
    """

    def __init__(self) -> None:
        self._bars: Bars | None = None

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        console = Console(stderr=True)
        # Bars that find no terminal draw themselves once, at the end.
        if console.is_interactive and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            # What is printed meanwhile must not follow the bars to the error stream if it goes to a file.
            redirect = sys.stdout.isatty()
            self._bars = Bars(*columns, console=console, transient=True, redirect_stdout=redirect)
            self._bars.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bars is not None:
            self._bars.stop()

    def add(self, what: str, total: int | None = None) -> Work:
        """Begin a piece of work.

        Args:
            what: It is.
            total: Of its steps; None if nobody knows.
        """
        return Work(what, total, self._bars)
