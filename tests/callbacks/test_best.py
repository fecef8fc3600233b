"""What counts as the best when there was nothing to measure for a part of the figures, or for all of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ocrnet_pl.callbacks.checkpoint import BestCheckpoint
from ocrnet_pl.cli.main import main
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.metrics.evaluation import EvaluationMetrics
from ocrnet_pl.storage.checkpoints import read_checkpoint
from tests.helpers.saved_runs import Figure, fit, saver
from tests.helpers.tiny_run import TINY
from tests.training.test_task import PartlyLabelled, always, make_data, make_task, make_trainer, never


@pytest.mark.parametrize(
    ("boxes", "pixels", "parts"),
    [(always, always, ["map", "miou"]), (never, always, ["miou"]), (always, never, ["map"]), (never, never, [])],
)
def test_the_score_is_the_mean_of_what_there_is(tmp_path: Path, boxes, pixels, parts: list[str]) -> None:
    val = PartlyLabelled(3, boxes, pixels)
    torch.manual_seed(0)
    trainer = make_trainer(tmp_path)
    (figures,) = trainer.validate(make_task(val.taxonomy), make_data(SyntheticSource(4), val), verbose=False)
    own = [figures[f"val/fused_{part}"] for part in parts]
    assert all(math.isfinite(value) for value in own)
    if own:
        assert figures["val/score"] == pytest.approx(sum(own) / len(own))
    else:
        assert math.isnan(figures["val/score"])


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The scores of the validations to come, to be filled by the test."""
    coming: list[float] = []
    compute = EvaluationMetrics.compute

    def scored(self: EvaluationMetrics) -> dict[str, Tensor]:
        values = compute(self)
        # What nothing was measured for is no validation.
        if bool(values["map"].isnan()):
            return values
        return values | {"score": torch.tensor(coming.pop(0), dtype=torch.float64)}

    monkeypatch.setattr(EvaluationMetrics, "compute", scored)
    return coming


def run(folder: Path, *words: str) -> Path:
    (folder / "tiny.yaml").write_text(TINY)
    main(["fit", "--config", str(folder / "tiny.yaml"), "--trainer.default_root_dir", str(folder), *words])
    return folder / "tiny" / "version_0"


def test_a_score_of_nan_is_never_the_best_and_ends_no_run(tmp_path: Path, scores: list[float]) -> None:
    scores += [math.nan, 0.0, math.nan, 0.0, 0.3, math.nan]
    short = ["--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--pictures.enabled=false"]
    folder = run(tmp_path, "--trainer.max_epochs=6", "--early_stopping.patience=3", *short)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["epochs"] == 6
    assert summary["last"]["val/score"] is None
    assert summary["best"]["val/score"] == pytest.approx(0.3)
    best = Path(summary["best_checkpoint"])
    assert best.name.startswith("epoch=004")
    assert read_checkpoint(best)["epoch"] == 4
    assert len(list(best.parent.glob("epoch*.ckpt"))) == 1


@pytest.mark.slow
def test_a_run_without_any_score_has_no_best(tmp_path: Path, scores: list[float]) -> None:
    scores += [math.nan]
    folder = run(tmp_path, "--trainer.max_epochs=1", "--pictures.enabled=false")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["best"] == {}
    assert summary["best_checkpoint"] is None
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["last.ckpt"]


class NoFigureAtFirst(Figure):
    """Gives NaN in the first epoch."""

    def on_validation_epoch_end(self, trainer, pl_module) -> None:
        pl_module.log("figure", math.nan if trainer.current_epoch == 0 else 1 / (1 + trainer.current_epoch))


def test_all_checkpoints_are_kept_where_all_are_asked_for(tmp_path: Path) -> None:
    first: BestCheckpoint = saver(tmp_path, monitor="figure", save_top_k=-1)
    fit(tmp_path, NoFigureAtFirst(), first, max_epochs=1)
    assert first.best_model_path == ""
    assert first.best_model_score is None
    every = saver(tmp_path / "every", monitor="figure", save_top_k=-1)
    fit(tmp_path, NoFigureAtFirst(), every, max_epochs=3)
    assert len(list((tmp_path / "every").glob("epoch*.ckpt"))) == 3
    assert Path(every.best_model_path).name.startswith("epoch=001")
