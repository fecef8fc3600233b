"""An empty text, such as that of a variable that is not set, is not the folder that a source's paths start from."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import yaml

from ocrnet_pl.errors import DataError
from tests.helpers.small_sets import SETS
from tests.helpers.tiny_run import fails


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("coco", "images"),
        ("coco", "annotations"),
        ("coco panoptic", "masks"),
        ("yolo", "data"),
        ("folder", "masks"),
        ("voc", "images"),
        ("cityscapes", "images"),
        ("table", "table"),
        ("open images", "images"),
    ],
)
def test_an_empty_path_is_refused_by_its_option(name: str, option: str, tmp_path: Path) -> None:
    made = SETS[name]
    made.write(tmp_path)
    line = f"{made.source_class.__name__}: {option}: expected a path, got ''; write '.' for the folder that paths start"
    with pytest.raises(DataError) as error:
        made.open(tmp_path, **{option: ""})
    assert str(error.value) == f"{line} from"


def test_a_point_is_the_folder_that_paths_start_from(tmp_path: Path) -> None:
    made = SETS["via"]
    made.write(tmp_path)
    source = made.open(tmp_path, images=".")
    assert len(source) == len(pickle.loads(pickle.dumps(source))) > 0
    with pytest.raises(DataError, match=r"^Via: root: expected a path, got ''; write '\.' for the current folder$"):
        made.source(images=".", annotations="via.json", root="")


def test_the_command_line_names_the_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SETS["coco"].write(tmp_path)
    source = {"class_path": "CocoInstances", "init_args": {"images": "", "annotations": "instances.json"}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"data": {"root": str(tmp_path), "train": source}}))
    status, error = fails(capsys, "fit", "--config", str(tmp_path / "own.yaml"))
    line = "error: CocoInstances: images: expected a path, got ''; write '.' for the folder that paths start from"
    assert (status, error.splitlines()[-1]) == (1, line)
