"""Runs whose disk fills, and what they say of it."""

from __future__ import annotations

import csv
import errno
import json
import logging
import os
import re
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ocrnet_pl.callbacks.checkpoint_io import SafeCheckpointIO
from ocrnet_pl.cli.main import main
from ocrnet_pl.storage.checkpoints import read_checkpoint, write_checkpoint
from ocrnet_pl.storage.csv_table import append_rows
from ocrnet_pl.storage.files import complete_file, write_json
from tests.callbacks.test_best import NoFigureAtFirst, scores
from tests.helpers.saved_runs import Figure, fit, live, saver
from tests.helpers.tiny_run import fails
from tests.storage.test_checkpoints import words

__all__ = ["scores"]


class FullDisk(Callback):
    """Fills the disk, or what a file may grow to, when an epoch begins.

    Args:
        epoch: Its number.
        filler: A file to fill the disk with; without it no file may grow beyond a size that a checkpoint exceeds.
        free: Whether there is room again at the end of the run.
    """

    def __init__(self, epoch: int, filler: str | None = None, free: bool = False) -> None:
        self.epoch, self.filler, self.free = epoch, filler, free

    def _limit(self, size: int | None) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch != self.epoch:
            return
        if self.filler is None:
            self._limit(2**16)
            return
        with open(self.filler, "wb", buffering=0) as file:
            for size in (2**16, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError as error:
                    assert error.errno == errno.ENOSPC

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.free and self.filler is None:
            self._limit(None)
        elif self.free:
            os.unlink(str(self.filler))


@pytest.fixture(autouse=True)
def unlimited() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of eight megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command to make a small disk with")
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def full(epoch: int, **arguments: Any) -> list[str]:
    given = [f"--trainer.callbacks.{name}={value}" for name, value in ({"epoch": epoch} | arguments).items()]
    return ["--trainer.callbacks+=tests.callbacks.test_full_disk.FullDisk", *given, "--pictures.enabled=false"]


def steps(folder: Path) -> dict[str, int]:
    return {path.name: read_checkpoint(path)["global_step"] for path in sorted(folder.iterdir())}


def told(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING)


@pytest.mark.slow
def test_a_disk_that_stays_full_ends_with_one_line_of_what_is_missing(
    small_disk: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, scores: list[float]
) -> None:
    scores += [0.1, 0.2, 0.3]
    filler = small_disk / "filler"
    status, message = fails(capsys, *words(small_disk, *full(1, filler=filler), "--trainer.max_epochs=3"))
    folder = small_disk / "tiny" / "version_0"
    assert status == 1
    lines = told(caplog)
    # The best and the last of both epochs, and at the end of the run again.
    assert lines.count("last.ckpt: No space left on device); earlier checkpoints are kept") == 3
    assert [len(re.findall(rf"epoch={epoch:03d}.*: No space left", lines)) for epoch in (1, 2, 3)] == [1, 2, 0]
    assert lines.count("metrics.csv could not be written (No space left on device") >= 2
    assert lines.count("summary.json could not be written (No space left on device") >= 1
    assert message.splitlines()[-1] == (
        f"error: {folder / 'checkpoints'}: the disk refused last.ckpt of step 6 and the best, with val/score 0.3000 "
        "after epoch 2; other checkpoints there are complete, but older"
    )
    assert {name: step for name, step in steps(folder / "checkpoints").items() if "last" in name} == {"last.ckpt": 2}
    assert not list(small_disk.rglob(".*"))


def test_what_the_disk_refused_is_written_at_the_end_if_it_can_be(
    small_disk: Path, caplog: pytest.LogCaptureFixture, scores: list[float]
) -> None:
    scores += [0.1, 0.2]
    main(words(small_disk, *full(1, filler=small_disk / "filler", free=True)))
    folder = small_disk / "tiny" / "version_0"
    assert "last.ckpt: No space left on device" in told(caplog)
    assert not (folder / "pictures").exists()
    found = steps(folder / "checkpoints")
    assert sorted(found.values()) == [2, 4, 4]
    assert (found["last.ckpt"], found["previous.ckpt"]) == (4, 2)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert steps(folder / "checkpoints")[Path(summary["best_checkpoint"]).name] == 4
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val/score"]) for row in rows if row["val/score"]] == [0.1, 0.2]
    assert [int(row["step"]) for row in rows if row["train/loss"]] == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_refused_file_is_told_each_time_and_costs_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, scores: list[float]
) -> None:
    scores += [0.5, 0.1, 0.1]
    status, message = fails(capsys, *words(tmp_path, *full(1), "--trainer.max_epochs=3"))
    assert status == 1
    assert told(caplog).count("last.ckpt: File too large); earlier checkpoints are kept") == 3
    # The best was written in time.
    assert message.splitlines()[-1].endswith(
        "the disk refused last.ckpt of step 6; other checkpoints there are complete, but older"
    )
    folder = tmp_path / "tiny" / "version_0"
    assert json.loads((folder / "summary.json").read_text())["status"] == "incomplete"
    assert sorted(steps(folder / "checkpoints").values()) == [2, 2]


@pytest.mark.slow
def test_what_is_written_late_continues_as_what_is_written_in_time(tmp_path: Path) -> None:
    found = []
    for name, more in (("late", [FullDisk(0, free=True)]), ("in time", [])):
        first = saver(tmp_path / name, monitor="figure")
        fit(tmp_path, Figure(), *more, first, max_epochs=1, plugins=[SafeCheckpointIO()])
        assert first.missing is None
        second = saver(tmp_path / f"{name}, continued", monitor="figure")
        fit(tmp_path, Figure(), second, max_epochs=2, ckpt_path=tmp_path / name / "last.ckpt")
        found.append(read_checkpoint(tmp_path / f"{name}, continued" / "last.ckpt"))
    late, in_time = found
    assert (late["global_step"], late["epoch"]) == (in_time["global_step"], in_time["epoch"]) == (4, 1)
    assert all(torch.equal(value, live(late)[name]) for name, value in live(in_time).items())


@pytest.mark.slow
def test_the_best_that_is_missing_is_no_longer_missed_after_a_better_one(tmp_path: Path) -> None:
    class Refuse(SafeCheckpointIO):
        def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
            super().save_checkpoint(checkpoint, path, storage_options)
            if "epoch=001" in str(path):
                Path(path).unlink()
                self.failure = "refused"

    best = saver(tmp_path, monitor="figure")
    fit(tmp_path, NoFigureAtFirst(), best, max_epochs=3, plugins=[Refuse()])
    # 1/2 was refused, 1/3 is there.
    assert best.missing is not None and "figure 0.5000 after epoch 1" in best.missing
    least = saver(tmp_path / "least", monitor="figure", mode="min")
    fit(tmp_path, NoFigureAtFirst(), least, max_epochs=3, plugins=[Refuse()])
    assert least.missing is None


def test_a_table_keeps_its_rows_when_it_cannot_grow(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    append_rows(path, [{"step": 0, "b": 1.5}, {"step": 1}])
    append_rows(path, [{"step": 2, "b": 'a, "b"'}])
    before = path.read_bytes()
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    for more in ({"step": 3, "b": "x" * 5000}, {"step": 3, "a": "x" * 5000}):
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        with pytest.raises(OSError, match="File too large"):
            append_rows(path, [more])
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert path.read_bytes() == before
        assert [each.name for each in tmp_path.iterdir()] == ["table.csv"]
    append_rows(path, [{"step": 3, "a": 7}])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["a"], row["b"]) for row in rows] == [
        ("0", "", "1.5"),
        ("1", "", ""),
        ("2", "", 'a, "b"'),
        ("3", "7", ""),
    ]


def test_a_file_that_was_refused_is_named_as_it_would_be_called(tmp_path: Path) -> None:
    """Whether Python writes it or torch, and the file that was there before is still whole."""
    written = tmp_path / "a.ckpt"
    write_checkpoint({"state_dict": {}}, written)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        with pytest.raises(OSError, match="too large") as torchs:
            write_checkpoint({"state_dict": {"weight": torch.zeros(10_000)}}, written)
        with pytest.raises(OSError, match="too large") as own:
            write_json(tmp_path / "a.json", list(range(10_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert [error.value.filename for error in (torchs, own)] == [str(written), str(tmp_path / "a.json")]
    assert read_checkpoint(written) == {"state_dict": {}}
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as none, complete_file(tmp_path / "b.json") as unfinished:
        (unfinished / "below").touch()
    assert none.value.filename == str(unfinished / "below")
    with pytest.raises(FileNotFoundError) as lost, complete_file(tmp_path / "b.json"):
        pass
    assert lost.value.filename == str(tmp_path / "b.json")
