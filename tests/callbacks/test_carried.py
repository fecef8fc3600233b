"""What a run that continues another one has in its folder from the beginning."""

from __future__ import annotations

import errno
import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch

from ocrnet_pl.storage.checkpoints import read_checkpoint
from ocrnet_pl.storage.linked_files import link_or_copy
from tests.cli.test_survival import equal, in_a_process
from tests.helpers.saved_runs import Figure, fit, saver


def test_a_file_has_two_names_or_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"content")
    link_or_copy(source, tmp_path / "folder" / "b")
    assert (tmp_path / "folder" / "b").samefile(source)

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    link_or_copy(source, tmp_path / "folder" / "c")
    assert not (tmp_path / "folder" / "c").samefile(source)
    assert sorted((each.name, each.read_bytes()) for each in (tmp_path / "folder").iterdir()) == [
        ("b", b"content"),
        ("c", b"content"),
    ]


def test_a_run_killed_before_it_saved_anything_is_continued_from_its_own_folder(tmp_path: Path) -> None:
    """Two kills in a row; the last run ends with the weights of one that nobody killed."""

    class Kill(Figure):
        def on_train_batch_start(self, *_: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

    def start(name: str, figure: Figure, before: str) -> None:
        path = tmp_path / before / "last.ckpt"
        fit(tmp_path, figure, saver(tmp_path / name, monitor="figure"), max_epochs=2, ckpt_path=path)

    fit(tmp_path, Figure(), saver(tmp_path / "one", monitor="figure"), max_epochs=1)
    for name, before in (("two", "one"), ("three", "two")):
        assert in_a_process(partial(start, name, Kill(), before)) == -signal.SIGKILL
        assert (tmp_path / name / "last.ckpt").samefile(tmp_path / "one" / "last.ckpt")
    start("four", Figure(), "three")
    start("whole", Figure(), "one")
    want, got = (read_checkpoint(tmp_path / name / "last.ckpt") for name in ("whole", "four"))
    for key in ("state_dict", "optimizer_states", "global_step", "epoch"):
        assert equal(want[key], got[key]), key
    # What was carried along never changed.
    assert read_checkpoint(tmp_path / "one" / "last.ckpt")["global_step"] == 2


def test_a_checkpoint_brings_no_other_files_along(tmp_path: Path) -> None:
    fit(tmp_path, Figure(), saver(tmp_path / "one", monitor="figure"), max_epochs=1)
    secret = tmp_path / "secret.ckpt"
    secret.write_text("a key")
    content = torch.load(tmp_path / "one" / "last.ckpt", weights_only=True)
    for key, state in content["callbacks"].items():
        if "BestCheckpoint" in key:
            state["best_k_models"] = {str(secret): torch.tensor(9.0)}
            state["best_model_path"] = state["kth_best_model_path"] = str(secret)
    torch.save(content, tmp_path / "one" / "last.ckpt")
    second = saver(tmp_path / "two", monitor="figure")
    fit(tmp_path, Figure(), second, max_epochs=2, ckpt_path=tmp_path / "one" / "last.ckpt")
    assert not (tmp_path / "two" / secret.name).exists()
    assert Path(second.best_model_path).parent == tmp_path / "two"
