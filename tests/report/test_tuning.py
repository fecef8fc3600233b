"""The search for settings: its space, its trials, and what it writes."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocrnet_pl.cli.main import main
from ocrnet_pl.errors import RunError
from ocrnet_pl.report import tuning
from ocrnet_pl.report.search_space import (
    AUGMENTATION,
    TASK_WEIGHT,
    Setting,
    default_space,
    present_values,
    read_space,
    space_in,
    with_values,
)
from ocrnet_pl.report.tuning import Search, run_search, scores_in
from tests.helpers.tiny_run import TINY, fails

optuna = pytest.importorskip("optuna")

RATE = "model.optimizer.init_args.lr"
CONFIG: dict[str, Any] = {
    "model": {
        "detection": {"class_path": "AnchorFreeDecoder"},
        "segmentation": {"class_path": "SubPixelDecoder"},
        "balancing": None,
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.002}},
    },
    "data": {
        "size": 256,
        "train_transforms": [
            {"class_path": "RandomFlip"},
            {"class_path": "ColorJitter", "init_args": {"brightness": 0.2, "contrast": 0.1, "hue": 0.4}},
        ],
    },
}


def test_the_default_space_fits_the_config_and_contains_it() -> None:
    space = default_space(CONFIG)
    assert space == {
        RATE: Setting(low=0.0005, high=0.008, log=True),
        TASK_WEIGHT: Setting(low=0.25, high=4.0, log=True),
        AUGMENTATION: Setting(low=0.0, high=2.0),
        "data.size": Setting((192, 256, 320)),
    }
    assert present_values(CONFIG, space) == {RATE: 0.002, TASK_WEIGHT: 1.0, AUGMENTATION: 1.0, "data.size": 256}
    boxes = CONFIG | {"model": CONFIG["model"] | {"segmentation": None}, "data": {"size": [256, 512]}}
    assert list(default_space(boxes)) == [RATE]


def test_values_go_where_they_belong_and_the_config_stays() -> None:
    before = yaml.safe_dump(CONFIG)
    flip = "data.train_transforms.0.class_path"
    changed = with_values(CONFIG, {RATE: 0.004, TASK_WEIGHT: 2.0, AUGMENTATION: 1.5, flip: "RandomRotate90"})
    assert yaml.safe_dump(CONFIG) == before
    assert changed["model"]["optimizer"]["init_args"]["lr"] == 0.004
    assert changed["model"]["balancing"] == {"class_path": "FixedWeights", "init_args": {"detection": 2.0}}
    first, jitter = changed["data"]["train_transforms"]
    assert first["class_path"] == "RandomRotate90"
    # A hue turns by half a circle at most.
    wanted = {"brightness": pytest.approx(0.3), "contrast": pytest.approx(0.15), "hue": 0.5}
    assert jitter["init_args"] == wanted


def test_a_space_is_read_as_sweeps_have_it() -> None:
    given = {
        "method": "bayes",
        "parameters": {
            RATE: {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
            "data.size": {"values": [128, 256]},
        },
    }
    assert read_space(given, "s.yaml", CONFIG) == {
        RATE: Setting(low=1e-4, high=1e-2, log=True),
        "data.size": Setting((128, 256)),
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "s.yaml: expected settings by their keys"),
        ({"data.sise": {"values": [1]}}, "s.yaml: the config has no key 'data.sise'; did you mean 'data.size'?"),
        ({"data.size": {"min": 5, "max": 2}}, "s.yaml: data.size: expected {values"),
        ({"data.size": 5}, "s.yaml: data.size: expected {values"),
        ({RATE: {"distribution": "log_uniform_values", "min": 0, "max": 1}}, "above 0"),
    ],
)
def test_a_wrong_space_is_one_line(given: Any, said: str) -> None:
    with pytest.raises(ValueError, match=r"s\.yaml: ") as error:
        read_space(given, "s.yaml", CONFIG)
    assert said in str(error.value) and "\n" not in str(error.value)


def search(folder: Path, **options: Any) -> Search:
    given = {"seconds": 60.0, "trials": None, "storage": None, "metric": "val/score", "maximize": True, "seed": 0}
    return Search(output=folder, name="study", **(given | options))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [1\n", r"space '.*s\.yaml', line 2: this is not valid YAML"),
        (b"\xff\xfe\x00", r"s\.yaml: .*UTF-8"),
        (b"", r"s\.yaml: expected settings by their keys"),
        (None, r"s\.yaml: there is no such"),
    ],
)
def test_a_file_that_is_no_space_is_one_line(content: bytes | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "s.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=said) as caught:
        space_in(tmp_path / "s.yaml", CONFIG)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["nonsense", "sqlite:////no/such/folder/a.db", "nodialect://me:word5@host/a"])
def test_a_database_that_cannot_be_opened_is_one_line(address: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^storage '.*': it cannot be opened \(.*\); give the address") as caught:
        search(tmp_path, storage=address).open()
    assert "\n" not in str(caught.value) and "word5" not in str(caught.value)


SPACE = {RATE: Setting(low=0.0005, high=0.008, log=True), "data.size": Setting((192, 256))}


def test_the_config_comes_first_and_a_search_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def run(self: Any, config: str, deadline: float) -> tuple[Any, float]:
        rate = yaml.safe_load(config)["model"]["optimizer"]["init_args"]["lr"]
        tried.append(rate)
        return optuna.trial.TrialState.COMPLETE, 1 - abs(rate - 0.004) * 100

    monkeypatch.setattr(tuning._Trial, "run", run)
    run_search(search(tmp_path, trials=3), CONFIG, SPACE, yaml.safe_dump)
    assert tried[0] == 0.002 and len(set(tried)) == 3
    study = run_search(search(tmp_path, trials=6), CONFIG, SPACE, yaml.safe_dump)
    assert len(tried) == len(set(tried)) == 6 == len(study.trials)
    best = min(tried, key=lambda rate: abs(rate - 0.004))
    assert yaml.safe_load((tmp_path / "best.yaml").read_text()) == with_values(CONFIG, study.best_params)
    assert study.best_params[RATE] == best
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row[RATE]) for row in rows] == tried and {row["state"] for row in rows} == {"complete"}
    assert (tmp_path / "trials.png").is_file()


SCRIPT = """
import sys, time
from pathlib import Path
folder, scores = Path(sys.argv[1]), sys.argv[2:]
folder.mkdir(parents=True)
text = "step,val/score\\n"
for step, score in enumerate(scores):
    text += f"{step},{score}\\n"
    (folder / "metrics.csv").write_text(text)
    time.sleep(0.3)
if scores == ["bad"]:
    sys.exit("error: no such data")
time.sleep(0 if len(scores) == 2 else 60)
"""


def test_what_falls_behind_is_ended_and_what_fails_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = [*([["0.5", "0.6"]] * 4), ["0.1"], ["bad"], ["0.7", "0.8"]]
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)

    def command(self: Any, config: Path) -> list[str]:
        return [sys.executable, str(script), str(self.folder), *lists[self.trial.number]]

    monkeypatch.setattr(tuning._Trial, "_command", command)
    monkeypatch.setattr(tuning, "_SECONDS_BETWEEN_LOOKS", 0.05)
    study = run_search(search(tmp_path / "out", trials=7), CONFIG, SPACE, yaml.safe_dump)
    assert [each.state.name for each in study.trials] == [*["COMPLETE"] * 4, "PRUNED", "FAIL", "COMPLETE"]
    assert study.best_trial.number == 6 and study.best_value == 0.8
    said = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"trial 5: failed in \S+; best 0.6000 \(trial \d\): no such data; its log: .*0005.log", said[5])
    lists[0] = ["bad"]
    with pytest.raises(RunError, match=r"the first trial failed: no such data; its log: .*trial_0000.log"):
        run_search(search(tmp_path / "other"), CONFIG, SPACE, yaml.safe_dump)
    lists[0] = ["0.1"]
    with pytest.raises(RunError, match="no trial ended in 0:00:01; give more --budget"):
        run_search(search(tmp_path / "third", seconds=1.0), CONFIG, SPACE, yaml.safe_dump)


def test_scores_are_read_while_they_are_written(tmp_path: Path) -> None:
    table = tmp_path / "metrics.csv"
    assert scores_in(table, "val/score") == []
    table.write_text("step,train/loss,val/score\n1,0.5,\n2,,0.25\n3,,nan\n4,,0.5\n5,0.")
    assert scores_in(table, "val/score") == [0.25, 0.5]


@pytest.mark.slow
def test_a_search_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    words = ["--config", str(tmp_path / "tiny.yaml"), "--output", str(tmp_path / "out"), "--trials", "2"]
    main(["tune", *words, "--trial_steps", "4", "--validations", "2", "--budget", "10m"])
    said = capsys.readouterr().out
    assert "2 trials finished, 0 ended early, 0 failed" in said and "0 (the config)" in said
    assert yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())["trainer"]["max_steps"] == 4
    status, error = fails(capsys, "tune", *words, "--budget", "soon")
    assert status == 2 and "budget: expected a duration above 0" in error
    status, error = fails(capsys, "tune", *words, "--trainer.callbacks+=LearningRateFinder")
    assert status == 1 and "a finder would search in each trial again" in error
