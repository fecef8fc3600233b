"""TensorBoard and MLflow get what a run logs and draws, into its folder; read back with their own libraries."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ocrnet_pl.cli.main import main
from ocrnet_pl.tracking.files import ShowsFiles, show_files
from tests.helpers.project import CONFIGS
from tests.helpers.tiny_run import TINY


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def fit(tiny: Path, tracker: str, *words: str) -> None:
    overlay = str(CONFIGS / "overlays" / "tracking" / f"{tracker}.yaml")
    ending = ["--trainer.default_root_dir", str(tiny.parent), "--pictures.every_n_epochs=1", "--pictures.count=1"]
    main(["fit", "--config", str(tiny), "--config", overlay, *ending, *words])


def logged(run: Path, name: str) -> list[tuple[int, float]]:
    """Return steps and values of a figure in the run's own table."""
    with (run / "metrics.csv").open(newline="") as file:
        return [(int(row["step"]), float(row[name])) for row in csv.DictReader(file) if row[name]]


def test_tensorboard_has_each_point_once_also_after_a_continued_run(tiny: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    fit(tiny, "tensorboard", "--report.enabled=true", "--report.pictures=1")
    first = tiny.parent / "tiny" / "version_0"
    fit(tiny, "tensorboard", f"--ckpt_path={first / 'checkpoints' / 'last.ckpt'}", "--trainer.max_epochs=3")
    for run, epochs in ((first, 2), (tiny.parent / "tiny" / "version_1", 3)):
        events = accumulators.EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()
        for name in ("train/loss", "val/miou", "val/loss_detection"):
            points = [(event.step, event.value) for event in events.Scalars(name)]
            assert points == [(step, pytest.approx(value, rel=1e-5)) for step, value in logged(run, name)]
        assert len(events.Scalars("val/miou")) == epochs
        pictures = [tag for tag in events.Tags()["images"] if tag.startswith("pictures/")]
        assert len(pictures) == 1 and len(events.Images(pictures[0])) == (2 if run == first else 1)
        assert "curves" in events.Tags()["images"]
        texts = {tag.removesuffix("/text_summary") for tag in events.Tags()["tensors"]}
        assert "config" in texts
        pictures = {tag for tag in events.Tags()["images"] if tag.startswith("report/")}
        if run == first:
            assert {"report/box_curves", "report/box_confusion", "report/costs", "report/worst_1"} <= pictures
            assert {"report/box_curves.csv", "report/box_confusion.csv", "report/boxes.csv"} <= texts
            assert len(events.Images("report/worst_1")) == 1


@pytest.mark.slow
def test_mlflow_has_figures_pictures_and_configuration(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    fit(tiny, "mlflow", "--report.enabled=true", "--report.pictures=1")
    run = tiny.parent / "tiny" / "version_0"
    client = mlflow.MlflowClient(f"sqlite:///{run / 'mlflow' / 'mlflow.db'}")
    (experiment,) = (each for each in client.search_experiments() if each.name == "ocrnet-pl")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED" and found.info.run_name == "tiny/version_0"
    assert found.data.params["data/size"] == "64"
    points = [(point.step, point.value) for point in client.get_metric_history(found.info.run_id, "val/miou")]
    assert points == [(step, pytest.approx(value, rel=1e-5)) for step, value in logged(run, "val/miou")]
    names = {each.path for each in client.list_artifacts(found.info.run_id)}
    assert {"config.yaml", "curves.png", "pictures"} <= names
    assert len(client.list_artifacts(found.info.run_id, "pictures")) == 2
    report = {Path(each.path).name for each in client.list_artifacts(found.info.run_id, "report")}
    assert report == {path.name for path in (run / "report").iterdir()}
    assert {"box_curves.png", "box_confusion.csv", "boxes.csv"} <= report


def test_a_tracker_that_fails_stops_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ShowsFiles):
        def use_folder(self, folder: Path, name: str) -> None: ...

        def log_config(self, config: dict[str, object]) -> None: ...

        def show_file(self, name: str, path: Path, step: int) -> None:
            raise ConnectionError("gone")

    (tmp_path / "a.png").touch()
    show_files([Broken()], {"a": tmp_path / "a.png", "b": tmp_path / "none.png"}, 1)  # type: ignore[list-item]
    assert [record.message for record in caplog.records] == ["Broken could not store a.png: gone"]


@pytest.mark.parametrize(("tracker", "library"), [("TensorBoardTracker", "tensorboard"), ("MLflowTracker", "mlflow")])
def test_a_library_that_is_missing_is_one_line(tracker: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import ocrnet_pl.tracking.mlflow_tracker as mlflow_tracker
    import ocrnet_pl.tracking.tensorboard_tracker as tensorboard_tracker

    module = tensorboard_tracker if library == "tensorboard" else mlflow_tracker
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"run `pip install {library}`"):
        getattr(module, tracker)()
