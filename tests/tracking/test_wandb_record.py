"""What Weights & Biases has of a run, read back from what it keeps offline."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
import yaml

from ocrnet_pl.cli.main import main
from ocrnet_pl.tracking.wandb_history import MODEL, STEP, _messages, has_item, kept_rows
from ocrnet_pl.tracking.wandb_tracker import WandbTracker
from tests.helpers.project import CONFIGS
from tests.helpers.tiny_run import TINY

REPORT = ("box_curves", "precision_recall", "f1", "box_confusion", "boxes", "worst")


def fit(folder: Path, *words: str) -> None:
    (folder / "tiny.yaml").write_text(TINY)
    overlay = str(CONFIGS / "overlays" / "tracking" / "wandb.yaml")
    shared = ["--trainer.default_root_dir", str(folder), "--report.enabled=true", "--report.pictures=2"]
    pictures = ["--pictures.count=1", "--pictures.every_n_epochs=1"]
    # Nearly untrained, it is sure of nothing.
    pictures.append("--model.postprocess.init_args.decode.init_args.score_threshold=0.0")
    main(["fit", "--config", str(folder / "tiny.yaml"), "--config", overlay, *shared, *pictures, *words])
    # The run is over, and a further one in this process is another.
    assert wandb.run is None
    wandb.teardown()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """The folder of a training of two epochs, with two steps each and without an account, and what its tracker said."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DATA_DIR"):
            patch.delenv(name, raising=False)
        folder = tmp_path_factory.mktemp("runs")
        patch.setenv("NETRC", str(folder / "no_login"))
        patch.setattr("ocrnet_pl.tracking.wandb_tracker.rank_zero_info", said.append)
        fit(folder)
        patch.setenv("WANDB_MODE", "offline")
        yield folder / "tiny" / "version_0", said


@pytest.fixture(scope="module")
def run(trained: tuple[Path, list[str]]) -> Path:
    return trained[0]


def run_id(run: Path) -> str:
    return str(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["wandb_run"])


def items(run: Path) -> list[tuple[int, str]]:
    """Return step and name of each picture, table and chart in a run's history."""
    names = ["pictures", *(f"report/{name}" for name in REPORT)]
    rows = list(kept_rows(run, run_id(run)))
    return sorted((int(row[STEP]), name) for row in rows for name in names if has_item(row, name))


def artifacts(run: Path, kind: str) -> list[Any]:
    return [each.artifact for each in _messages(run, run_id(run), "artifact") if each.artifact.type == kind]


def table(run: Path, name: str) -> dict[str, Any]:
    (found,) = (
        content
        for artifact in artifacts(run, "run_table")
        for content in artifact.manifest.contents
        if content.path == f"{name}.table.json"
    )
    return dict(json.loads(Path(found.local_path).read_text()))


def test_it_goes_offline_by_itself(trained: tuple[Path, list[str]]) -> None:
    run, (said,) = trained
    assert "logging offline because there is no account" in said
    assert list(run.glob("wandb/offline-run-*/*.wandb"))
    assert (run / "config.yaml").is_file()
    assert (run / "metrics.csv").is_file()
    assert list(run.glob("wandb/offline-run-*/files/media/images/pictures_*.png"))


def test_each_item_is_there_once(run: Path) -> None:
    report = [(4, f"report/{name}") for name in REPORT]
    assert items(run) == sorted([(2, "pictures"), (4, "pictures"), *report])
    for kind in (MODEL, "run_table"):
        for artifact in artifacts(run, kind):
            for content in artifact.manifest.contents:
                # Whoever sends the folder later sends all of it.
                assert Path(content.local_path).is_relative_to(run) and Path(content.local_path).is_file()
    assert "WANDB_DATA_DIR" not in os.environ


def test_the_tables_are_those_of_the_page(run: Path) -> None:
    assert (run / "report.html").is_file()
    for name, columns in (("boxes", 6), ("box_curves", 6)):
        with (run / "report" / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        stored = table(run, f"report/{name}")
        assert len(stored["data"]) == len(rows) > 0 and len(stored["columns"]) == columns
        scores = [row[stored["columns"].index("score")] for row in stored["data"]]
        assert scores == [pytest.approx(float(row["score"]), abs=1e-4) if row["score"] else None for row in rows]
        assert [row[stored["columns"].index("class")] for row in stored["data"]] == [row["class"] for row in rows]
    with (run / "report" / "box_confusion.csv").open(newline="") as file:
        (*_, last) = csv.reader(file)
    stored = table(run, "report/box_confusion_table")["data"]
    assert [count for true, _, count in stored if true == "background"] == [int(cell) for cell in last[2:]]
    overlay = table(run, "report/boxes")["data"][0][0]
    assert set(overlay["boxes"]) == {"truth", "prediction"} and overlay["masks"]


def test_checkpoints_are_versions_that_say_what_they_are(run: Path) -> None:
    versions = artifacts(run, MODEL)
    aliases = sorted(alias for each in versions for alias in each.aliases if alias != "latest")
    assert aliases == ["best", "last"]
    assert {each.name for each in versions} == {f"model-{run_id(run)}"}
    summary = json.loads((run / "summary.json").read_text())
    for each in versions:
        metadata = json.loads(each.metadata)
        assert set(metadata["aliases"]) == set(each.aliases) - {"latest"}
        assert yaml.safe_load(metadata["config"]) == yaml.safe_load((run / "config.yaml").read_text())
        assert metadata["monitor"] == "val/score" and set(metadata["data"]) == {"train", "val"}
        assert "disc" in metadata["categories"] and json.loads(metadata["taxonomy"])
        if "best" in each.aliases:
            assert metadata["score"] == pytest.approx(summary["best"]["val/score"])
        if "last" in each.aliases:
            assert metadata["step"] == 4 and metadata["score"] == pytest.approx(summary["last"]["val/score"])
        contents = {content.path: Path(content.local_path) for content in each.manifest.contents}
        assert set(contents) == {"model.ckpt", "config.yaml"}
        assert torch.load(contents["model.ckpt"], weights_only=True)["global_step"] == metadata["step"]


def test_training_continues_from_a_fetched_artifact(run: Path, tmp_path: Path) -> None:
    fetched = tmp_path / "artifacts" / "model" / "model.ckpt"
    fetched.parent.mkdir(parents=True)
    (last,) = (each for each in artifacts(run, MODEL) if "last" in each.aliases)
    (path,) = (content.local_path for content in last.manifest.contents if content.path == "model.ckpt")
    shutil.copy(path, fetched)
    fit(tmp_path, f"--ckpt_path={fetched}", "--trainer.max_epochs=3", "--trainer.logger.log_model=all")
    continued = tmp_path / "tiny" / "version_0"
    assert run_id(continued) == run_id(run)
    assert items(continued) == sorted([(6, "pictures"), *((6, f"report/{name}") for name in REPORT)])
    # Each validation, and not again at the end.
    assert sum("last" in each.aliases for each in artifacts(continued, MODEL)) == 1


def test_nothing_is_logged_twice_by_a_run_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    made: list[str] = []

    def chart(name: str) -> Any:
        made.append(name)
        return wandb.Table(columns=["a"], data=[[1]])

    first = WandbTracker()
    first.use_folder(tmp_path / "one", "one")
    (tmp_path / "one").mkdir()
    first.show({"tables/a": lambda: chart("a")}, 3)
    first.show({"tables/a": lambda: chart("a"), "tables/b": lambda: chart("b")}, 5)
    name = first.run_id
    assert name is not None
    first.finish(1)
    second = WandbTracker()
    (tmp_path / "two").mkdir()
    second.use_folder(tmp_path / "two", "two")
    second.continue_run(name, tmp_path / "one")
    for step in (3, 5, 7):
        second.show({"tables/a": lambda: chart("a"), "tables/c": lambda: chart("c")}, step)
    second.finish(0)
    wandb.teardown()
    assert made == ["a", "a", "b", "c", "a", "c"]
    rows = [
        (row[STEP], item)
        for row in kept_rows(tmp_path / "two", name)
        for item in "abc"
        if has_item(row, f"tables/{item}")
    ]
    assert rows == [(3, "a"), (5, "a"), (5, "b"), (5, "c"), (7, "a"), (7, "c")]


def test_no_checkpoint_is_stored_if_none_shall_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr("ocrnet_pl.tracking.wandb_tracker.versions_of", lambda *_: pytest.fail("stored"))
    tracker = WandbTracker(log_model=False)
    tracker.after_save_checkpoint(None)  # type: ignore[arg-type]
    tracker.log_checkpoints(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="log_model: expected true, false or all"):
        WandbTracker(log_model="best")  # type: ignore[arg-type]
