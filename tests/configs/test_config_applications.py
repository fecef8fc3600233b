"""applications/medical.yaml, agriculture.yaml and retail.yaml read data of their shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ocrnet_pl.data.sources.labelled_folder import LabelledFolder
from ocrnet_pl.data.sources.yolo import Yolo
from ocrnet_pl.structures import Sample
from tests.helpers.config_data import DATA, filled
from tests.helpers.project import CONFIGS


def samples(root: Path, name: str) -> list[Sample]:
    """The training samples, as the config's own options read them."""
    DATA[f"applications/{name}.yaml"](root)
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
