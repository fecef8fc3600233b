"""Checkpoints whose entries are not what they should be: one line says so."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from ocrnet_pl import OCRNet
from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.training.task import OCRNetTask
from tests.helpers.builders import TAXONOMY
from tests.helpers.made_up_checkpoints import content, parts

CYCLE: list[Any] = []
CYCLE.append(CYCLE)
CATEGORY = TAXONOMY.to_dict()["categories"][0]

GARBAGE: dict[str, dict[str, Any]] = {
    "no hyper-parameters": {"hyper_parameters": None},
    "a list of them": {"hyper_parameters": [1]},
    "a text": {"hyper_parameters": "os.system"},
    "a cycle": {"hyper_parameters": parts() | {"neck": CYCLE}},
    "no parts": {"hyper_parameters": {}},
    "a number for an encoder": {"hyper_parameters": parts() | {"encoder": 5}},
    "numbers for names": {"hyper_parameters": {1: 2}},
    "no taxonomy": {"taxonomy": None},
    "a text for a taxonomy": {"taxonomy": "sky"},
    "no categories": {"taxonomy": {}},
    "a number of categories": {"taxonomy": {"categories": 5}},
    "numbers for categories": {"taxonomy": {"categories": [1, 2]}},
    "a list for a name": {"taxonomy": {"categories": [CATEGORY | {"name": ["sky"]}]}},
    "a text for a colour": {"taxonomy": {"categories": [CATEGORY | {"color": "red"}]}},
    "a number for a colour": {"taxonomy": {"categories": [CATEGORY | {"color": 3}]}},
    "a text for an index": {"taxonomy": {"categories": [CATEGORY | {"semantic": "0"}]}},
    "a gap": {"taxonomy": {"categories": [CATEGORY | {"semantic": 7}]}},
    "many categories": {"taxonomy": {"categories": [{}] * 12_000}},
    "a tensor for a taxonomy": {"taxonomy": torch.zeros(2)},
    "texts for a size": {"input_size": ["64", "64"]},
    "a number for a size": {"input_size": 64},
    "three sides": {"input_size": [64, 64, 64]},
    "a negative side": {"input_size": [64, -64]},
    "a huge side": {"input_size": [64, 10**12]},
    "no side": {"input_size": [64, None]},
    "a list of weights": {"state_dict": [1]},
    "texts for weights": {"state_dict": {"network.neck": "x"}},
    "no weights": {"state_dict": {}},
    "a number of steps that is none": {"global_step": "x"},
    "a list of callbacks": {"callbacks": [1]},
    "texts for callbacks": {"callbacks": {"EMA": "x"}},
    "a number of loops": {"loops": 3},
    "a list of settings": {"fusion": [1]},
    "settings that nobody knows": {"fusion": {"evil": 1}},
    "a text for a setting": {"fusion": {"claim": "x"}},
    "a dictionary for a setting": {"fusion": {"raw_boxes": {"class_path": "os.system"}}},
    "versions that are none": {"state_dict": {}, "versions": 5},
    "versions of anything": {"state_dict": {}, "versions": {"torch": {"class_path": "os.system"}}},
}


@pytest.mark.parametrize("case", GARBAGE)
def test_garbage_in_a_checkpoint_takes_one_line(case: str, tmp_path: Path) -> None:
    path = tmp_path / "made_up.ckpt"
    torch.save(content(**GARBAGE[case]), path)
    for load in (OCRNet.from_checkpoint, OCRNetTask.load_from_checkpoint):
        with pytest.raises(CheckpointError) as refused:
            load(path, trust=["tests"])
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 600 + len(str(path))


@pytest.mark.parametrize("name", ["best.onnx", "best.pt2"])
def test_an_exported_file_is_not_taken_for_a_damaged_checkpoint(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("best/archive_format", "pt2")
    with pytest.raises(CheckpointError, match=rf"{name}': it is an exported file; give the checkpoint that"):
        OCRNet.from_checkpoint(tmp_path / name)
