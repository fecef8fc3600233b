from __future__ import annotations

import csv
import errno
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from ocrnet_pl import OCRNet
from ocrnet_pl.callbacks.checkpoint_io import SafeCheckpointIO
from ocrnet_pl.cli.main import main
from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.storage.checkpoints import (
    config_to_repeat,
    differences,
    read_checkpoint,
    usable_checkpoint,
    verify_checkpoint,
    versions,
)
from tests.helpers.tiny_run import TINY, fails


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two epochs."""
    root = tmp_path_factory.mktemp("run")
    (root / "tiny.yaml").write_text(TINY)
    main(["fit", "--config", str(root / "tiny.yaml"), "--trainer.default_root_dir", str(root)])
    return root / "tiny" / "version_0"


def words(folder: Path, *more: str) -> list[str]:
    (folder / "tiny.yaml").write_text(TINY)
    return ["fit", "--config", str(folder / "tiny.yaml"), "--trainer.default_root_dir", str(folder), *more]


def damage(path: Path) -> None:
    """Change one byte of the largest entry's content: no length and no name tells."""
    with zipfile.ZipFile(path) as archive:
        entry = max(archive.infolist(), key=lambda each: each.file_size)
    content = bytearray(path.read_bytes())
    content[entry.header_offset + entry.file_size // 2 + 200] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
def test_the_last_two_are_kept_and_whole(run: Path) -> None:
    last, previous = (read_checkpoint(run / "checkpoints" / name) for name in ("last.ckpt", "previous.ckpt"))
    assert (previous["global_step"], last["global_step"]) == (2, 4)
    assert [path.name for path in (run / "checkpoints").iterdir() if path.suffix != ".ckpt"] == []


@pytest.mark.parametrize("how", ["changed", "cut off", "empty", "text"])
def test_damage_is_found(how: str, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    shutil.copy(run / "checkpoints" / "last.ckpt", path)
    verify_checkpoint(path)
    if how == "changed":
        damage(path)
    else:
        path.write_bytes({"cut off": path.read_bytes()[:-1000], "empty": b"", "text": b"not a checkpoint"}[how])
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        verify_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        OCRNet.from_checkpoint(path, trust="tests")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": {}}, "no entry 'state_dict'; it is not one of this project"),
        ({"state_dict": {"weight": torch.zeros(2)}}, "no entry 'pytorch-lightning_version'; it is not one"),
        ({"state_dict": {}, "optimizer_states": [5]}, "optimizer_states: not what training writes"),
    ],
)
def test_what_other_programs_save_is_not_evaluated(
    content: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "weights.pth")
    status, message = fails(capsys, "validate", *words(tmp_path)[1:], "--ckpt_path", str(tmp_path / "weights.pth"))
    assert status == 1 and said in message


def test_a_damaged_last_one_falls_back_to_the_one_before(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tiny" / "first" / "checkpoints"
    shutil.copytree(run / "checkpoints", folder)
    for path in folder.glob("epoch*.ckpt"):
        path.unlink()
    damage(folder / "last.ckpt")
    capsys.readouterr()
    main(words(tmp_path, "--version=second", "--ckpt_path", str(folder / "last.ckpt")))
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: checkpoint"))
    assert re.search(r"last\.ckpt.*damaged.*continuing from .*previous\.ckpt", line)
    assert read_checkpoint(tmp_path / "tiny" / "second" / "checkpoints" / "last.ckpt")["global_step"] == 4
    (folder / "previous.ckpt").unlink()
    status, message = fails(capsys, *words(tmp_path, "--version=third", "--ckpt_path", str(folder / "last.ckpt")))
    assert status == 1
    assert "damaged" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "tiny" / "third").exists()


def test_choices_are_not_repeated_from_an_address() -> None:
    with pytest.raises(CheckpointError, match=r"^auto: not from here; give the run's own config\.yaml instead$"):
        config_to_repeat("s3://bucket/last.ckpt", "auto: not from here")


def test_the_newest_whole_one_stands_in(run: Path, tmp_path: Path) -> None:
    names = ["a.ckpt", "b.ckpt", "c.ckpt", "last.ckpt"]
    for age, name in enumerate(names):
        shutil.copy(run / "checkpoints" / "last.ckpt", tmp_path / name)
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    assert usable_checkpoint(tmp_path / "last.ckpt") == (tmp_path / "last.ckpt", None)
    damage(tmp_path / "last.ckpt")
    damage(tmp_path / "c.ckpt")
    path, reason = usable_checkpoint(tmp_path / "last.ckpt")
    assert path == tmp_path / "b.ckpt"
    assert reason is not None and "last.ckpt" in reason
    (tmp_path / "last.ckpt").unlink()
    assert usable_checkpoint(tmp_path / "last.ckpt")[0] == tmp_path / "b.ckpt"
    with pytest.raises(FileNotFoundError):
        usable_checkpoint(tmp_path / "elsewhere" / "last.ckpt")
    # A mistyped name does not stand for another checkpoint.
    with pytest.raises(FileNotFoundError, match=r"bb\.ckpt"):
        usable_checkpoint(tmp_path / "bb.ckpt")
    with pytest.raises(FileNotFoundError, match="it is a folder; name the file in it"):
        verify_checkpoint(tmp_path)
    # Nor does a damaged one that was meant: what lies beside it may be of another run.
    with pytest.raises(CheckpointError, match=r"c\.ckpt"):
        usable_checkpoint(tmp_path / "c.ckpt")


def test_no_room_or_no_right_to_write_ends_the_run_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**5))
        status, message = fails(capsys, *words(tmp_path))
    assert status == 1
    assert "0 MB are free, 4 checkpoints need about " in message

    def refuse(self: Path, data: bytes) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    status, message = fails(capsys, *words(tmp_path, "--version=other"))
    assert status == 1
    assert "checkpoints cannot be written there (Permission denied); set trainer.default_root_dir" in message


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path, writer = tmp_path / "a.ckpt", SafeCheckpointIO()
    writer.save_checkpoint({"a": torch.ones(3)}, path)
    with pytest.raises(Exception, match="pickle"):
        writer.save_checkpoint({"a": lambda: None}, path)
    assert torch.equal(read_checkpoint(path)["a"], torch.ones(3))
    assert [each.name for each in tmp_path.iterdir()] == ["a.ckpt"]


def test_versions_and_settings_that_differ_are_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content: dict[str, Any] = read_checkpoint(run / "checkpoints" / "last.ckpt")
    assert content["versions"] == versions()
    assert content["config"]["data"]["batch_size"] == 4
    assert differences(content, content["config"]) == []
    content["versions"] |= {"ocrnet_pl": "0.0.1", "timm": "0.9.0"}
    now = versions()
    assert differences(content) == [f"ocrnet_pl 0.0.1 -> {now['ocrnet_pl']}", f"timm 0.9.0 -> {now['timm']}"]
    assert differences({"config": {"a": {"b": 1, "c": [2]}}}, {"a": {"b": 3, "d": None}})[1:] == [
        "a.b 1 -> 3",
        "a.d 'absent' -> None",
        "a.c [2] -> 'absent'",
    ]
    folder = tmp_path / "tiny" / "old" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(content, folder / "last.ckpt")
    capsys.readouterr()
    changes = ["--trainer.max_epochs=3", "--model.final_lr=0.5", "--trainer.num_sanity_val_steps=1"]
    main(words(tmp_path, "--version=new", *changes, "--ckpt_path", str(folder / "last.ckpt")))
    line = next(line for line in capsys.readouterr().err.splitlines() if "Different from the run" in line)
    assert line.endswith(
        f"ocrnet_pl 0.0.1 -> {now['ocrnet_pl']}; timm 0.9.0 -> {now['timm']}; trainer.max_epochs 2 -> 3; "
        "model.scheduler.init_args.final_lr 0.01 -> 0.5; does not take effect: trainer.num_sanity_val_steps 0 -> 1 "
        "(a run that continues makes no trial validation)"
    )
    # Six steps, of which two warm up; four were made before.
    with (tmp_path / "tiny" / "new" / "metrics.csv").open(newline="") as file:
        rates = {row["step"]: row["lr-Muon/decoders"] for row in csv.DictReader(file) if row["lr-Muon/decoders"]}
    want = [3e-3 * (0.5 + 0.5 * 0.5), 3e-3 * (0.5 + 0.25 * (1 - 0.5**0.5))]
    assert [float(rates[step]) for step in ("4", "5")] == pytest.approx(want)


def test_weights_of_another_network_are_refused_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = str(run / "checkpoints" / "last.ckpt")
    status, message = fails(capsys, *words(tmp_path, "--model.neck.init_args.width=12", "--ckpt_path", last))
    assert status == 1
    assert "of another shape, such as network.neck" in message
    assert message.splitlines()[-1].startswith("error: the checkpoint contains weights of another network")
    status, message = fails(capsys, *words(tmp_path, "--model.neck=null", "--ckpt_path", last))
    assert status != 0


def test_nothing_in_a_checkpoint_is_executed_wherever_it_comes_from(tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"a": Touch()}, tmp_path / "bad.ckpt")
    for path in (tmp_path / "bad.ckpt", (tmp_path / "bad.ckpt").as_uri()):
        with pytest.raises(Exception, match=r"[Ww]eights.only"):
            SafeCheckpointIO().load_checkpoint(path, weights_only=False)
    assert not (tmp_path / "executed").exists()


def test_a_device_that_is_not_there_is_no_damage(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "whole.ckpt")
    with pytest.raises(ValueError, match=r"^map_location 'nowhere': this device cannot be used here \(.*\)") as caught:
        read_checkpoint(tmp_path / "whole.ckpt", "nowhere")
    assert not isinstance(caught.value, CheckpointError) and "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    status, message = fails(capsys, *words(tmp_path, "--trainer.default_root_dir", str(tmp_path / "file" / "runs")))
    assert status == 1
    assert message.splitlines()[-1].startswith("error: ") and "file" in message.splitlines()[-1]
    assert "Traceback" not in message
