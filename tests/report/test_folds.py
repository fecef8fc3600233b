"""Cross-validation as a user runs it, and its arithmetic."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from ocrnet_pl.cli.main import main
from ocrnet_pl.drawing import plots
from ocrnet_pl.report import folds, runs
from ocrnet_pl.report.folds import FoldFigure, draw_folds, joined_figures
from tests.helpers.tiny_run import fails
from tests.report.test_joint_report import forked

FOLDS = """
data:
  train: &part
    class_path: Split
    init_args: &options
      part: train
      folds: 2
      source: {class_path: SyntheticSource, init_args: {length: 8, seed: 1, size: 64}}
  val:
    class_path: Mixture
    init_args:
      sources: {a: {class_path: Split, init_args: {<<: *options, part: val}}}
trainer: {max_epochs: 1}
"""


def _words(tiny: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "folds.yaml").write_text(FOLDS)
    return ["--config", str(tiny), "--config", str(tmp_path / "folds.yaml"), "--output", str(tmp_path / "out")]


def test_each_fold_is_trained_and_their_figures_joined(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []

    def train(command: list[str], log: Path) -> int:
        words = dict(itertools.pairwise(command))
        folder = Path(words["--trainer.default_root_dir"], words["--name"], words["--version"])
        config = yaml.safe_load(Path(words["--config"]).read_text())["data"]
        splits = [config["train"]["init_args"], config["val"]["init_args"]["sources"]["a"]["init_args"]]
        found.append([(split["part"], split["folds"], split["fold"]) for split in splits])
        fold = splits[0]["fold"]
        last = {"val/miou": 0.5 + 0.1 * fold, "val/fused_miou": 0.6, "val/iou_per_class/disc": 0.3}
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps({"last": last, "steps": 7, "seed": 0}))
        return 0

    words = _words(tiny, tmp_path)
    monkeypatch.setattr(runs, "_run_and_show", train)
    main(["cross-validate", *words])
    assert found == [[("train", 2, fold), ("val", 2, fold)] for fold in (0, 1)]
    printed = capsys.readouterr().out
    assert "Figures over the folds" in printed and "mIoU, fused" in printed and "0.500 0.600" in printed
    content = json.loads((tmp_path / "out" / "folds.json").read_text())
    assert content["steps"] == [7, 7] and (tmp_path / "out" / "folds.png").is_file()
    figures = {figure["figure"]: figure for figure in content["figures"]}
    assert figures["miou"]["mean"] == pytest.approx(0.55) and figures["miou"]["folds"] == [0.5, 0.6]
    assert set(figures) == {"miou", "fused_miou", "iou_per_class/disc"}
    # Other options are refused, as their figures would be mixed with those of the finished folds.
    status, line = fails(capsys, "cross-validate", *words, "--data.batch_size", "2")
    assert status == 1 and "runs of another configuration" in line


@pytest.mark.slow
def test_the_folds_of_a_real_training(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_run_and_show", forked)
    main(["cross-validate", *_words(tiny, tmp_path)])
    content = json.loads((tmp_path / "out" / "folds.json").read_text())
    figures = {figure["figure"]: figure for figure in content["figures"]}
    for fold in (0, 1):
        summary = json.loads((tmp_path / "out" / "runs" / "folds" / f"fold_{fold}" / "summary.json").read_text())
        assert figures["miou"]["folds"][fold] == summary["last"]["val/miou"] and summary["steps"] == 1
    one, two = figures["miou"]["folds"]
    assert one != two


def test_a_config_without_folds_is_refused(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, line = fails(capsys, "cross-validate", "--config", str(tiny))
    assert status == 1 and "data.train: there are no folds" in line and line.count("\n") == 1


@pytest.mark.parametrize(
    ("was", "now", "expected"),
    [
        *(("folds: 2", f"folds: {count}", f"folds is {count}, and at least 2 are needed") for count in (0, 1, -1)),
        ("part: val", "part: train", "data.val: the part of its Split is 'train'; set it to 'val'"),
    ],
)
def test_wrong_folds_are_refused_before_the_first(
    was: str, now: str, expected: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = _words(tiny, tmp_path)
    (tmp_path / "folds.yaml").write_text(FOLDS.replace(was, now))
    status, line = fails(capsys, "cross-validate", *words)
    assert status == 1 and expected in line and line.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_intervals_are_those_of_nadeau_and_bengio() -> None:
    values = [0.61, 0.55, 0.70, 0.66, 0.58]
    figure = FoldFigure("miou", "mIoU", values)
    # The t quantile of 4 degrees of freedom from a table, and the correction for a test set of a quarter.
    expected = 2.776 * np.std(values, ddof=1) * math.sqrt(1 / 5 + 1 / 4)
    assert figure.half == pytest.approx(expected, rel=1e-3) and figure.mean == pytest.approx(np.mean(values))
    assert FoldFigure("a", "a", [0.5, math.nan]).half is None


def test_figures_that_no_fold_has_are_left_out(
    tmp_path: Path, rendered_pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folds, "save_figure", plots.save_figure)
    own = [{"name": "count_error", "title": "count", "per_class": False, "higher_is_better": False}]
    summaries = [
        {"own_figures": own, "last": {"val/map": 0.5, "val/count_error": 2.0, "val/map_per_class/car": 0.5}},
        {"own_figures": own, "last": {"val/map": math.nan, "val/count_error": 1.0, "val/map_small": None}},
    ]
    figures = joined_figures(summaries)
    assert [figure.key for figure in figures] == ["map", "count_error", "map_per_class/car"]
    assert figures[0].known == [0.5] and figures[1].title == "count"
    draw_folds(figures[:2], tmp_path / "folds.png", "test")
    assert (tmp_path / "folds.png").stat().st_size > 5000
