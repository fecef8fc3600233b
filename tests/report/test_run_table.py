"""The list of runs, from folders as runs leave them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ocrnet_pl.cli.main import main
from ocrnet_pl.report.run_table import read_runs, run_table
from tests.helpers.tiny_run import fails


def run(root: Path, name: str, *, config: str = "{}", status: Any = None, summary: Any = None) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config)
    for file, content in (("status.json", status), ("summary.json", summary)):
        if content is not None:
            (folder / file).write_text(json.dumps(content))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    run(
        tmp_path,
        "b/version_0",
        config="seed_everything: 3\ntrainer: {max_epochs: 7}\nmodel: {lr: 0.5}\nname: b\n",
        status={"state": "finished", "step": 70, "steps": 70},
        summary={
            **{"status": "finished", "command": "fit", "steps": 70, "seed": 3, "time_s": 61.0},
            "best": {"val/score": 0.5, "val/fused_map": 0.25, "val/miou": None},
        },
    )
    run(tmp_path, "a/version_0", status={"state": "running", "command": "fit", "step": 10, "steps": 40, "figures": {}})
    better = {"status": "finished", "command": "fit", "best": {"val/score": 0.75}, "seed": None}
    run(tmp_path, "deeper/c/version_1", summary=better)
    dead = {"state": "failed", "figures": {"val/score": 0.1}}
    run(tmp_path, "d/version_0", status=dead, summary={"status": "interrupted", "best": {}})
    return tmp_path


def test_runs_are_told_as_they_left_their_folders(root: Path) -> None:
    runs, faults = read_runs(root)
    assert not faults
    assert [(each.name, each.state) for each in runs] == [
        ("deeper/c/version_1", "finished"),
        ("b/version_0", "finished"),
        ("d/version_0", "failed"),
        ("a/version_0", "running"),
    ]
    assert [(each.step, each.steps, each.seed, each.seconds) for each in runs] == [
        (None, None, None, None),
        (70, 70, 3, 61.0),
        (None, None, None, None),
        (10, 40, None, None),
    ]
    assert runs[1].figures == {"score": 0.5, "fused_map": 0.25}
    assert runs[1].changes({"trainer.max_epochs": 7, "model.lr": 0.1}) == {"model.lr": 0.5}


def test_the_command_lists_them_and_writes_them(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = root / "e" / "version_0"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text("[1, 2")
    (folder / "config.yaml").write_text("a: &a {b: *a}\n")
    monkeypatch.setenv("COLUMNS", "80")
    main(["runs", "--trainer.default_root_dir", str(root), "--csv", str(root / "runs.csv")])
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert any("b/version_0" in line and "0.5000" in line and "0:01:01" in line for line in lines)
    assert any("10 of 40" in line for line in lines)
    [changes] = [line for line in lines if line.startswith("  b/version_0: ")]
    assert "trainer.max_epochs=7" in changes and "model.lr=0.5" in changes and "b/version_0: seed 3, " in changes
    assert "  a/version_0: no changes" in lines
    assert f"left out: {folder / 'summary.json'}: " in err
    assert "Traceback" not in err
    with (root / "runs.csv").open() as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert rows["b/version_0"]["model.lr"] == "0.5"
    assert (rows["b/version_0"]["score"], rows["a/version_0"]["score"]) == ("0.5", "")


def test_a_folder_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, error = fails(capsys, "runs", "--trainer.default_root_dir", str(tmp_path))
    assert status == 1
    assert error == f"error: trainer.default_root_dir: no run in {str(tmp_path)!r} has written anything yet\n"


def test_names_of_runs_are_printed_as_they_are(tmp_path: Path) -> None:
    run(tmp_path, "[/]/version_0", status={"status": "running"})
    console = Console(width=120, record=True)
    console.print(run_table(read_runs(tmp_path)[0]))
    assert " [/]/version_0 " in console.export_text()
