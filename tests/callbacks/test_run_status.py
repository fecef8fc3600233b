"""What somebody who watches a run from outside reads in its folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ocrnet_pl.callbacks import run_status
from ocrnet_pl.callbacks.run_status import RunStatus
from ocrnet_pl.callbacks.throughput import Throughput
from ocrnet_pl.cli.main import main
from tests.helpers.tiny_run import TINY

SEEN: list[dict[str, Any]] = []


def read(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    return content


class Watching(Callback):
    """Keeps what the file says before each batch but the first; at a step, it raises an error.

    Args:
        fail_at: The step; -1 for never.
    """

    def __init__(self, fail_at: int = -1) -> None:
        self.fail_at = fail_at

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == self.fail_at:
            raise ArithmeticError("planned")
        if trainer.global_step:
            SEEN.append(read(Path(str(trainer.log_dir))))

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx and not trainer.sanity_checking:
            SEEN.append(read(Path(str(trainer.log_dir))))


def words(folder: Path, *more: str) -> list[str]:
    (folder / "tiny.yaml").write_text(TINY)
    return [
        *("fit", "--config", str(folder / "tiny.yaml"), "--trainer.default_root_dir", str(folder)),
        *("--pictures.enabled=false", "--trainer.callbacks+=tests.callbacks.test_run_status.Watching", *more),
    ]


def test_the_file_follows_a_run_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_status, "_SECONDS", 0.0)
    SEEN.clear()
    main(words(tmp_path))
    # Two steps and two batches of validation in each of two epochs; nothing is read before the first step.
    places = [(each["stage"], each["epoch"], each["step"], each["batch"], each["batches"]) for each in SEEN]
    assert places == [
        ("training", 1, 1, 1, 2),
        ("validation", 1, 2, 1, 2),
        # The last thing that was written before is the end of the validation.
        ("validation", 1, 2, 2, 2),
        ("training", 2, 3, 1, 2),
        ("validation", 2, 4, 1, 2),
    ]
    assert {(each["state"], each["command"], each["epochs"], each["steps"]) for each in SEEN} == {
        ("running", "fit", 2, 4)
    }
    assert {each["process"] for each in SEEN} == {os.getpid()}
    assert SEEN[0]["figures"] == {}
    assert SEEN[2]["figures"]["val/miou"] >= 0
    assert SEEN[3]["seconds_left"] > 0
    assert SEEN[0]["loss"] > 0
    folder = tmp_path / "tiny" / "version_0"
    end = read(folder)
    assert (end["state"], end["epoch"], end["step"], end["seconds_left"]) == ("finished", 2, 4, None)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert end["figures"].items() <= summary["last"].items()
    assert "val/score" in end["figures"]
    assert end["started"] <= SEEN[0]["updated"] <= end["updated"]


def test_a_run_that_dies_of_an_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArithmeticError, match="planned"):
        main(words(tmp_path, "--trainer.callbacks.fail_at=1"))
    end = read(tmp_path / "tiny" / "version_0")
    assert (end["state"], end["step"]) == ("failed", 1)


@pytest.mark.parametrize(
    ("reason", "state"), [(KeyboardInterrupt, "interrupted"), (SIGTERMException, "interrupted"), (OSError, "failed")]
)
def test_a_run_that_is_stopped_has_not_failed(
    reason: type[BaseException], state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(RunStatus, "_write", lambda self, trainer, state: written.append(state))
    trainer = Trainer(logger=False, enable_progress_bar=False, accelerator="cpu")
    RunStatus(Throughput()).on_exception(trainer, LightningModule(), reason())
    assert written == [state]


def test_between_two_writings_some_seconds_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(run_status.time, "monotonic", lambda: clock[0])
    status, written = RunStatus(Throughput()), []
    monkeypatch.setattr(RunStatus, "_write", lambda self, trainer, state: written.append(clock[0]))
    status._due = 105.0
    for clock[0] in (100.0, 104.9, 105.0):
        status._advance(Trainer(logger=False, enable_progress_bar=False, accelerator="cpu"), "training", 0, 1)
    assert written == [105.0]
