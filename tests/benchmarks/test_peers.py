"""The peers of the benchmark: each learns and predicts on tiny images, and all are measured by one rule."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.helpers.project import ROOT

sys.path.append(str(ROOT / "benchmarks"))

from side_by_side import evaluation, models
from side_by_side.evaluation import evaluate
from side_by_side.models import PEERS, missing, run_one
from side_by_side.settings import Settings
from side_by_side.table import write_curves, write_picture, write_table
from side_by_side.training import Trainer, batches

from ocrnet_pl.structures import Prediction

CPU = torch.device("cpu")
ENCODER = "test_efficientnet"
CONFIG: dict[str, Any] = {
    "name": "tiny",
    "model": {
        "encoder": {"class_path": "TimmEncoder", "init_args": {"name": ENCODER, "frozen_stages": 1}},
        "neck": {"class_path": "PathAggregationNeck", "init_args": {"width": 8}},
        "encoder_lr": 0.5,
    },
    "data": {
        "train": {"class_path": "SyntheticSource", "init_args": {"length": 8, "seed": 1, "size": 64}},
        "val": {"class_path": "SyntheticSource", "init_args": {"length": 3, "seed": 2, "size": 64}},
        "size": 64,
        "scales": [1.0],
        "batch_size": 2,
        "num_workers": 0,
    },
    "trainer": {"accelerator": "cpu", "log_every_n_steps": 1, "gradient_clip_val": 10.0},
    "ema": {"decay": 0.9},
}

SLOW = {"mask_rcnn", "retinanet", "fcos"}
"""Peers that learn and predict by the code with which ``faster_rcnn`` does."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return Settings(path, None, budget=1.0, steps=2, size=64, encoder={}, seed=0)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in PEERS]
)
def test_a_peer_trains_and_predicts(name: str, settings: Settings) -> None:
    settings.seed_all()
    data = settings.data_module()
    encoder, build = PEERS[name]
    peer = build(encoder(**settings.encoder_arguments()), data.taxonomy)
    frozen = {n: p.clone() for n, p in peer.named_parameters() if not p.requires_grad}
    assert frozen
    before = {n: p.detach().clone() for n, p in peer.named_parameters() if p.requires_grad}
    trained, seconds, speed = Trainer(peer, data, CPU, CONFIG["model"], 0.9, 10.0).train(2)
    assert seconds > 0 and speed > 0
    after = dict(peer.named_parameters())
    assert all(torch.equal(value, after[n]) for n, value in frozen.items())
    moved = [n for n, value in before.items() if not torch.equal(value, after[n])]
    # A head may learn nothing from two images; what is not connected at all would be much.
    assert len(moved) > 0.8 * len(before)
    trained.eval()
    batch = next(batches(data, CPU))
    with torch.inference_mode():
        found = trained.predict(batch.images)
    assert len(found) == 2
    for prediction in found:
        if name in ("faster_rcnn", "mask_rcnn", "retinanet", "fcos"):
            assert len(prediction.boxes) == len(prediction.scores) == len(prediction.labels) <= 100
            assert bool(((prediction.labels >= 0) & (prediction.labels < data.taxonomy.num_detection)).all())
            assert float(prediction.boxes.max() if len(prediction.boxes) else 0) <= 64
        else:
            assert prediction.semantic is not None
            assert tuple(prediction.semantic.shape) == (64, 64)
            assert int(prediction.semantic.max()) < data.taxonomy.num_semantic


def test_measuring_the_speed_leaves_the_weights_alone(settings: Settings) -> None:
    data = settings.data_module()
    encoder, build = PEERS["fpn"]
    peer = build(encoder(**settings.encoder_arguments()), data.taxonomy)
    before = {name: value.clone() for name, value in peer.state_dict().items()}
    assert Trainer(peer, data, CPU, CONFIG["model"], 0.9, 10.0).seconds_a_step() > 0
    assert all(torch.equal(value, before[name]) for name, value in peer.state_dict().items())


def test_training_batches_bring_the_instances_of_their_own_samples(settings: Settings) -> None:
    batch = next(batches(settings.data_module(), CPU))
    assert len(batch.truths) == len(batch) == 2
    for row, sample in enumerate(batch.truths):
        assert torch.equal(sample.image.as_subclass(torch.Tensor), batch.images[row])
        assert sample.instances is not None


def test_what_repeats_the_truth_scores_one(settings: Settings) -> None:
    data = settings.data_module()
    truths = [truth for batch in data.val_dataloader() for truth in batch.truths]
    queue = iter(truths)

    def predict(images: torch.Tensor) -> list[Prediction]:
        own = [next(queue) for _ in images]
        return [
            Prediction(
                truth.boxes.as_subclass(torch.Tensor),
                torch.ones(len(truth.boxes)),
                truth.labels,
                semantic=None if truth.semantic is None else truth.semantic.as_subclass(torch.Tensor),
            )
            for truth in own
        ]

    figures = evaluate(predict, True, data, CPU)
    assert figures["map"] == pytest.approx(1)
    assert figures["miou"] == pytest.approx(1)
    assert "mask_map" not in figures and "pq" not in figures
    queue = iter(truths)
    assert "map" not in evaluate(predict, False, data, CPU)


def test_one_model_leaves_a_result_that_the_table_reads(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "_ROUNDS", 1)
    monkeypatch.setattr(evaluation, "_WARM_UP", 0)
    run_one("fpn", settings, tmp_path / "fpn")
    result = json.loads((tmp_path / "fpn" / "result.json").read_text())
    assert result["steps"] == 2
    assert result["parameters"] > 1e5
    assert result["latency_8_ms"] > 0 and result["latency_1_ms"] > 0
    text = write_table([result], tmp_path)
    assert "| fpn |" in text
    (row,) = csv.DictReader((tmp_path / "peers.csv").open())
    assert row["steps"] == "2"
    assert float(row["million parameters"]) == pytest.approx(result["parameters"] / 1e6, abs=0.01)
    write_picture([result | {"map": 0.5, "miou": None}], tmp_path)
    assert (tmp_path / "peers.png").read_bytes()[:4] == b"\x89PNG"


def test_the_curve_has_a_row_per_model_and_figure(tmp_path: Path) -> None:
    results = {
        60.0: [
            {"name": "joint", "map": 0.25, "miou": 0.5, "pq": 0.375, "train_s": 55.0},
            {"name": "unet", "miou": 0.4, "train_s": 61.0},
        ],
        240.0: [{"name": "joint", "map": 0.5, "miou": 0.625, "pq": 0.75, "train_s": 260.0}],
    }
    text = write_curves(results, tmp_path / "curves")
    rows = list(csv.reader((tmp_path / "curves/curves.csv").open()))
    assert rows[0] == ["model", "figure", "60 s", "240 s"] and len(rows) == 1 + 4 + 2
    assert ["joint", "training s", "55", "260"] in rows and ["unet", "training s", "61", ""] in rows
    assert ["joint", "0.2500", "0.5000"] in [[row[0], *row[2:]] for row in rows]
    assert ["unet", "0.4000", ""] in [[row[0], *row[2:]] for row in rows] and "| 0.4000 | - |" in text
    assert (tmp_path / "curves/curves.png").read_bytes()[:4] == b"\x89PNG"


def test_several_budgets_go_on_from_finished_runs(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import peers

    started: list[list[str]] = []

    class Finished(peers.Run):
        def execute(self) -> dict[str, Any]:
            started.append(list(self.words[1:]))
            return {key: 1.0 for key in ("parameters", "latency_1_ms", "latency_8_ms", "train_s", "images_per_s")} | {
                "name": self.title, "steps": 3, "miou": 0.5, "peak_memory_mb": {"ram": None, "gpu": None}
            }  # fmt: skip

    monkeypatch.setattr(peers, "Run", Finished)
    words = ["--config", str(settings.config), "--budgets", "4", "2", "--output", str(tmp_path), "--models", "unet"]
    monkeypatch.setattr(sys, "argv", ["peers.py", *words])
    peers.main()
    # Each model is told one budget, the shortest first, and has a folder of its own in which it would be found again.
    common = ["--config", str(settings.config), "--output", str(tmp_path), "--models", "unet"]
    assert started == [[*common, "--budget", budget, "--one", "unet"] for budget in ("2.0", "4.0")]
    for folder in ("2s", "4s"):
        assert (tmp_path / f"{ENCODER}_256_{folder}_seed0/peers.md").exists()
    assert "0.5000" in (tmp_path / f"{ENCODER}_256_2s_4s_seed0/curves.md").read_text()
    monkeypatch.setattr(sys, "argv", ["peers.py", "--budgets", "2", "0"])
    with pytest.raises(SystemExit):
        peers.main()
    assert "expected a number of seconds above 0, got '0'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_joint_network_trains_by_the_command_line(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "_ROUNDS", 1)
    monkeypatch.setattr(evaluation, "_WARM_UP", 0)
    run_one("joint", settings, tmp_path / "joint")
    result = json.loads((tmp_path / "joint" / "result.json").read_text())
    assert result["steps"] == 2
    assert {"map", "miou", "pq", "mask_map"} <= set(result)


@pytest.mark.slow
def test_a_config_with_auto_trains_as_long_as_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_ROUNDS", 1)
    monkeypatch.setattr(evaluation, "_WARM_UP", 0)
    config = json.loads(json.dumps(CONFIG)) | {"auto": True}
    del config["data"]["batch_size"]
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    run_one("joint", Settings(path, None, budget=2.0, steps=None, size=64, encoder={}, seed=0), tmp_path / "joint")
    result = json.loads((tmp_path / "joint" / "result.json").read_text())
    chosen = yaml.safe_load((tmp_path / "joint/run/joint/version_0/config.yaml").read_text())
    assert chosen["data"]["batch_size"] == 4 and chosen["trainer"]["max_steps"] == result["steps"] > 2
    assert result["train_s"] == pytest.approx(result["steps"] * 4 / result["images_per_s"])
    assert not (tmp_path / "joint" / "probe").exists()


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    assert "AGPL" in str(missing("ultralytics"))
    assert missing("fcos") is None


def test_another_encoder_does_not_take_the_weights_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    config = json.loads(json.dumps(CONFIG))
    config["model"]["encoder"]["init_args"] |= {"weights": "some.pth", "weights_by_order": True}
    path.write_text(yaml.safe_dump(config))
    same = Settings(path, None, 1.0, 2, 64, {"name": ENCODER}, 0).encoder_arguments()
    other = Settings(path, None, 1.0, 2, 64, {"name": "test_resnet"}, 0).encoder_arguments()
    assert (same["weights"], other["weights"], other["frozen_stages"]) == ("some.pth", None, 1)
