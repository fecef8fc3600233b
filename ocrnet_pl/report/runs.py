"""Runs in separate processes: started, shown, recorded, and not repeated once they are finished."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, NoReturn

from ocrnet_pl.distributed.signals import signals_handled
from ocrnet_pl.errors import RunError

INTERRUPTED = "the same command keeps the finished runs and starts this one again"

_LAST_BYTES = 20_000
_SECONDS_TO_NOTICE = 2.0


@dataclass(frozen=True)
class Run:
    """One process of the report.

    Attributes:
        title: Title for the reader.
        folder: Folder for everything that it writes.
        words: Its command line, after the interpreter.
        result: Name of the JSON file in the folder that it writes at its end; the file of a training must say that it
            is finished.
    """

    title: str
    folder: Path
    words: tuple[str, ...]
    result: str = "summary.json"

    @property
    def log(self) -> Path:
        """The file that keeps everything the process prints."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def content(self) -> dict[str, Any] | None:
        """Return its result; None if there is none yet, or the run was interrupted."""
        try:
            content: dict[str, Any] = json.loads((self.folder / self.result).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return content if content.get("status", "finished") == "finished" else None

    def execute(self) -> dict[str, Any]:
        """Run it, or return what it wrote earlier.

        Whatever an interrupted run left in the folder is removed.

        Returns:
            The content of its result.

        Raises:
            RunError: It failed; the message names its log.
            KeyboardInterrupt: It was interrupted, alone or together with this process.
        """
        content = self.content()
        if content is not None:
            return content
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        status = _run_and_show([sys.executable, *self.words], self.log)
        if status in (128 + signal.SIGINT, -signal.SIGINT):
            raise KeyboardInterrupt(f"; {INTERRUPTED}")
        content = self.content()
        if status != 0 or content is None:
            reason = last_error(self.log)
            raise RunError(
                f"the run {self.title!r} ended with status {status}{f': {reason}' if reason else ''}; its log: "
                f"{self.log}"
            )
        return content


def environment_of_runs() -> dict[str, str]:
    """Return the environment variables of a run that this process starts."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    # The order and the transforms follow the run's own seed, which a caller's must not override.
    environment.pop("PL_GLOBAL_SEED", None)
    # The process imports from the same folders as this one, wherever it was started.
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return environment


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM raise an error here, whose handlers end the processes that this one has started.

    The signal alone would end this process and leave them behind.
    """
    with signals_handled(_exit, signal.SIGTERM):
        yield


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _run_and_show(command: list[str], log: Path) -> int:
    """Run a command, copy everything it prints to the terminal and to a file, and return its status."""
    environment = environment_of_runs()
    if sys.stdout.isatty():
        # Without a terminal, a progress bar draws itself once, at the end.
        import pty

        source, sink = pty.openpty()
        environment["COLUMNS"] = str(shutil.get_terminal_size().columns)
    else:
        source, sink = os.pipe()
    with terminable(), log.open("wb") as file, os.fdopen(source, "rb", buffering=0) as output:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment) as process:
            os.close(sink)
            try:
                _show(output.fileno(), file)
            except KeyboardInterrupt:
                try:
                    # A terminal interrupts the process as well; `kill` does not.
                    process.wait(_SECONDS_TO_NOTICE)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGINT)
                # It saves what it has, and may print something.
                _show(output.fileno(), file)
                raise KeyboardInterrupt(f"; {INTERRUPTED}") from None
            except SystemExit:
                process.send_signal(signal.SIGTERM)
                _show(output.fileno(), file)
                raise
        return process.returncode


def _show(descriptor: int, log: BinaryIO) -> None:
    """Copy what a process prints, until it ends."""
    for part in iter(lambda: _read(descriptor), b""):
        log.write(part)
        log.flush()
        sys.stdout.write(part.decode(errors="replace"))
        sys.stdout.flush()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # how a pseudo-terminal says that the other end was closed
        return b""


def last_error(log: Path) -> str:
    """Return the last error in a run's log; nothing if there is none."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LAST_BYTES))
        lines = file.read().decode(errors="replace").replace("\r", "\n").splitlines()
    errors = [line.strip() for line in lines if "rror: " in line]
    return errors[-1].removeprefix("error: ") if errors else ""
