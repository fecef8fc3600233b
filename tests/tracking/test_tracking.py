from __future__ import annotations

from pathlib import Path

import pytest
import wandb

from ocrnet_pl.tracking import wandb_tracker as tracking
from ocrnet_pl.tracking.wandb_tracker import WandbTracker


def continued(folder: Path) -> WandbTracker:
    tracker = WandbTracker()
    tracker.use_folder(folder, "run")
    tracker.continue_run("abcd1234", folder)
    return tracker


@pytest.fixture(autouse=True)
def ended() -> object:
    yield
    wandb.teardown()


def test_a_continued_run_without_tracking_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")

    def ask(path: str) -> list[dict[str, float]]:
        raise AssertionError("there is nobody to ask")

    monkeypatch.setattr(tracking, "sent_rows", ask)
    tracker = continued(tmp_path)
    tracker.log_metrics({"train/loss": 1.0}, 3)
    tracker.finish(0)


def test_a_continued_run_whose_history_cannot_be_read_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path, run_id: str) -> list[dict[str, float]]:
        raise ValueError("unreadable")

    monkeypatch.setattr(tracking, "kept_rows", fail)
    tracker = continued(tmp_path)
    with pytest.warns(UserWarning, match="may be logged twice: unreadable"):
        tracker.log_metrics({"train/loss": 1.0}, 3)
    tracker.log_metrics({"train/loss": 1.0}, 4)
    tracker.finish(0)
