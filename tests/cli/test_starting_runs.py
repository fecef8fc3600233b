"""Commands that start other runs find what these would be refused for, before the first of them is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocrnet_pl.report import runs
from tests.helpers.tiny_run import fails

TEACHER = ("--model.teacher", "Teacher", "--model.teacher.checkpoint")


MISTAKES = (
    (("--trainer.max_steps=-5",), "trainer.max_steps: expected at least 1, or -1 for no limit, got -5"),
    (("--trainer.max_epochs=0",), "trainer.max_epochs: expected at least 1, or -1 for no limit, got 0"),
    (("--init_from", "gone.ckpt"), "checkpoint 'gone.ckpt': no such file"),
    (("--init_map", "{a: b}"), "init_map: there is nothing that it belongs to; give --init_from FILE"),
    ((*TEACHER, "gone.ckpt"), "model.teacher: checkpoint 'gone.ckpt': there is no such file; training needs it"),
    ((*TEACHER, "damaged.ckpt"), "model.teacher: checkpoint 'damaged.ckpt': "),
    (("--data.train", "null"), "data.train: there is no source to train on"),
)


@pytest.mark.parametrize(
    ("command", "words", "line"),
    [
        (command, words, line)
        for command in ("joint-report", "cross-validate", "tune")
        for words, line in MISTAKES
        # What a trial starts from is not an option of tune.
        if command != "tune" or not words[0].startswith("--init")
    ],
)
def test_what_no_run_could_do_is_refused_first(
    command: str,
    words: tuple[str, ...],
    line: str,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "_run_and_show", lambda *_: pytest.fail("a run was started"))
    Path("damaged.ckpt").write_bytes(b"damaged")
    status, error = fails(capsys, command, "--config", str(tiny), "--output", "out", *words)
    assert status in (1, 2) and error.startswith(f"error: {line}") and error.count("\n") == 1, error
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.ckpt"]
