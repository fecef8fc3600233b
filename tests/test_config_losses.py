"""The overlays of configs/losses: each takes a step with the losses that it names."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocrnet_pl.losses.detection import TutorialDetectionLoss
from ocrnet_pl.main import main

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
STEP = [
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=1",
    "--trainer.limit_val_batches=0",
    "--trainer.log_every_n_steps=1",
    "--data.num_workers=0",
    "--data.batch_size=2",
]
# The segmentation terms, and the class names that the config must have resolved to.
OVERLAYS = {
    "losses/tutorial.yaml": (["ce", "dice"], ["CenterAssigner", "MSEBoxLoss", "MSEScore", "CrossEntropy", "Dice"]),
    "losses/varifocal.yaml": (["ce", "dice"], ["CIoULoss", "BCEScore", "VarifocalScore"]),
    "losses/lovasz.yaml": (["ce", "lovasz"], ["CrossEntropy", "Lovasz"]),
    "losses/ohem.yaml": (["ce", "dice"], ["OHEMCrossEntropy", "Dice"]),
    "losses/contours.yaml": (["ce", "tversky", "boundary"], ["CrossEntropy", "Tversky", "Boundary"]),
}


def class_names(node: Any) -> set[str]:
    if isinstance(node, list):
        return set().union(*(class_names(part) for part in node))
    if not isinstance(node, dict):
        return set()
    own = {node["class_path"].rsplit(".", 1)[1]} if "class_path" in node else set()
    return own.union(*(class_names(part) for part in node.values()))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_takes_a_step_with_the_losses_it_names(tmp_path: Path, overlay: str) -> None:
    words = ["--config", str(CONFIGS / "quickstart.yaml"), "--config", str(CONFIGS / overlay)]
    main(["fit", *words, *STEP, f"--trainer.default_root_dir={tmp_path}"])
    run = tmp_path / "quickstart" / "version_0"
    terms, classes = OVERLAYS[overlay]
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    logged = {key for row in rows for key, value in row.items() if key.startswith("train/loss_") and value}
    assert logged == {f"train/loss_{term}" for term in ["box", "confidence", "class", *terms]}
    model = yaml.safe_load((run / "config.yaml").read_text())["model"]
    assert class_names([model["detection_loss"], model["segmentation_loss"]]) >= set(classes)
    assert [part["class_path"].rsplit(".", 1)[1] for part in model["segmentation_loss"]["init_args"]["terms"]] == [
        name
        for name in classes
        if name in {"CrossEntropy", "OHEMCrossEntropy", "Dice", "Tversky", "Lovasz", "Boundary"}
    ] or overlay == "losses/varifocal.yaml"


def test_the_tutorial_overlay_is_the_tutorials_loss(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--config", str(CONFIGS / "quickstart.yaml"), "--config", str(CONFIGS / "losses/tutorial.yaml")]
    with pytest.raises(SystemExit):
        main(["fit", *words, "--print_config"])
    given = yaml.safe_load(capsys.readouterr().out)["model"]["detection_loss"]["init_args"]
    want = TutorialDetectionLoss()
    for name in ("box_weight", "confidence_weight", "class_weight", "background_weight"):
        assert given[name] == getattr(want, name), name
    for name in ("assigner", "box_loss", "confidence_loss"):
        assert given[name]["class_path"].rsplit(".", 1)[1] == type(getattr(want, name)).__name__
