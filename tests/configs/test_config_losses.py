"""The overlays of configs/losses: each takes a step with the losses that it names."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocrnet_pl.cli.main import main
from ocrnet_pl.losses.detection import TutorialDetectionLoss
from tests.helpers.project import CONFIGS

STEP = [
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=1",
    "--trainer.limit_val_batches=0",
    "--trainer.log_every_n_steps=1",
    "--data.num_workers=0",
    "--data.batch_size=2",
]
# Overlays laid over each other in this order, the segmentation terms in theirs, and the parts of the detection loss.
OVERLAYS: dict[str, tuple[dict[str, str], set[str]]] = {
    "losses/varifocal.yaml losses/lovasz.yaml": (
        {"ce": "CrossEntropy", "lovasz": "Lovasz"},
        {"QualityDetectionLoss", "TaskAlignedAssigner", "CIoULoss", "BCEScore", "VarifocalScore"},
    ),
    "losses/tutorial.yaml losses/ohem.yaml": (
        {"ce": "OHEMCrossEntropy", "dice": "Dice"},
        {"TutorialDetectionLoss", "CenterAssigner", "MSEBoxLoss", "MSEScore"},
    ),
    "overlays/losses/contours.yaml": (
        {"ce": "CrossEntropy", "tversky": "Tversky", "boundary": "Boundary"},
        {"QualityDetectionLoss", "TaskAlignedAssigner", "GIoULoss", "QualityFocalScore"},
    ),
}


def class_names(node: Any) -> set[str]:
    if isinstance(node, list):
        return set().union(*(class_names(part) for part in node))
    if not isinstance(node, dict):
        return set()
    own = {node["class_path"].rsplit(".", 1)[1]} if "class_path" in node else set()
    return own.union(*(class_names(part) for part in node.values()))


@pytest.mark.parametrize("overlays", OVERLAYS)
def test_an_overlay_takes_a_step_with_the_losses_it_names(tmp_path: Path, overlays: str) -> None:
    words = [word for name in ("quickstart.yaml", *overlays.split()) for word in ("--config", str(CONFIGS / name))]
    main(["fit", *words, *STEP, f"--trainer.default_root_dir={tmp_path}"])
    run = tmp_path / "quickstart" / "version_0"
    terms, parts = OVERLAYS[overlays]
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    logged = {key for row in rows for key, value in row.items() if key.startswith("train/loss_") and value}
    assert logged == {f"train/loss_{term}" for term in ["box", "confidence", "class", *terms]}
    model = yaml.safe_load((run / "config.yaml").read_text())["model"]
    assert class_names(model["detection_loss"]) == parts
    assert class_names(model["segmentation_loss"]) == {"SegmentationLoss", *terms.values()}


def test_the_tutorial_overlay_is_the_tutorials_loss(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--config", str(CONFIGS / "quickstart.yaml"), "--config", str(CONFIGS / "overlays/losses/tutorial.yaml")]
    with pytest.raises(SystemExit):
        main(["fit", *words, "--print_config"])
    given = yaml.safe_load(capsys.readouterr().out)["model"]["detection_loss"]["init_args"]
    want = TutorialDetectionLoss()
    for name in ("box_weight", "confidence_weight", "class_weight", "background_weight"):
        assert given[name] == getattr(want, name), name
    for name in ("assigner", "box_loss", "confidence_loss"):
        assert given[name]["class_path"].rsplit(".", 1)[1] == type(getattr(want, name)).__name__
