"""applications/medical.yaml, agriculture.yaml and retail.yaml take a step on data of their shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import yaml

from ocrnet_pl.cli.main import main
from ocrnet_pl.data.sources.labelled_folder import LabelledFolder
from ocrnet_pl.data.sources.yolo import Yolo
from ocrnet_pl.structures import Sample
from tests.configs.test_config_sources import CONFIGS, POLYGON, SIZE, STEP, filled, photo, png, steps, text

APPLICATIONS = ("applications/medical.yaml", "applications/agriculture.yaml", "applications/retail.yaml")


def write_medical(root: Path) -> None:
    """A slice of 8 bits, and one of 16."""
    for split in ("train", "val"):
        rng = np.random.default_rng(0)
        png(root / f"{split}/images/case01/slice_001.png", rng.integers(0, 256, SIZE, dtype=np.uint8))
        png(root / f"{split}/images/case01/slice_002.png", rng.integers(0, 65536, SIZE, dtype=np.uint16))
        for number in (1, 2):
            png(root / f"{split}/masks/case01/slice_00{number}.png", filled(2, rest=1))
            png(root / f"{split}/instances/case01/slice_00{number}.png", filled(9))


def write_agriculture(root: Path) -> None:
    """Two images a split, one of them without a mask."""
    text(root / "data.yaml", "train: images/train\nval: images/val\nnames: [crop, weed]\n")
    for split in ("train", "val"):
        for number in range(2):
            photo(root / f"images/{split}/field_{number}.jpg", number)
            text(root / f"labels/{split}/field_{number}.txt", f"1 {POLYGON}\n0 0 0 0.2 0 0.2 0.2\n")
        png(root / f"masks/{split}/field_0.png", filled(2))


def write_retail(root: Path) -> None:
    """A shelf of 330 small products a split with a mask, and one without."""
    text(root / "data.yaml", "train: images/train\nval: images/val\nnames: [product, price tag]\n")
    rows = [f"0 {(x + 0.5) / 22:.4f} {(y + 0.5) / 15:.4f} 0.045 0.06" for x in range(22) for y in range(15)]
    for split in ("train", "val"):
        for number in range(2):
            photo(root / f"images/{split}/store_{number}.jpg", number)
            text(root / f"labels/{split}/store_{number}.txt", "\n".join(rows))
        png(root / f"masks/{split}/store_0.png", filled(1))


WRITERS: dict[str, Callable[[Path], None]] = {
    "medical": write_medical,
    "agriculture": write_agriculture,
    "retail": write_retail,
}


@pytest.mark.parametrize("config", APPLICATIONS)
def test_takes_a_step(tmp_path: Path, config: str) -> None:
    name = Path(config).stem
    WRITERS[name](tmp_path / "data")
    words = ["--config", str(CONFIGS / config), "--data.root", str(tmp_path / "data"), *STEP]
    main(["fit", *words, f"--trainer.default_root_dir={tmp_path}"])
    assert steps(tmp_path, name) == 1


@pytest.mark.parametrize("config", APPLICATIONS)
def test_what_the_step_above_overrides_is_valid(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = CONFIGS / config
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(path), "--print_config"])
    printed = capsys.readouterr()
    assert not stopped.value.code, printed.err
    given, parsed = yaml.safe_load(path.read_text()), yaml.safe_load(printed.out)
    assert parsed["data"]["size"] == given["data"]["size"] and given["data"]["size"] % 32 == 0
    encoder = parsed["model"]["encoder"]["init_args"]
    assert encoder["weights"] is None and timm.is_model(encoder["name"])


def samples(root: Path, name: str) -> list[Sample]:
    """The training samples, as the config's own options read them."""
    WRITERS[name](root)
    train: dict[str, Any] = yaml.safe_load((CONFIGS / f"applications/{name}.yaml").read_text())["data"]["train"]
    source_class: Any = {"LabelledFolder": LabelledFolder, "Yolo": Yolo}[train["class_path"]]
    source = source_class(**train["init_args"], root=root)
    return [source[i] for i in range(len(source))]


def test_medical_boxes_come_from_the_instances(tmp_path: Path) -> None:
    both = samples(tmp_path, "medical")
    assert len(both) == 2
    for sample in both:
        assert sample.boxes.tolist() == [[20, 10, 50, 30]] and sample.labels.tolist() == [0]
        assert sample.semantic is not None and np.array_equal(sample.semantic.numpy(), filled(2, rest=1))
        assert int(sample.image.max()) > 200 and sample.supervision.detection.all()


def test_agriculture_and_retail_train_images_without_a_mask(tmp_path: Path) -> None:
    for name, boxes, value in (("agriculture", 2, 2), ("retail", 330, 1)):
        masked, bare = samples(tmp_path / name, name)
        assert len(masked.boxes) == len(bare.boxes) == boxes
        assert masked.semantic is not None and np.array_equal(masked.semantic.numpy(), filled(value))
        assert bare.semantic is None and not bare.supervision.semantic.any() and bare.supervision.detection.all()
        assert (masked.instances is not None) == (name == "agriculture")
