"""What each process finds in a prediction, kept on the disk: the first process joins it, and a later start goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ocrnet_pl.data.sources.folder import ImageFolder
from ocrnet_pl.storage.files import complete_file


class ProcessLines:
    """A file of JSON lines for each process, one line per image, in a hidden folder.

    Args:
        folder: Folder in which the hidden one is.
        rank: Number of this process.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self._folder = folder / ".parts"
        self._own = self._folder / f"{rank}.jsonl"

    def start(self) -> None:
        """Create this process's file, unless an earlier start has done it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._own.touch()

    def add(self, entries: Iterable[tuple[str, Any]]) -> None:
        """Append what was found in images to this process's file.

        Args:
            entries: The id of each image, and what was found in it.
        """
        lines = [f"{json.dumps([name, entry])}\n" for name, entry in entries]
        with self._own.open("a", encoding="utf-8") as file:
            file.writelines(lines)

    def own(self) -> list[Any]:
        """Return the entries of this process's file."""
        return [entry for _, entry in _pairs(self._own)] if self._own.is_file() else []

    def joined(self) -> list[Any]:
        """Return the entries of all processes."""
        return [entry for _, entry in self.pairs()]

    def pairs(self) -> Iterator[tuple[str, Any]]:
        """Yield the id of each image of all processes, and what was found in it; each image once."""
        # A start that was killed while it made the files one has left some entries in two of them.
        seen = set[str]()
        for part in sorted(self._folder.glob("*.jsonl")):
            for name, entry in _pairs(part):
                if name not in seen:
                    seen.add(name)
                    yield name, entry

    def names(self) -> frozenset[str]:
        """Return the ids of the images of all processes."""
        return frozenset(name for name, _ in self.pairs())

    def keep(self, names: Collection[str]) -> None:
        """Make the files of all processes one, that of the first, and drop what was found in other images.

        Args:
            names: Ids of the images.
        """
        files = sorted(self._folder.glob("*.jsonl"))
        if not files:
            return
        with complete_file(self._folder / "0.jsonl") as unfinished, unfinished.open("w", encoding="utf-8") as output:
            output.writelines(f"{json.dumps([name, entry])}\n" for name, entry in self.pairs() if name in names)
        for file in files:
            if file.name != "0.jsonl":
                file.unlink()

    def remove(self) -> None:
        """Remove the files of all processes."""
        shutil.rmtree(self._folder)


class LineWriter(Callback):
    """Keeps what it finds in the images of a prediction as lines in a folder, which is found at the setup."""

    _folder: Path | None = None
    """None: nothing is written."""

    def _lines(self, trainer: Trainer) -> ProcessLines:
        assert self._folder is not None
        return ProcessLines(self._folder, trainer.global_rank)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file for this process's lines."""
        if self._folder is not None:
            self._lines(trainer).start()


def refuse_equal_stems(trainer: Trainer, what: str) -> None:
    """Refuse images to predict whose files of this kind would have one name; see :class:`ImageFolder`."""
    source = getattr(getattr(trainer.predict_dataloaders, "dataset", None), "source", None)
    if isinstance(source, ImageFolder):
        source.refuse_equal_stems(what)


def _pairs(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            # The last line of a process that was killed may be incomplete, and a machine that lost its power may have
            # left anything. The image of a line that cannot be read is one that is not done.
            try:
                name, entry = json.loads(line)
            except (ValueError, TypeError):
                continue
            if isinstance(name, str) and line.endswith("\n"):
                yield name, entry
