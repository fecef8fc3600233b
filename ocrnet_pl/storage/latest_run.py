"""The checkpoints of the newest run with a given name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.storage.checkpoints import read_checkpoint

Which = Literal["last", "best"]

_MOST_NAMES = 8


def latest_checkpoint(which: Which, root: Path, name: str) -> Path:
    """Return the last or the best checkpoint of the newest run with a given name.

    The newest run is the one that wrote a checkpoint most recently. Its best one is named by its ``summary.json`` or,
    while there is none, by its last checkpoint; it may be in the folder of the run from which it continued.

    Args:
        which: Which checkpoint of the run, "last" or "best".
        root: Folder of all runs, ``trainer.default_root_dir``.
        name: Name of the run.

    Raises:
        FileNotFoundError: There is no such run, or it has no such checkpoint; the message says where it was looked for.
        CheckpointError: The file that names the best one is damaged.
    """
    found = {
        folder: max(file.stat().st_mtime for file in files)
        for folder in (root / name).glob("*/checkpoints")
        if (files := [file for file in folder.glob("*.ckpt") if file.is_file()])
    }
    if not found:
        others = sorted({path.parents[2].name for path in root.glob("*/*/checkpoints/*.ckpt")})
        hint = f"; there are checkpoints of {', '.join(others[:_MOST_NAMES])}" if others else ""
        raise FileNotFoundError(
            f"ckpt_path {which!r}: there is no checkpoint in {str(root / name / '*' / 'checkpoints')!r}{hint}; give "
            "the run's --name (and --trainer.default_root_dir), or the file"
        )
    # Of two runs of the same age, the one with the higher version.
    newest = max(found, key=lambda folder: (found[folder], len(folder.parent.name), folder.parent.name))
    last = newest / "last.ckpt"
    if which == "last":
        if not last.is_file():
            raise FileNotFoundError(f"ckpt_path 'last': the newest run, {str(newest.parent)!r}, has no {str(last)!r}")
        return last
    said = _best(newest.parent, last)
    if said is None:
        raise FileNotFoundError(
            f"ckpt_path 'best': neither {str(newest.parent / 'summary.json')!r} nor {str(last)!r} says which one is "
            "the best; give the file"
        )
    # A run's folder may have been moved.
    for path in (Path(said), newest / Path(said).name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"ckpt_path 'best': {said!r}, the best of {str(newest.parent)!r}, no longer exists")


def _best(run: Path, last: Path) -> str | None:
    summary = run / "summary.json"
    if summary.is_file():
        try:
            content = json.loads(summary.read_text(encoding="utf-8"))
            best = content.get("best_checkpoint")
        except (ValueError, RecursionError, AttributeError) as error:
            raise CheckpointError(f"{str(summary)!r}: damaged; give the checkpoint's file instead of 'best'") from error
        if isinstance(best, str):
            return best
    if not last.is_file():
        return None
    states = read_checkpoint(last, mmap=True).get("callbacks")
    for state in states.values() if isinstance(states, dict) else ():
        best = state.get("best_model_path") if isinstance(state, dict) else None
        if isinstance(best, str) and best:
            return best
    return None
