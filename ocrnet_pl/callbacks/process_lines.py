"""What each process finds in a prediction, kept on the disk until the first process joins it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class ProcessLines:
    """A file of JSON lines for each process, in a hidden folder.

    Args:
        folder: Folder in which the hidden one is.
        rank: Number of this process.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self._folder = folder / ".parts"
        self._own = self._folder / f"{rank}.jsonl"

    def start(self) -> None:
        """Create this process's file."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._own.touch()

    def add(self, entries: Iterable[Any]) -> None:
        """Append entries to this process's file."""
        lines = [f"{json.dumps(entry)}\n" for entry in entries]
        with self._own.open("a", encoding="utf-8") as file:
            file.writelines(lines)

    def joined(self) -> list[Any]:
        """Return the entries of all processes."""
        return [
            json.loads(line)
            for part in sorted(self._folder.glob("*.jsonl"))
            for line in part.read_text(encoding="utf-8").splitlines()
        ]

    def remove(self) -> None:
        """Remove the files of all processes."""
        shutil.rmtree(self._folder)
