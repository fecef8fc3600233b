"""``fit --init_from``: a new run takes the weights of another one, its classes by name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ocrnet_pl.cli.main import main
from ocrnet_pl.storage.checkpoints import read_checkpoint
from ocrnet_pl.structures import Taxonomy
from tests.helpers.tiny_run import TINY, fails, summary

OTHERS = """
data:
  train:
    class_path: Remapped
    init_args:
      rename: {star: asterisk, water: lake}
      source: {class_path: SyntheticSource, init_args: {length: 8, seed: 1, size: 64, shapes: [cross, ring, star]}}
  val:
    class_path: Remapped
    init_args:
      rename: {star: asterisk, water: lake}
      source: {class_path: SyntheticSource, init_args: {length: 5, seed: 2, size: 64, shapes: [cross, ring, star]}}
"""
"""Other classes: ``ring`` is among the old ones at another place, ``asterisk`` and ``lake`` have other names."""

STILL = ["--model.optimizer=torch.optim.SGD", "--model.optimizer.init_args.lr=0", "--ema.decay=0"]
"""A run in which no weight moves."""

SPEED = "train/images_per_s"
HEAD = "network.detection.class_head.0.weight"
PIXELS = "network.segmentation.head.5.weight"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two configs and of a run with the first of them."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.yaml").write_text(TINY)
    (folder / "others.yaml").write_text(TINY + OTHERS.replace("\ndata:", "\ndata2:").replace("data2", "data"))
    content = yaml.safe_load(TINY)
    content["data"] |= yaml.safe_load(OTHERS)["data"]
    (folder / "others.yaml").write_text(yaml.safe_dump(content | {"name": "others"}))
    main(["fit", "--config", str(folder / "tiny.yaml"), "--trainer.default_root_dir", str(folder / "runs")])
    return folder


@pytest.fixture(scope="module")
def old(root: Path) -> Path:
    return root / "runs" / "tiny" / "version_0" / "checkpoints" / "last.ckpt"


def words(root: Path, folder: Path, *more: str) -> list[str]:
    return ["fit", "--config", str(root / "others.yaml"), "--trainer.default_root_dir", str(folder), *more]


def places(content: dict[str, Any], kind: str) -> dict[str, int]:
    categories = Taxonomy.from_dict(content["taxonomy"]).categories
    return {each.name: getattr(each, kind) for each in categories if getattr(each, kind) is not None}


def test_the_classes_of_a_run_start_from_those_of_another(
    root: Path, old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    names = "{star: asterisk, disc: [cross, asterisk], water: lake}"
    main(words(root, tmp_path, *STILL, "--init_from", str(old), "--init_map", names))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("init_from: ")]
    before = read_checkpoint(old)
    after = read_checkpoint(tmp_path / "others" / "version_0" / "checkpoints" / "last.ckpt")
    # Averaged weights are what is taken.
    source, result = before["state_dict"], after["state_dict"]
    assert not torch.equal(source[HEAD], before["current_model_state"][HEAD])
    was, now = places(before, "detection"), places(after, "detection")
    assert list(now) == ["cross", "ring", "asterisk"] and was["ring"] != now["ring"]
    assert torch.equal(result[HEAD][0], source[HEAD][0])
    assert torch.equal(result[HEAD][1 + now["ring"]], source[HEAD][1 + was["ring"]])
    assert torch.equal(result[HEAD][1 + now["cross"]], source[HEAD][1 + was["disc"]])
    mean = (source[HEAD][1 + was["disc"]] + source[HEAD][1 + was["star"]]) / 2
    assert torch.allclose(result[HEAD][1 + now["asterisk"]], mean, atol=1e-7)
    was, now = places(before, "semantic"), places(after, "semantic")
    for new, parent in {"lake": "water", "sky": "sky", "ring": "ring", "cross": "disc"}.items():
        assert torch.equal(result[PIXELS][now[new]], source[PIXELS][was[parent]])
    assert torch.equal(result["network.encoder.stages.1.weight"], source["network.encoder.stages.1.weight"])
    # A fresh count of epochs and steps.
    assert (after["epoch"], after["global_step"]) == (1, 4)
    assert after["encoder_pretrained"] is True
    # The same in the log, the summary, the config and the checkpoint.
    assert lines[0].startswith("init_from: encoder: taken 6 tensors (")
    assert (
        "init_from: classes of boxes: taken ring; mapped disc -> cross, disc + star -> asterisk; left out square, "
        "triangle" in lines
    )
    folder = tmp_path / "others" / "version_0"
    said = summary(folder)["init_from"]
    assert said["file"] == str(old)
    assert said["classes"]["classes of boxes"]["mapped"] == {"cross": ["disc"], "asterisk": ["disc", "star"]}
    assert said["parts"]["encoder"]["taken"]["tensors"] == 6
    written = yaml.safe_load((folder / "config.yaml").read_text())
    assert written["init_from"] == after["config"]["init_from"] == str(old)


@pytest.mark.slow
def test_a_run_continues_without_the_file_that_it_started_from(
    root: Path, old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "start.ckpt"
    shutil.copy(old, copy)
    main(words(root, tmp_path, "--init_from", str(copy), "--init_map", "{star: asterisk}", "--init_keep=true"))
    copy.unlink()
    folder = tmp_path / "others" / "version_0"
    capsys.readouterr()
    # The run's own config names the file and, as the last epoch but one, what it continues from.
    previous = str(folder / "checkpoints" / "previous.ckpt")
    main(["fit", "--config", str(folder / "config.yaml"), "--ckpt_path", previous, "--version=again"])
    assert f"init_from: not read again, since the run continues from {previous}" in capsys.readouterr().err
    want, got = (
        read_checkpoint(tmp_path / "others" / name / "checkpoints" / "last.ckpt") for name in ("version_0", "again")
    )
    assert got["global_step"] == 4
    for key in ("state_dict", "current_model_state"):
        assert want[key].keys() == got[key].keys()
        assert all(torch.equal(tensor, got[key][name]) for name, tensor in want[key].items())
    assert got["init_from"] == want["init_from"]
    first, second = (summary(tmp_path / "others" / name) for name in ("version_0", "again"))
    assert second["init_from"] == first["init_from"]
    assert {**second["last"], SPEED: 0} == {**first["last"], SPEED: 0}
    # What names neither the file nor that classes are kept continues as well, and says where it came from.
    main(words(root, tmp_path, "--ckpt_path", previous, "--version=bare"))
    bare = read_checkpoint(tmp_path / "others" / "bare" / "checkpoints" / "last.ckpt")
    assert bare["config"]["init_from"] == str(copy) and bare["config"]["init_keep"] is True
    assert all(torch.equal(tensor, bare["state_dict"][name]) for name, tensor in want["state_dict"].items())


def test_kept_classes_stay_and_count_in_no_figure(root: Path, old: Path, tmp_path: Path) -> None:
    main(words(root, tmp_path, *STILL, "--init_from", str(old), "--init_keep=true", "--trainer.max_epochs=1"))
    folder = tmp_path / "others" / "version_0"
    path = folder / "checkpoints" / "last.ckpt"
    before, after = read_checkpoint(old), read_checkpoint(path)
    was, now = places(before, "detection"), places(after, "detection")
    assert set(now) == {"disc", "square", "triangle", "star", "ring", "cross", "asterisk"}
    for name, place in was.items():
        assert torch.equal(after["state_dict"][HEAD][1 + now[name]], before["state_dict"][HEAD][1 + place])
    last = summary(folder)["last"]
    for name in now:
        assert (last.get(f"val/map_per_class/{name}") is None) == (name not in ("cross", "ring", "asterisk"))
    for name in places(after, "semantic"):
        unlabelled = name in ("disc", "square", "triangle", "star", "water")
        assert (last.get(f"val/pq_per_class/{name}") is None) == unlabelled, name
        assert not unlabelled or last.get(f"val/iou_per_class/{name}") is None
    # Without a word about them, whoever evaluates it knows them.
    main(["validate", "--ckpt_path", str(path), "--trust", "tests"])
    evaluated = summary(tmp_path / "others" / "version_1")
    for key, value in last.items():
        if key.startswith("val/"):
            assert evaluated["last"][key] == pytest.approx(value, abs=1e-6), key


@pytest.mark.parametrize(
    ("more", "status", "line"),
    [
        (["--init_from=absent.ckpt"], 1, "checkpoint 'absent.ckpt': no such file"),
        (["--init_from=foreign.pt"], 1, "checkpoint 'foreign.pt': nothing in it fits this network: it holds 1 tensor"),
        (["--init_from=bare.pt", "--init_keep=true"], 2, "init_keep: checkpoint 'bare.pt' names no classes"),
        (["--init_map={a: b}"], 2, "init_map: there is nothing that it belongs to; give --init_from FILE"),
        (
            ["--init_from=OLD", "--init_map={star: asterix}"],
            2,
            "init_map: there is no class in the data 'asterix'",
        ),
        (
            ["--init_from=OLD", "--init_keep=true", "--init_map={sta: x}"],
            2,
            "init_map: there is no class of the weights",
        ),
        (["--init_from=OLD", "--ckpt_path=OLD"], 2, "init_from and ckpt_path are both given"),
        (["--ckpt_path=OLD", "--init_from=null", "--init_from", "OLD"], 2, "init_from and ckpt_path are both given"),
    ],
)
def test_mistakes_take_one_line(
    more: list[str],
    status: int,
    line: str,
    root: Path,
    old: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": torch.zeros(8, 3, 7, 7)}, "foreign.pt")
    torch.save({"encoder.stages.0.bias": torch.zeros(8)}, "bare.pt")
    found, said = fails(capsys, *words(root, tmp_path / "none", *(word.replace("OLD", str(old)) for word in more)))
    assert (found, said.count("\n")) == (status, 1), said
    assert said.startswith(f"error: {line}"), said
    assert not (tmp_path / "none").exists()


def test_other_commands_take_a_config_with_the_options_but_not_the_options(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "start.yaml").write_text("init_from: gone.ckpt\ninit_map: {a: b}\ninit_keep: true\n")
    configs = ["--config", str(root / "others.yaml"), "--config", str(tmp_path / "start.yaml")]
    main(["check", *configs, f"--output={tmp_path / 'report'}"])
    status, said = fails(capsys, "check", *configs, "--init_from=x")
    assert status == 2 and said.startswith("error: --init_from is an option of fit")
