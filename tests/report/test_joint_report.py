"""The joint report as a user runs it, and its arithmetic."""

from __future__ import annotations

import json
import math
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ocrnet_pl.cli.compare_twins import Twins, measure
from ocrnet_pl.cli.main import main
from ocrnet_pl.errors import RunError
from ocrnet_pl.inference.multiscale import MultiScale
from ocrnet_pl.inference.tiled_inference import Tiling
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.report import runs
from ocrnet_pl.report.runs import Run
from ocrnet_pl.report.statistics import paired_difference, student_quantile
from ocrnet_pl.report.table import Row, Seed, table_rows
from tests.doctor.test_doctor_report import Outline
from tests.helpers.builders import tiny_network
from tests.helpers.processes import in_a_process
from tests.helpers.project import ROOT


def words_of(config: Path, output: Path, *more: str) -> tuple[str, ...]:
    """One seed of two steps, with a metric of one's own."""
    own = "--model.metrics+=tests.helpers.own_metrics.CountError"
    return ("--config", str(config), "--trainer.max_epochs=1", own, "--seeds", "3", "--output", str(output), *more)


def forked(command: list[str], log: Path) -> int | None:
    """Run ``python -m``, without the seconds that a new interpreter takes."""
    _, option, module, *words = command
    assert option == "-m"

    def run() -> None:
        os.environ.pop("PL_GLOBAL_SEED", None)
        file = log.open("w", buffering=1)
        sys.argv, sys.stdout, sys.stderr = [module, *words], file, file
        runpy.run_module(module, run_name="__main__")

    return in_a_process(run)


@pytest.fixture(scope="module")
def report(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report."""
    output = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_run_and_show", forked)
        main(["joint-report", *words_of(tiny, output)])
    return output


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    content = json.loads((folder / "joint-report.json").read_text())
    return {row["figure"]: row for row in content["table"]}


def summary(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "runs" / name / "seed_3" / "summary.json").read_text())
    return content


def test_the_report_compares_runs_of_equal_steps_and_of_the_given_seed(report: Path) -> None:
    runs = {name: summary(report, name) for name in ("joint", "detection", "segmentation")}
    assert {run["steps"] for run in runs.values()} == {2}
    assert {run["seed"] for run in runs.values()} == {3}
    assert "val/miou" not in runs["detection"]["last"]
    assert "val/map" not in runs["segmentation"]["last"]
    rows = rows_of(report)
    assert rows["box mAP"]["joint"] == [runs["joint"]["last"]["val/map"]]
    assert rows["box mAP"]["alone"] == [runs["detection"]["last"]["val/map"]]
    assert rows["mIoU"]["alone"] == [runs["segmentation"]["last"]["val/miou"]]
    assert rows["mIoU"]["difference"] == pytest.approx(
        runs["joint"]["last"]["val/miou"] - runs["segmentation"]["last"]["val/miou"]
    )
    assert rows["mIoU"]["interval_95"] is None
    assert rows["mIoU"]["verdict"] == "one seed"
    assert rows["memory in training"]["joint"][0] > 50
    assert rows["training, with validations"]["alone"][0] == pytest.approx(
        runs["detection"]["time_s"] + runs["segmentation"]["time_s"]
    )


def test_the_twins_side_by_side_score_as_each_does_alone(report: Path) -> None:
    """Merging reads their outputs and changes neither the boxes nor the pixels."""
    merged = summary(report, "twins")["last"]
    assert merged["val/map"] == pytest.approx(summary(report, "detection")["last"]["val/map"])
    assert merged["val/miou"] == pytest.approx(summary(report, "segmentation")["last"]["val/miou"])
    assert {"val/pq", "val/fused_pq", "val/fused_mask_map"} <= set(merged)


def test_own_metrics_are_in_the_table_and_on_the_page(report: Path) -> None:
    joint, twins, rows = summary(report, "joint")["last"], summary(report, "twins")["last"], rows_of(report)
    for title, key in (
        ("wrong number of boxes", "val/count_error"),
        ("wrong number of boxes, fused", "val/fused_count_error"),
    ):
        assert rows[title]["joint"] == [joint[key]] and rows[title]["alone"] == [twins[key]]
        assert title in (report / "joint-report.html").read_text()
    assert "boxes" not in rows


def test_parameters_are_those_of_the_checkpoints(report: Path) -> None:
    row = rows_of(report)["parameters"]

    def count(name: str) -> float:
        checkpoint = report / "runs" / name / "seed_3" / "checkpoints" / "last.ckpt"
        network = OCRNet.from_checkpoint(checkpoint, trust="tests")
        return sum(parameter.numel() for parameter in network.parameters()) / 1e6

    assert row["joint"] == [pytest.approx(count("joint"))]
    assert row["alone"] == [pytest.approx(count("detection") + count("segmentation"))]


def test_the_page_needs_no_other_file_and_shows_curves_and_pictures(report: Path) -> None:
    html = (report / "joint-report.html").read_text()
    outline = Outline()
    outline.feed(html)
    assert outline.open == []
    sources = [attributes["src"] or "" for tag, attributes in outline.tags if tag == "img"]
    # The curves, and the four validation images as both draw them.
    assert len(sources) == 1 + 4 * 2
    assert all(source.startswith("data:image/") for source in sources)
    assert not any(tag in ("link", "script") for tag, _ in outline.tags)
    assert "There is one seed, so there is no interval" in html
    assert not list(report.glob(".*.part"))


def test_finished_runs_are_not_trained_again(report: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in report.glob("runs/*/*/*") if path.is_file()}
    (report / "joint-report.html").unlink()
    main(["joint-report", *words_of(tiny, report)])
    assert {path: path.stat().st_mtime_ns for path in report.glob("runs/*/*/*") if path.is_file()} == before
    assert (report / "joint-report.html").is_file()
    assert capsys.readouterr().out.count("already finished") == 4


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["joint-report", *words])
    return int(stopped.value.code or 0), capsys.readouterr().err


@pytest.mark.slow
def test_processes_of_its_own_give_the_same_figures(report: Path, tiny: Path, tmp_path: Path) -> None:
    main(["joint-report", *words_of(tiny, tmp_path)])
    own, others = rows_of(tmp_path), rows_of(report)
    assert own.keys() == others.keys()
    for figure in ("box mAP", "mask mAP, fused", "mIoU", "PQ", "wrong number of boxes", "parameters"):
        assert [own[figure][name] for name in ("joint", "alone")] == [
            pytest.approx(others[figure][name]) for name in ("joint", "alone")
        ]


def test_another_configuration_is_not_mixed_in(report: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, error = fails(capsys, *words_of(tiny, report, "--trainer.max_epochs=2"))
    assert status == 1
    assert error.count("\n") == 1
    assert "another configuration" in error and "--output" in error


def test_a_failed_run_ends_the_report_with_its_log(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_run_and_show", forked)
    words = ("--config", str(tiny), "--output", str(tmp_path), "--data.batch_size", "0")
    status, error = fails(capsys, *words)
    assert status == 1
    assert error.count("\n") == 1
    log = tmp_path / "runs" / "joint" / "seed_0.log"
    assert "joint network, seed 0" in error and str(log) in error and "data.batch_size" in error
    assert "data.batch_size" in log.read_text()
    assert not (tmp_path / "joint-report.html").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--model.detection", "null"), "model.detection is null"),
        (("--seeds", "1", "1"), "seeds"),
    ],
)
def test_what_cannot_be_compared_is_said_at_once(
    words: tuple[str, ...], expected: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, error = fails(capsys, "--config", str(tiny), "--output", str(tmp_path / "out"), *words)
    assert status == 1
    assert error.count("\n") == 1
    assert expected in error
    assert not (tmp_path / "out" / "runs").exists()


def test_an_interrupted_run_starts_anew(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "summary.json").write_text('{"status": "interrupted"}')
    (folder / "left.txt").write_text("")
    script = (
        "import pathlib, sys; folder = pathlib.Path(sys.argv[1]); folder.mkdir(); "
        '(folder / \'summary.json\').write_text(\'{"status": "finished", "steps": 7}\')'
    )
    run = Run("test", folder, ("-c", script, str(folder)))
    assert run.content() is None
    assert run.execute()["steps"] == 7
    assert not (folder / "left.txt").exists()


def test_a_run_that_says_nothing_of_its_end_has_failed(tmp_path: Path) -> None:
    run = Run("test", tmp_path / "run", ("-c", "print('all is well')"))
    with pytest.raises(RunError, match=r"'test' ended with status 0; its log: .*run\.log"):
        run.execute()
    assert run.log.read_text() == "all is well\n"


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (9, 2.2622), (30, 2.0423), (1000, 1.9623)]
)
def test_student_quantiles_are_those_of_the_tables(freedom: int, expected: float) -> None:
    assert student_quantile(freedom) == pytest.approx(expected, abs=1e-3 if freedom > 1 else 2e-3)


def test_student_quantiles_equal_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 3, 7, 50):
        for confidence in (0.5, 0.9, 0.99):
            expected = stats.t.ppf((1 + confidence) / 2, freedom)
            assert student_quantile(freedom, confidence) == pytest.approx(expected, rel=1e-3)


def test_student_quantiles_refuse_what_has_none() -> None:
    for freedom, confidence in ((0, 0.95), (3, 1.0), (3, -0.1)):
        with pytest.raises(ValueError, match="at least 1 degree"):
            student_quantile(freedom, confidence)


def test_paired_differences_by_hand() -> None:
    # Differences 0.1, 0.2, 0.3: mean 0.2, deviation 0.1, error 0.1 / sqrt(3), t of 2 degrees 4.3027.
    found = paired_difference([0.6, 0.9, 0.4], [0.5, 0.7, 0.1])
    assert found.mean == pytest.approx(0.2)
    assert found.half == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-4)
    assert not found.is_clear
    assert paired_difference([1.0, 1.1], [0.0, 0.1]).is_clear
    assert paired_difference([0.6], [0.5]).half is None
    with pytest.raises(ValueError, match="no pair"):
        paired_difference([], [])


@pytest.mark.parametrize(
    ("joint", "more_is_better", "verdict"),
    [
        ([2.0, 2.1, 2.2], True, "earned"),
        ([2.0, 2.1, 2.2], False, "cost"),
        ([0.5, 1.1, 1.8], True, "no clear difference"),
        ([2.0], True, "one seed"),
    ],
)
def test_verdicts(joint: list[float], more_is_better: bool, verdict: str) -> None:
    alone = [1.0, 1.1, 1.2][: len(joint)]
    assert Row("", "", "", more_is_better, joint, alone).verdict == verdict


def test_a_figure_that_one_seed_lacks_is_left_out() -> None:
    def run(value: float | None) -> dict[str, Any]:
        last = {} if value is None else {"val/map": value}
        memory = {"ram": 1.0, "gpu": None}
        return {"last": last, "time_s": 2.0, "images_per_s": 4.0, "peak_memory_mb": memory}

    compare = {"last": {}} | {
        key: 1.0
        for kind in ("joint", "twins")
        for key in (f"pass_{kind}_ms", f"whole_{kind}_ms", f"parameters_{kind}_million")
    }
    whole = Seed(0, run(0.5), run(0.4), run(None), compare)
    rows = {row.title: row for row in table_rows([whole])}
    assert (rows["box mAP"].joint, rows["box mAP"].alone) == ([0.5], [0.4])
    # Both at 4 images a second, one after the other.
    assert rows["training speed"].alone == [2.0]
    assert rows["training, with validations"].alone == [4.0]
    assert "mIoU" not in rows and "GPU memory in training" not in rows
    lacking = Seed(1, run(None), run(0.4), run(None), compare)
    assert "box mAP" not in {row.title for row in table_rows([whole, lacking])}


def test_times_and_parameters_of_known_networks() -> None:
    joint, boxes, pixels = tiny_network(), tiny_network(segmentation=False), tiny_network(detection=False)
    for network in (joint, boxes, pixels):
        network.eval()
    twins = Twins(boxes, pixels)
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    figures = measure(joint, twins, image)
    assert figures["whole_joint_ms"] > figures["pass_joint_ms"] > 0
    assert figures["whole_twins_ms"] > figures["pass_twins_ms"] > 0
    output = twins(image)
    assert torch.equal(output.semantic, pixels(image).semantic)
    assert torch.equal(output.detection.boxes, boxes(image).detection.boxes)


@pytest.mark.parametrize("way", [MultiScale(flip=False), Tiling()], ids=lambda way: type(way).__name__)
def test_the_twins_predict_in_several_passes_and_tiles(way: MultiScale | Tiling) -> None:
    boxes, pixels = tiny_network(segmentation=False).eval(), tiny_network(detection=False).eval()
    image = torch.randint(0, 256, (3, 90, 130), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    twins = way(Twins(boxes, pixels), image)  # type: ignore[arg-type]
    (prediction,) = twins.raw
    assert torch.equal(prediction.boxes, way(boxes, image).raw[0].boxes)
    assert torch.equal(prediction.semantic, way(pixels, image).raw[0].semantic)
    assert twins.fused is not None


def test_the_overview_names_the_report() -> None:
    root = ROOT
    done = subprocess.run([sys.executable, "-m", "ocrnet_pl"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 2
    assert "\n  joint-report " in done.stdout
