"""A terminal to run command lines in, and what its screen shows in the end."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
import threading
from collections.abc import Callable

import rich

from tests.helpers.processes import in_a_process

_TOKEN = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b\].*?(?:\x07|\x1b\\\\)|\x1b.|[\r\n\b]|[^\x1b\r\n\b]+", re.DOTALL)


def in_a_terminal(run: Callable[[], object], columns: int, rows: int = 40) -> tuple[int | None, str]:
    """Run something in a process whose three streams are a terminal; return its status and what it wrote there."""
    source, sink = pty.openpty()
    fcntl.ioctl(sink, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    written = io.BytesIO()

    def child() -> None:
        for number in range(3):
            os.dup2(sink, number)
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            os.environ.pop(name, None)
        os.environ["TERM"] = "xterm"
        rich._console = None
        run()

    def read() -> None:
        while True:
            try:
                part = os.read(source, 1 << 16)
            except OSError:
                return
            if not part:
                return
            written.write(part)

    reader = threading.Thread(target=read)
    reader.start()
    status = in_a_process(child)
    os.close(sink)
    reader.join()
    os.close(source)
    return status, written.getvalue().decode()


def screen(written: str, columns: int, rows: int = 40) -> list[str]:
    """Return the lines that a terminal shows in the end, with those that have scrolled out of it.

    It knows what progress bars make use of: moves of the cursor, and lines that are erased. What it does not know, it
    refuses.
    """
    lines: list[list[str]] = [[]]
    row = column = 0

    def at(number: int) -> list[str]:
        while len(lines) <= number:
            lines.append([])
        return lines[number]

    for token in _TOKEN.finditer(written):
        text, arguments, command = token[0], token[1], token[2]
        top = max(0, len(lines) - rows)
        if command is not None:
            count = int(arguments) if arguments and arguments.isdigit() else 1
            if command == "A":
                row = max(top, row - count)
            elif command == "B":
                row = min(top + rows - 1, row + count)
            elif command == "C":
                column = min(columns - 1, column + count)
            elif command == "D":
                column = max(0, column - count)
            elif command == "G":
                column = count - 1
            elif command == "K":
                mode = int(arguments or 0)
                own = at(row)
                own[:] = [] if mode == 2 else own[:column] if mode == 0 else [" "] * column + own[column:]
            elif command == "J" and arguments in ("", "0"):
                del at(row)[column:]
                del lines[row + 1 :]
            elif command not in "mhl":
                raise ValueError(f"the terminal does not know {text!r}")
        elif text == "\r":
            column = 0
        elif text == "\n":
            row += 1
            at(row)
        elif text == "\b":
            column = max(0, column - 1)
        elif not text.startswith("\x1b"):
            for letter in text:
                if column == columns:
                    row, column = row + 1, 0
                own = at(row)
                own.extend(" " * (column + 1 - len(own)))
                own[column] = letter
                column += 1
    return ["".join(line).rstrip() for line in lines]
