"""A CSV table that grows, and keeps its rows when the disk is full."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ocrnet_pl.storage.files import complete_file


def append_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows to a table, all or none; columns that it lacks are added to it.

    Args:
        path: Path of the table, which is created if necessary.
        rows: The values by column; a row may lack columns.

    Raises:
        OSError: The rows could not be written; the table has not changed.
    """
    known: list[str] = []
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            known = next(csv.reader(file), [])
    columns = set().union(*rows)
    if columns <= set(known):
        _append(path, _text(known, rows))
        return
    before: list[dict[str, Any]] = []
    if known:
        with path.open(newline="", encoding="utf-8") as file:
            before = list(csv.DictReader(file))
    header = sorted(columns | set(known))
    with complete_file(path) as unfinished:
        text = _text(header, [dict(zip(header, header, strict=True)), *before, *rows])
        unfinished.write_text(text, encoding="utf-8", newline="")


def _text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns).writerows(rows)
    return text.getvalue()


def _append(path: Path, text: str) -> None:
    # Unbuffered: the error of a full disk is raised where the rows are written, not where the file is closed.
    with path.open("ab", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        rest = memoryview(text.encode())
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(size)
            raise
