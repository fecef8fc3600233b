"""Loading processes that die or fall silent."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.data.loading import death_watch
from ocrnet_pl.data.loading.batch_loader import BatchLoader
from ocrnet_pl.data.shards.writer import pack
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import Batch, Sample, Taxonomy


class Failing(Source):
    """A source at one of whose images a process dies or sleeps, as often as there are files in a folder.

    Args:
        folder: Folder of the files, one of which is taken away each time.
        how: "die", "crash" or "sleep".
    """

    def __init__(self, folder: Path, how: str = "die", index: int = 13) -> None:
        self.inner = SyntheticSource(length=24, seed=5, size=64)
        self.folder, self.how, self.index = folder, how, index

    @property
    def taxonomy(self) -> Taxonomy:
        return self.inner.taxonomy

    def __len__(self) -> int:
        return len(self.inner)

    def image_path(self, index: int) -> str:
        return f"/data/{index}.png"

    def __getitem__(self, index: int) -> Sample:
        left = sorted(self.folder.iterdir())
        if index == self.index and left:
            left[0].unlink()
            if self.how != "sleep":
                os.kill(os.getpid(), signal.SIGKILL if self.how == "die" else signal.SIGSEGV)
            time.sleep(60)
        return self.inner[index]


def loaders(source: Source, timeout: float = 600.0) -> tuple[BatchLoader, BatchLoader]:
    data = JointDataModule(
        source, source, size=64, scales=[0.5, 1.0], batch_size=4, num_workers=2, seed=0, worker_timeout=timeout
    )
    return data.train_dataloader(), data.val_dataloader()


def images(loader: BatchLoader) -> list[torch.Tensor]:
    batches: list[Batch] = list(loader)
    return [batch.images for batch in batches]


def planned(folder: Path, failures: int) -> Path:
    folder.mkdir()
    for number in range(failures):
        (folder / str(number)).touch()
    return folder


@pytest.mark.parametrize("how", ["die", pytest.param("sleep", marks=pytest.mark.slow)])
def test_new_processes_load_what_the_lost_ones_owed(how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    timeout = 600.0 if how == "die" else 4.0
    whole = [images(loader) for loader in loaders(Failing(planned(tmp_path / "none", 0)))]
    handler = signal.getsignal(signal.SIGCHLD)
    # A wait that ends by time takes long: that of training ends as that of validation.
    for which, reference in list(enumerate(whole))[0 if how == "die" else 1 :]:
        loader = loaders(Failing(planned(tmp_path / str(which), 1), how), timeout)[which]
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            got = images(loader)
        assert len(got) == len(reference)
        assert all(torch.equal(a, b) for a, b in zip(got, reference, strict=True))
        lines = [entry.getMessage() for entry in caplog.records if "loading process" in entry.getMessage()]
        assert len(lines) == 1
        assert "new ones continue with batch" in lines[0]
        assert ("was killed by signal 9 (SIGKILL), at /data/13.png" if how == "die" else "/data/13.png") in lines[0]
        # The next epoch is not disturbed, and begins at its beginning.
        assert len(images(loader)) == len(reference)
    assert signal.getsignal(signal.SIGCHLD) == handler


CRASH = r"was killed by signal 11 \(SIGSEGV\), at /data/13\.png\); reading that file crashes the process"


def test_processes_that_die_again_and_again_end_the_run_in_one_line(tmp_path: Path) -> None:
    loader = loaders(Failing(planned(tmp_path / "many", 9), "crash"))[1]
    with pytest.raises(DataError, match=rf"data\.num_workers: loading processes failed 4 times in one epoch.*{CRASH}"):
        images(loader)


def test_packing_tells_which_file_a_process_was_at(tmp_path: Path) -> None:
    source = Failing(planned(tmp_path / "many", 1), "crash")
    with pytest.raises(DataError, match=rf"data\.num_workers: loading processes failed \(process \d+ {CRASH}"):
        pack(source, tmp_path / "packed", "", workers=1)


def test_errors_of_the_data_are_not_taken_for_lost_processes() -> None:
    class Broken(Failing):
        def __getitem__(self, index: int) -> Sample:
            raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        images(loaders(Broken(Path()))[1])


def test_a_wait_that_the_news_of_a_death_just_missed_still_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def check() -> None:
        calls.append(time.monotonic())
        if len(calls) > 2:
            raise RuntimeError("DataLoader worker is killed")

    monkeypatch.setattr(death_watch, "_error_if_any_worker_fails", check)
    receiving, sending = os.pipe()
    handler = signal.getsignal(signal.SIGCHLD)
    # A byte ends the wait if nothing reminds the main thread.
    rescue = threading.Timer(20, os.write, (sending, b"x"))
    rescue.start()
    try:
        with pytest.raises(RuntimeError, match="worker is killed"), death_watch._deaths_watched():
            os.read(receiving, 1)
    finally:
        rescue.cancel()
        os.close(receiving)
        os.close(sending)
    assert time.monotonic() - calls[0] < 10
    assert signal.getsignal(signal.SIGCHLD) == handler


def test_a_timeout_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"data\.worker_timeout: expected more than 0 seconds, got 0"):
        JointDataModule(worker_timeout=0)
