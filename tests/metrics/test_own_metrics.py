"""A user's metrics, from the config to the table, the summary, the curves and the choice of checkpoints."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from matplotlib.figure import Figure as Plot
from torch import Tensor

from ocrnet_pl.cli.main import main
from ocrnet_pl.drawing import plots
from ocrnet_pl.metrics.base import Metric, MetricFactory
from ocrnet_pl.metrics.evaluation import EvaluationMetrics
from ocrnet_pl.metrics.figures import BY_NAME, Figure
from ocrnet_pl.report.table import Seed, table_rows
from ocrnet_pl.structures import Prediction, Sample, Taxonomy
from tests.helpers.builders import TAXONOMY
from tests.helpers.own_metrics import CountError, FoundBoxes
from tests.helpers.project import CONFIGS
from tests.helpers.tiny_run import TINY, fails

OWN = [{"class_path": f"tests.helpers.own_metrics.{name}"} for name in ("FoundBoxes", "CountError")]
OVERLAY = CONFIGS / "overlays" / "metrics" / "boundary_iou.yaml"
ALL_BOXES = "--model.postprocess.init_args.decode.init_args.score_threshold=0.0001"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = yaml.safe_load(TINY)
    content["model"]["metrics"] = [OWN[0] | {"init_args": {"iou": 0.3}}, OWN[1]]
    path = tmp_path_factory.mktemp("config") / "own.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


class Run:
    """A training whose checkpoints were chosen by a figure of the user's, and what it said."""

    def __init__(self, folder: Path, out: str, err: str) -> None:
        self.folder, self.out, self.err = folder, out, err
        self.summary = json.loads((folder / "summary.json").read_text())
        with (folder / "metrics.csv").open(newline="") as file:
            self.rows = [row for row in csv.DictReader(file) if row["val/count_error"]]


@pytest.fixture(scope="module")
def trained(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("runs")
    chosen = ["--checkpoint.monitor=val/count_error", "--checkpoint.mode=min"]
    stopped = ["--early_stopping.monitor=val/fused_found_boxes", "--early_stopping.patience=5"]
    words = ["--config", str(config), "--config", str(OVERLAY), *chosen, *stopped, ALL_BOXES]
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setenv("COLUMNS", "200")
        main(["fit", *words, f"--trainer.default_root_dir={root}"])
    return Run(root / "tiny" / "version_0", out.getvalue(), err.getvalue())


def test_training_shows_them_everywhere(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    last = trained.summary["last"]
    for title, name in (
        ("boxes found, any class", "found_boxes"),
        ("wrong number of boxes", "count_error"),
        ("boundary IoU", "boundary_iou"),
    ):
        raw, fused = f"{last[f'val/{name}']:.4f}", f"{last[f'val/fused_{name}']:.4f}"
        assert re.search(rf"{title} +│ +{raw} │ +{fused} ", trained.out), trained.out
        assert f"; {title} {raw} raw, {fused} fused" in trained.err
    assert "boxes raw" in trained.out and "boundary IoU fused" in trained.out
    assert {f"val/seen_per_class/{c}" for c in ("disc", "square")} <= set(last)
    assert [(each["name"], each["higher_is_better"]) for each in trained.summary["own_figures"]] == [
        ("found_boxes", True),
        ("count_error", False),
        ("seen_per_class", True),
        ("boundary_iou", True),
        ("boundary_iou_per_class", True),
    ]
    drawn: list[Plot] = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, png: drawn.append(figure))
    own = [*FoundBoxes.figures, *CountError.figures]
    plots.plot_curves(trained.folder / "metrics.csv", "", [*BY_NAME.values(), *own])
    (panel,) = (axes for axes in drawn[0].axes if axes.get_title(loc="left") == "wrong number of boxes")
    assert {str(line.get_label()) for line in panel.lines} == {"wrong number of boxes", "fused wrong number of boxes"}
    assert list(panel.lines[1].get_ydata()) == [float(row["val/count_error"]) for row in trained.rows]


def test_the_best_checkpoint_and_the_best_figures_are_those_of_the_monitor(trained: Run) -> None:
    errors = [float(row["val/count_error"]) for row in trained.rows]
    assert len(set(errors)) == 2
    assert trained.summary["best"]["val/count_error"] == pytest.approx(min(errors))
    best = Path(trained.summary["best_checkpoint"]).name
    assert best.startswith(f"epoch={errors.index(min(errors)):03d}-") and f"-count_error={min(errors):.3f}" in best


def test_validation_takes_them_from_a_trusted_checkpoint_and_prediction_does_without(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--ckpt_path", str(trained.folder / "checkpoints" / "last.ckpt"), f"--trainer.default_root_dir={tmp_path}"]
    status, error = fails(capsys, "validate", *words, "--trust", "tests.helpers.builders")
    assert status == 1 and error.count("\n") == 1
    assert "config.model.metrics[0]: 'tests.helpers.own_metrics.FoundBoxes' is" in error and "--trust tests" in error
    main(["validate", *words, "--trust", "tests"])
    found = json.loads((tmp_path / "tiny" / "version_0" / "summary.json").read_text())["last"]
    for key, value in trained.summary["last"].items():
        if key.startswith("val/"):
            assert found[key] == (None if value is None else pytest.approx(value, abs=1e-6)), key
    # Whoever predicts measures nothing.
    (tmp_path / "images").mkdir()
    shutil.copy(trained.folder / "pictures" / "curves.png", tmp_path / "images")
    main(["predict", *words, "--trust", "tests.helpers.builders", f"--data.predict_path={tmp_path / 'images'}"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--checkpoint.monitor=val/count_eror"], "checkpoint.monitor: this run logs no figure 'val/count_eror'; did"),
        (["--checkpoint.monitor=val/count_error"], "checkpoint.mode: 'val/count_error' is better where it is lower;"),
        (["--model.metrics+=tests.helpers.own_metrics.FoundBoxes"], "which is one of FoundBoxes already; rename it"),
    ],
)
def test_what_cannot_work_is_one_line_before_the_first_step(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    status, error = fails(capsys, "fit", "--config", str(config), f"--trainer.default_root_dir={tmp_path}", *words)
    assert status and error.count("\n") == 1
    assert expected in error
    assert not list(tmp_path.iterdir())


class Odd(Metric):
    """One that a test makes wrong."""

    figures = (Figure("odd", "odd"),)

    def update(self, predictions: list[Prediction], truths: list[Sample]) -> None:
        """Measure nothing."""

    def compute(self) -> Any:
        return torch.tensor(math.nan)


def odd(**changes: Any) -> MetricFactory:
    return type("Odd", (Odd,), changes)


class Kept(Odd):
    def __init__(self, taxonomy: Taxonomy) -> None:
        super().__init__(taxonomy)
        self.register_buffer("kernel", torch.ones(3))


class Listed(Odd):
    def __init__(self, taxonomy: Taxonomy) -> None:
        super().__init__(taxonomy)
        self.add_state("items", [])


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ([odd(figures=[Figure("miou", "my mIoU")])], "Odd has a figure 'miou', which is the package's own; rename it"),
        ([odd(figures=[Figure("map_per_class", "AP")])], "'map_per_class', which is the package's own"),
        ([Odd, Odd], "Odd has a figure 'odd', which is one of Odd already; rename it"),
        ([odd(figures=())], "Odd declares no figures"),
        ([odd(compute=lambda self: {"even": 1.0})], "compute returns 'even', which is none of its figures (odd)"),
        ([odd(compute=lambda self: {"odd/a": 1.0})], "compute returns 'odd/a', which is none of its figures (odd)"),
        ([odd(compute=lambda self: {})], "compute returns no 'odd', which is one of its figures"),
        ([odd(compute=lambda self: torch.ones(2))], "compute returns (2,) values for 'odd'; one was expected"),
        (
            [odd(compute=lambda self: 1 // 0)],
            "Odd cannot compute before the first update (integer division or modulo by",
        ),
        ([lambda taxonomy: torch.nn.ReLU()], "ReLU does not extend ocrnet_pl.metrics.base.Metric"),
        ([Kept], "Kept.kernel would be part of checkpoints; use persistent=False"),
        ([Listed], "state 'items' is a list, which needs dist_reduce_fx='cat'"),
    ],
)
def test_metrics_that_do_not_fit_are_refused_when_they_are_made(metrics: list[Any], expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        EvaluationMetrics(TAXONOMY, True, True, metrics)


@pytest.mark.parametrize("name", ["fused_odd", "My metric", "a/b", ""])
def test_names_that_nobody_could_ask_for_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a name has lower-case letters"):
        Figure(name, "title")


def test_nothing_to_measure_is_not_a_number() -> None:
    metrics = EvaluationMetrics(TAXONOMY, True, True, [FoundBoxes, CountError])
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        values: dict[str, Tensor] = metrics.compute()
    assert all(math.isnan(values[name]) for name in ("found_boxes", "fused_found_boxes", "count_error"))


@pytest.mark.parametrize(("boxes", "pixels"), [(True, True), (True, False), (False, True)])
def test_the_table_of_figures_has_what_an_evaluation_logs(boxes: bool, pixels: bool) -> None:
    logged = EvaluationMetrics(TAXONOMY, boxes, pixels).names()
    names = {key.removeprefix("fused_").partition("/")[0] for key in logged}
    assert names <= set(BY_NAME)
    if boxes and pixels:
        assert names == set(BY_NAME)
        assert {key.partition("/")[0] for key in logged if "/" in key} == {
            prefix + name for name, figure in BY_NAME.items() if figure.per_class for prefix in ("", "fused_")
        }


def test_the_joint_report_has_a_row_of_each() -> None:
    own = [{"name": "count_error", "title": "wrong number", "per_class": False, "higher_is_better": False}]
    own += [{"name": "seen_per_class", "title": "seen", "per_class": True, "higher_is_better": True}]

    def run(raw: float, fused: float) -> dict[str, Any]:
        last = {"val/count_error": raw, "val/fused_count_error": fused}
        memory = {"ram": 1.0, "gpu": None}
        costs = {f"{what}_{kind}": 1.0 for kind in ("joint_ms", "twins_ms") for what in ("pass", "whole")}
        costs |= {f"parameters_{kind}_million": 1.0 for kind in ("joint", "twins")}
        own_figures = {"own_figures": own}
        return {"last": last, "time_s": 2.0, "images_per_s": 4.0, "peak_memory_mb": memory} | own_figures | costs

    seeds = [Seed(seed, run(1, 2), run(9, 9), run(9, 9), run(3, 4 + seed / 100)) for seed in range(3)]
    rows = {row.title: row for row in table_rows(seeds)}
    assert rows["wrong number"].alone == [3, 3, 3]
    assert rows["wrong number, fused"].joint == [2, 2, 2] and rows["wrong number, fused"].verdict == "earned"
    assert "seen" not in rows
