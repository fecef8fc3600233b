"""Each run has a folder of its own, also if several start at the same moment."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from ocrnet_pl.cli.main import main
from ocrnet_pl.cli.running import build
from ocrnet_pl.errors import DataError
from ocrnet_pl.storage.run_folder import claim_folder, held_folder, release_folder
from tests.helpers.tiny_run import fails

ROUNDS = 50


def _claims(barrier: Any, parent: Path, version: str | None, answers: Any) -> None:
    for number in range(ROUNDS):
        barrier.wait()
        try:
            answers.put((number, claim_folder(parent / str(number), version).name))
        except FileExistsError as error:
            answers.put((number, str(error)))


def _race(folder: Path, version: str | None, start: Callable[..., Any], barrier: Any, answers: Any) -> list[list[str]]:
    """Let two claim a folder of one name in every round, and return what they got."""
    racers = [start(target=_claims, args=(barrier, folder, version, answers)) for _ in range(2)]
    for racer in racers:
        racer.start()
    found = sorted(answers.get(timeout=60) for _ in range(2 * ROUNDS))
    for racer in racers:
        racer.join()
    return [[answer for number, answer in found if number == each] for each in range(ROUNDS)]


def _race_of_processes(folder: Path, version: str | None) -> list[list[str]]:
    context = multiprocessing.get_context("fork")
    barrier: Barrier = context.Barrier(2)
    return _race(folder, version, context.Process, barrier, context.Queue())


def _race_of_threads(folder: Path, version: str | None) -> list[list[str]]:
    return _race(folder, version, threading.Thread, threading.Barrier(2), Queue())


@pytest.mark.parametrize("race", [_race_of_processes, _race_of_threads])
def test_of_two_that_start_together_each_gets_its_own_folder(tmp_path: Path, race: Callable[..., Any]) -> None:
    for answers in race(tmp_path, None):
        assert sorted(answers) == ["version_0", "version_1"]


@pytest.mark.parametrize("race", [_race_of_processes, _race_of_threads])
def test_of_two_that_ask_for_one_version_one_gets_it(tmp_path: Path, race: Callable[..., Any]) -> None:
    for answers in race(tmp_path, "one"):
        won, lost = sorted(answers, key=len)
        assert won == "one"
        assert "already exists; give another --version" in lost


def test_the_next_version_is_beyond_all_others(tmp_path: Path) -> None:
    for name in ("version_2", "version_10", "version_x", "other", "version_"):
        (tmp_path / name).mkdir()
    (tmp_path / "version_11").touch()
    assert claim_folder(tmp_path).name == "version_12"
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="already exists; give another --version"):
        claim_folder(tmp_path, "gone")


def test_only_an_empty_folder_is_released(tmp_path: Path) -> None:
    folder = claim_folder(tmp_path / "name", "one")
    (folder / "metrics.csv").touch()
    release_folder(folder)
    assert (folder / "metrics.csv").is_file()
    (folder / "metrics.csv").unlink()
    release_folder(folder)
    assert not folder.exists()


class Refusing(Callback):
    """Refuses to start, as a datamodule does whose files are missing."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        raise DataError("no data")


def _words(tiny: Path, root: Path, *more: str) -> list[str]:
    return ["fit", "--config", str(tiny), "--trainer.default_root_dir", str(root), "--trainer.max_epochs=1", *more]


def _run(words: list[str], barrier: Barrier) -> None:
    cli = build(words)
    assert cli.trainer.logger is not None and cli.trainer.logger.version == 0
    # Both have looked which number is next before one of them takes it.
    barrier.wait(200)
    cli.execute()


# Above, two that ask for one version race for it.
@pytest.mark.slow
def test_two_command_lines_that_start_together_share_nothing(tiny: Path, tmp_path: Path) -> None:
    words = _words(tiny, tmp_path, "--trainer.limit_train_batches=1", "--pictures.enabled=false")
    # Forked, which spares them the seconds that importing Lightning takes.
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    starts = [context.Process(target=_run, args=(words, barrier)) for _ in range(2)]
    for start in starts:
        start.start()
    for start in starts:
        start.join(200)
    assert [start.exitcode for start in starts] == [0, 0]
    folders = sorted((tmp_path / "tiny").iterdir())
    assert [folder.name for folder in folders] == ["version_0", "version_1"]
    for folder in folders:
        summary = json.loads((folder / "summary.json").read_text())
        assert (summary["version"], summary["steps"]) == (folder.name, 1)
        assert "train/loss" in (folder / "metrics.csv").read_text() and (folder / "config.yaml").is_file()


def test_what_writes_nothing_leaves_no_folder(
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(_words(tiny, tmp_path, "--trainer.fast_dev_run=1"))
    fails(capsys, *_words(tiny, tmp_path, "--trainer.callbacks", "tests.storage.test_run_folder.Refusing"))
    assert not list(tmp_path.rglob("version_*"))


def test_a_folder_is_held_by_one_process_until_it_lets_go(tmp_path: Path) -> None:
    with held_folder(tmp_path):
        assert not any(tmp_path.iterdir())
        with (
            pytest.raises(FileExistsError, match="another process writes into it; wait for it"),
            held_folder(tmp_path, 0.0),
        ):
            pass
    with held_folder(tmp_path, 0.0):
        pass


def test_a_loading_process_that_is_left_over_does_not_hold_a_folder(tmp_path: Path) -> None:
    with held_folder(tmp_path):
        ready, end = os.pipe(), os.pipe()
        child = os.fork()
        if not child:
            os.write(ready[1], b"x")
            os.read(end[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
        with pytest.raises(FileExistsError), held_folder(tmp_path, 0.0):
            pass
    try:
        with held_folder(tmp_path, 0.0):
            pass
    finally:
        os.write(end[1], b"x")
        os.waitpid(child, 0)
