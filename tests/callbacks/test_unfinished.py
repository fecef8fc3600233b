"""What processes that were killed leave behind, and who removes it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ocrnet_pl.callbacks.checkpoint_io import SafeCheckpointIO
from ocrnet_pl.storage import files, unfinished
from ocrnet_pl.storage.checkpoints import read_checkpoint
from ocrnet_pl.storage.files import complete_file
from ocrnet_pl.storage.unfinished import remove_abandoned, unfinished_path
from tests.cli.test_survival import in_a_process
from tests.helpers.saved_runs import Figure, fit, saver


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Let this process be one that has written nowhere."""
    files._seen.clear()
    yield
    files._seen.clear()


def killed_while_writing(path: Path) -> None:
    def write() -> None:
        with complete_file(path) as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_process(write) == -signal.SIGKILL


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_left_is_removed_by_the_next_that_writes_there(tmp_path: Path) -> None:
    killed_while_writing(tmp_path / "a.json")
    (left,) = names(tmp_path)
    assert left.startswith(".a.json.") and left.endswith(".part")
    unfinished_path(tmp_path / "mine").write_bytes(b"half")
    others = [".a.json.part", ".a.json.123.part", "film.mkv.part", left.removeprefix(".")]
    for name in others:
        (tmp_path / name).write_bytes(b"somebody else's")
    with complete_file(tmp_path / "b.json") as temporary:
        temporary.write_bytes(b"whole")
    assert names(tmp_path) == sorted([*others, "b.json", unfinished_path(tmp_path / "mine").name])


def test_folders_that_were_being_written_are_removed_too(tmp_path: Path) -> None:
    process = unfinished_path(tmp_path / "copy").name.replace(f"-{os.getpid()}.", f"-{gone()}.")
    (tmp_path / process / "images").mkdir(parents=True)
    (tmp_path / process / "images" / "a.png").write_bytes(b"")
    remove_abandoned(tmp_path)
    assert names(tmp_path) == []
    remove_abandoned(tmp_path / "absent")


def gone() -> int:
    """Return the number of a process that is dead."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


@pytest.mark.parametrize(
    ("machine", "boot", "space", "alive", "stays"),
    [
        (0, 0, 0, False, False),
        (0, 0, 0, True, True),
        # Its numbers were given out anew when the machine started again.
        (0, 1, 1, True, False),
        # Another container of the same machine: what its numbers mean is not known here.
        (0, 0, 1, False, True),
        (1, 0, 0, False, True),
        (1, 1, 1, False, True),
    ],
)
def test_what_belongs_to_others_stays(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    machine: int,
    boot: int,
    space: int,
    alive: bool,
    stays: bool,
) -> None:
    process = os.getppid() if alive else gone()
    with monkeypatch.context() as patch:
        patch.setattr(unfinished, "_place", lambda: (f"{machine:06x}", f"{boot:06x}", f"{space:06x}"))
        patch.setattr(os, "getpid", lambda: process)
        path = unfinished_path(tmp_path / "last.ckpt")
    path.write_bytes(b"half")
    monkeypatch.setattr(unfinished, "_place", lambda: ("0" * 6,) * 3)
    remove_abandoned(tmp_path)
    assert path.exists() == stays


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "\N{SNOWMAN}" * 85):
        with complete_file(tmp_path / name) as temporary:
            assert temporary.name.startswith(f".{name[:10]}")
            temporary.write_bytes(b"whole")
        assert (tmp_path / name).read_bytes() == b"whole"
    assert len(names(tmp_path)) == 2


def test_a_run_removes_what_was_left_where_it_continues_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = saver(tmp_path / "one", monitor="figure")
    fit(tmp_path, Figure(), first, max_epochs=1)

    def cut_off(content: Any, file: Any) -> None:
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    def continued() -> None:
        monkeypatch.setattr(torch, "save", cut_off)
        second = saver(tmp_path / "one", monitor="figure")
        last = tmp_path / "one" / "last.ckpt"
        fit(tmp_path, Figure(), second, max_epochs=2, ckpt_path=last, plugins=[SafeCheckpointIO()])

    assert in_a_process(continued) == -signal.SIGKILL
    assert len([name for name in names(tmp_path / "one") if name.endswith(".part")]) == 2
    assert read_checkpoint(tmp_path / "one" / "last.ckpt")["global_step"] == 2
    third = saver(tmp_path / "three", monitor="figure")
    fit(tmp_path, Figure(), third, max_epochs=2, ckpt_path=tmp_path / "one" / "last.ckpt")
    assert not [name for name in names(tmp_path / "one") if name.endswith(".part")]
