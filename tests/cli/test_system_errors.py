"""What the operating system refuses, as the command line says it."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest
from torch._utils import ExceptionWrapper

from ocrnet_pl.cli.running import _one_line
from ocrnet_pl.cli.system_errors import system_text
from ocrnet_pl.errors import CheckpointError, DataError
from ocrnet_pl.imaging.folders import walk_folders
from ocrnet_pl.imaging.image_files import unreadable
from ocrnet_pl.storage.checkpoints import verify_checkpoint
from ocrnet_pl.storage.files import complete_file, require_writable
from ocrnet_pl.storage.ordinary_files import read_bytes
from ocrnet_pl.storage.unfinished import final_path, unfinished_path


def test_a_path_stands_first_and_advice_last(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    (tmp_path / "folder").mkdir()
    for wanted, said in (
        ("a file/x.onnx", f"{tmp_path / 'a file'}: a file stands where a folder is needed; name another place"),
        ("a file/x/y.onnx", f"{tmp_path / 'a file' / 'x'}: a file stands where a folder is needed; name another place"),
        ("folder", f"{tmp_path / 'folder'}: it is a folder; name a file"),
    ):
        with pytest.raises(OSError) as caught, complete_file(tmp_path / wanted) as unfinished:
            unfinished.write_text("")
        assert system_text(caught.value) == said
    # A name that only this process knows is of no use to anybody.
    hidden = OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(unfinished_path(tmp_path / "a.b c")))
    assert system_text(hidden) == f"{tmp_path / 'a.b c'}: no such file or directory; check the path"
    refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "x")
    assert system_text(refused) == "x: permission denied; change its rights, or name another place"
    assert system_text(OSError("the port is taken")) == "the port is taken"
    assert final_path(Path("a", "b.part")) == Path("a", "b.part")


def test_a_line_keeps_the_spaces_of_a_path() -> None:
    refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "my  runs")
    assert _one_line(refused) == "my  runs: permission denied; change its rights, or name another place"
    assert _one_line(ValueError("my  runs: wrong\n\n  in two ways\n")) == "my  runs: wrong in two ways"
    assert _one_line(OSError()) == "OSError" and _one_line(ValueError("\n")) == "ValueError"


def test_what_lacks_rights_is_not_taken_for_a_wrong_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path))

    def refuse(*_: object) -> None:
        raise refused

    # Whoever runs the tests may be allowed to read everything.
    for function in ("stat", "scandir"):
        monkeypatch.setattr(os, function, refuse)
    with pytest.raises(DataError) as of_file:
        read_bytes("a.json")
    with pytest.raises(DataError) as of_folder:
        next(walk_folders(str(tmp_path)))
    monkeypatch.undo()
    assert str(of_file.value) == "a.json: the file cannot be read (Permission denied); change its rights"
    assert str(of_folder.value) == f"{tmp_path}: the folder cannot be listed (Permission denied); change its rights"
    assert str(unreadable("a.png", refused)) == "a.png: the image cannot be read (Permission denied); change its rights"
    broken = unreadable("a.png", OSError(errno.EIO, os.strerror(errno.EIO), "a.png"))
    assert str(broken) == "a.png: the image cannot be read (Input/output error); replace or remove it"
    (tmp_path / "a.ckpt").write_text("")
    monkeypatch.setattr(io, "open", refuse)
    with pytest.raises(CheckpointError, match=r"a\.ckpt': it cannot be read \(Permission denied\); change its rights$"):
        verify_checkpoint(tmp_path / "a.ckpt")


def test_an_error_out_of_a_loading_process_is_that_of_its_image() -> None:
    try:
        raise DataError.at("a.png", "the image cannot be read")
    except DataError as error:
        packed = ExceptionWrapper((type(error), error, error.__traceback__), "in DataLoader worker process 0")
    with pytest.raises(DataError) as caught:
        packed.reraise()
    assert _one_line(caught.value) == "a.png: the image cannot be read"


def test_a_place_that_cannot_be_written_to_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    for folder in (Path(), Path("new", "deep"), tmp_path, Path("new", "..", "other")):
        require_writable(folder)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    for folder in (Path("file"), Path("file", "deep")):
        with pytest.raises(OSError, match=r"'file'$"):
            require_writable(folder)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError):
        require_writable(Path("new"))
