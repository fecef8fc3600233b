"""Real sample data gives no false alarm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ocrnet_pl.data.sources.coco_panoptic import CocoPanoptic
from ocrnet_pl.doctor.result import Recipe
from tests.helpers.doctor_data import check, findings, run
from tests.helpers.project import CONFIGS


@pytest.mark.parametrize("split", [pytest.param("train", marks=pytest.mark.slow), "val"])
def test_the_panoptic_sample_has_no_false_alarm(shared_data: Path, tmp_path: Path, split: str) -> None:
    """Its traps: boxes without masks (not listed), a greyscale image, void areas, crowds, images without things."""
    root, pan = shared_data / "coco128", "panoptic_segmentation/annotations"
    if not root.is_dir():
        pytest.skip("no coco128")
    arguments = {
        "images": f"images/{split}2017",
        "annotations": f"{pan}/panoptic_{split}2017.json",
        "masks": f"{pan}/panoptic_{split}2017",
        "root": root,
    }
    assert run({"val": Recipe(lambda: CocoPanoptic(**arguments), CocoPanoptic, arguments)}, tmp_path / "out") == 0
    found = findings(tmp_path / "out")
    kinds = [row["kind"] for row in found]
    assert all(row["level"] == "note" for row in found)
    assert kinds.count("unlisted") == 28
    assert kinds.count("greyscale") == 1
    page = (tmp_path / "out" / "check.html").read_text()
    content = json.loads((root / pan / f"panoptic_{split}2017.json").read_text())
    crowds = sum(s["iscrowd"] for a in content["annotations"] for s in a["segments_info"])
    assert f"<td>{crowds}</td>" in page


def test_nuclei_has_no_false_alarm(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "nuclei"
    if not root.is_dir():
        pytest.skip("no nuclei")
    configs = CONFIGS
    words = ["--config", configs / "nuclei.yaml", "--data.root", root, "--limit", 40, "--data.num_workers=0"]
    assert check(*words, "--output", tmp_path) == 0
    assert {row["kind"] for row in findings(tmp_path)} == {"small_boxes", "many_objects"}
