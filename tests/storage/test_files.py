"""Files and folders that are complete or do not exist."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ocrnet_pl.storage.files import complete_folder


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_appears_when_it_is_complete(exists: bool, tmp_path: Path) -> None:
    final = tmp_path / "above" / "copy"
    if exists:
        final.mkdir(parents=True)
    with complete_folder(final) as unfinished:
        (unfinished / "a.txt").write_text("a")
        assert not final.exists() or not list(final.iterdir())
    assert [path.name for path in final.parent.iterdir()] == ["copy"]
    assert (final / "a.txt").read_text() == "a"


def test_a_full_disk_is_that_of_the_folder_and_leaves_nothing(tmp_path: Path) -> None:
    """Of a copy that fails, the system names the original, whose disk has room."""
    full = OSError(errno.ENOSPC, "No space left on device", "original.png")
    with pytest.raises(OSError, match="No space left") as refused, complete_folder(tmp_path / "copy") as unfinished:
        (unfinished / "a.txt").write_text("a")
        raise full
    assert refused.value.filename == str(tmp_path / "copy")
    assert not list(tmp_path.iterdir())


def test_a_folder_with_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "mine.txt").touch()
    with pytest.raises(OSError, match="not empty"), complete_folder(tmp_path / "copy") as unfinished:
        (unfinished / "a.txt").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["copy", "mine.txt"]
