"""Ctrl-C, in every phase: one line, no traceback, and the status that a shell gives it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from ocrnet_pl.cli.main import main
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.drawing.overlays import write_png
from ocrnet_pl.report import runs
from ocrnet_pl.report.runs import Run
from ocrnet_pl.storage.checkpoints import read_checkpoint
from ocrnet_pl.structures import Sample
from tests.helpers.builders import TinyEncoder
from tests.helpers.processes import in_a_process
from tests.helpers.tiny_run import TINY


def press() -> None:
    """Press Ctrl-C: a terminal tells all processes of its group."""
    os.killpg(os.getpgid(0), signal.SIGINT)


class PressAt(Callback):
    """Presses Ctrl-C in a hook, or terminates the process.

    Args:
        where: The hook.
        step: When so many steps are done.
        terminate: Whether it terminates the process.
    """

    def __init__(self, where: str, step: int = 0, terminate: bool = False) -> None:
        self.step, self.terminate = step, terminate
        setattr(self, where, self._look)

    def _look(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.step and not trainer.sanity_checking:
            os.kill(os.getpid(), signal.SIGTERM) if self.terminate else press()


class Pressing(SyntheticSource):
    """Drawn scenes, while one of which somebody presses Ctrl-C.

    Args:
        length: Number of scenes.
        seed: Seed of the scenes.
        size: Side length.
        at: The scene; -1 for while they are looked for.
    """

    def __init__(self, length: int = 12, seed: int = 0, size: int = 64, at: int = -1) -> None:
        super().__init__(length, seed=seed, size=size)
        self.at = at
        if at == -1:
            press()

    def __getitem__(self, index: int) -> Sample:
        if index == self.at:
            press()
        return super().__getitem__(index)


def interrupted(folder: Path, command: str, *words: str) -> str:
    """Run a command line that somebody interrupts; return the line that says so."""
    status, text = ended(folder, command, *words)
    assert status == 130, text
    lines = [line for line in text.splitlines() if "interrupt" in line.lower()]
    assert len(lines) == 1, text
    assert text.splitlines()[-1] == lines[0]
    return lines[0]


def ended(folder: Path, command: str, *words: str) -> tuple[int | None, str]:
    """Run a command line in a process; return its status and what it wrote to the error stream."""
    (folder / "tiny.yaml").write_text(TINY)
    error = folder / "stderr"
    own = ["--config", str(folder / "tiny.yaml"), "--trainer.default_root_dir", str(folder), "--pictures.enabled=false"]

    def run() -> None:
        for number, name in ((2, error), (1, folder / "stdout")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stderr, sys.stdout = os.fdopen(2, "w", buffering=1), os.fdopen(1, "w", buffering=1)
        main([command, *own, *words])

    status = in_a_process(run)
    text = error.read_text()
    assert "Traceback" not in text, text
    return status, text


def pressing(where: str, step: int = 0) -> list[str]:
    callback = "--trainer.callbacks"
    return [f"{callback}+=tests.cli.test_interrupt.PressAt", f"{callback}.where={where}", f"{callback}.step={step}"]


def summary(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "tiny" / "version_0" / "summary.json").read_text())
    return content


def test_in_training_the_last_checkpoint_is_that_of_the_step_before(tmp_path: Path) -> None:
    line = interrupted(tmp_path, "fit", *pressing("on_before_backward", 1))
    last = tmp_path / "tiny" / "version_0" / "checkpoints" / "last.ckpt"
    assert line == f"interrupted at step 1; continue with --ckpt_path {last}"
    assert read_checkpoint(last)["global_step"] == 1
    assert summary(tmp_path)["status"] == "interrupted"
    status = json.loads((tmp_path / "tiny" / "version_0" / "status.json").read_text())
    assert (status["state"], status["step"]) == ("interrupted", 1)


@pytest.mark.slow
def test_before_the_first_step_there_is_no_checkpoint(tmp_path: Path) -> None:
    line = interrupted(tmp_path, "fit", *pressing("on_before_backward"))
    assert line == "interrupted at step 0; no checkpoint had been written"


@pytest.mark.slow
def test_in_validation_the_steps_before_are_saved(tmp_path: Path) -> None:
    interrupted(tmp_path, "fit", *pressing("on_validation_batch_start", 2))
    assert read_checkpoint(tmp_path / "tiny" / "version_0" / "checkpoints" / "last.ckpt")["global_step"] == 2


def source(split: str, at: int) -> list[str]:
    return [f"--data.{split}=tests.cli.test_interrupt.Pressing", f"--data.{split}.init_args.at={at}"]


@pytest.mark.parametrize(
    "command", ["fit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("check", "pack"))]
)
def test_while_building(command: str, tmp_path: Path) -> None:
    more = ["--output", str(tmp_path / "packed")] if command == "pack" else []
    assert interrupted(tmp_path, command, *source("train", -1), *more) == "interrupted"


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("command", [pytest.param("check", marks=pytest.mark.slow), "pack"])
def test_while_the_data_is_read(command: str, workers: int, tmp_path: Path) -> None:
    more = ["--output", str(tmp_path / "output"), f"--data.num_workers={workers}"]
    assert interrupted(tmp_path, command, *source("train", 5), *more) == "interrupted"
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.glob("output/findings.csv"))


@pytest.mark.slow
def test_in_loading_processes(tmp_path: Path) -> None:
    interrupted(tmp_path, "fit", *source("train", 5), "--data.num_workers=2")


class PressingEncoder(TinyEncoder):
    """Somebody presses Ctrl-C while it runs."""

    def forward(self, images: Tensor) -> list[Tensor]:
        press()
        return super().forward(images)


@pytest.mark.slow
def test_while_measuring(tmp_path: Path) -> None:
    encoder = "--model.encoder.class_path=tests.cli.test_interrupt.PressingEncoder"
    assert interrupted(tmp_path, "memory", encoder) == "interrupted"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a finished run."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.yaml").write_text(TINY)
    short = ["--trainer.max_epochs=1", "--pictures.enabled=false", "--trainer.default_root_dir", str(folder)]
    main(["fit", "--config", str(folder / "tiny.yaml"), *short])
    return folder / "tiny" / "version_0" / "checkpoints" / "last.ckpt"


@pytest.mark.slow
def test_while_evaluating(checkpoint: Path, tmp_path: Path) -> None:
    words = [*pressing("on_validation_batch_start", 0), "--ckpt_path", str(checkpoint)]
    assert interrupted(tmp_path, "validate", *words) == "interrupted"


@pytest.mark.parametrize("terminate", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_prediction_says_how_it_goes_on(terminate: bool, checkpoint: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.png", "b.png"):
        write_png(torch.zeros(3, 64, 64, dtype=torch.uint8), images / name)
    words = [*pressing("on_predict_batch_start"), f"--trainer.callbacks.terminate={terminate}"]
    words += ["--data.eval_batch_size=1", "--ckpt_path", str(checkpoint), "--trust=tests"]
    words += ["--data.predict_path", str(images)]
    status, text = ended(tmp_path, "predict", *words)
    said = "terminated" if terminate else "interrupted"
    assert text.splitlines()[-1] == f"{said}; continue with --resume --version version_0"
    assert status == (143 if terminate else 130)
    own = ["--config", str(tmp_path / "tiny.yaml"), "--trainer.default_root_dir", str(tmp_path)]
    main(["predict", *own, *words[-5:], "--pictures.enabled=false", "--resume", "--version", "version_0"])
    assert (tmp_path / "tiny" / "version_0" / "predictions" / "images.json").is_file()


@pytest.mark.slow
def test_while_calibrating(checkpoint: Path, tmp_path: Path) -> None:
    words = [*source("val", 3), "--ckpt_path", str(checkpoint), "--trust=tests", "--output", str(tmp_path / "new.ckpt")]
    assert interrupted(tmp_path, "calibrate", *words) == "interrupted"
    assert not (tmp_path / "new.ckpt").exists()


CHILD = """
import signal, sys, time
def save(*_):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    time.sleep(0.2)
    print("x" * 200_000, "saved")
    sys.exit(130)
signal.signal(signal.SIGINT, save)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("terminal", [True, False])
def test_a_report_and_its_run_end_together(terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal tells both; `kill -INT` tells the report alone, which has to tell its run."""
    monkeypatch.setattr(runs, "_SECONDS_TO_NOTICE", 1.0 if terminal else 0.1)
    run = Run("a run", tmp_path / "run", ("-c", CHILD))

    def report() -> None:
        from ocrnet_pl.cli.main import interruptible

        os.dup2(os.open(tmp_path / "stderr", os.O_WRONLY | os.O_CREAT), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stderr, sys.stdout = os.fdopen(2, "w", buffering=1), os.fdopen(1, "w")
        own = os.getpid()
        thread = threading.Thread(target=lambda: (wait_for(run.log, "ready"), (press if terminal else tell)()))
        tell = partial(os.kill, own, signal.SIGINT)
        thread.start()
        with interruptible():
            run.execute()

    assert in_a_process(report) == 130
    assert run.log.read_text().endswith("saved\n")
    assert (tmp_path / "stderr").read_text() == f"interrupted; {runs.INTERRUPTED}\n"


STAYS = """
import signal, sys, time
def save(*_):
    print("saved")
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(60)
"""


def test_a_report_that_is_terminated_ends_its_run_first(tmp_path: Path) -> None:
    run = Run("a run", tmp_path / "run", ("-c", STAYS))

    def report() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        tell = partial(os.kill, os.getpid(), signal.SIGTERM)
        threading.Thread(target=lambda: (wait_for(run.log, "ready\n"), tell())).start()
        run.execute()

    assert in_a_process(report) == 143
    assert run.log.read_text() == "ready\nsaved\n"


def wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (path.is_file() and text in path.read_text()):
        time.sleep(0.02)


def test_a_run_that_was_interrupted_by_itself_interrupts_the_report(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match="the same command keeps the finished runs"):
        Run("a run", tmp_path / "run", ("-c", "raise SystemExit(130)")).execute()
