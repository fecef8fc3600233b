"""An empty text, such as that of a variable of the shell that is not set, is not the current folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.tiny_run import fails


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["convert", "--output", ""], "output: expected Path or null, got ''"),
        (["check", "--output="], "output: expected Path or null, got ''"),
        (["runs", "--csv", ""], "csv: expected Path or null, got ''"),
        (["init", ""], "folder: expected Path, got ''"),
        (["runs", "--trainer.default_root_dir", ""], "trainer.default_root_dir: expected a path, got ''"),
        (["check", "--data.root", ""], "data.root: expected a path, got ''"),
        (["fit", "--data.predict_path", ""], "data.predict_path: expected a path, got ''"),
        (["fit", "--init_from", ""], "init_from: expected a path, got ''"),
    ],
)
def test_an_empty_path_is_refused_by_its_option(
    words: list[str],
    line: str,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    config = [] if words[0] in ("init", "runs") else ["--config", str(tiny)]
    status, error = fails(capsys, *words, *config)
    assert error.splitlines()[-1].startswith(f"error: {line}"), error
    assert status == 2 and not list(tmp_path.iterdir())


def test_an_empty_path_in_a_config_is_refused_by_its_line(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text("# mine\noutput: ''\n")
    status, error = fails(capsys, "pack", "--config", str(tiny), "--config", "own.yaml")
    assert status == 2 and error == "error: config 'own.yaml', line 2: output: expected Path or null, got ''\n"
