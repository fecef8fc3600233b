from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ocrnet_pl import OCRNet
from ocrnet_pl.callbacks.checkpoint import BestCheckpoint
from ocrnet_pl.callbacks.checkpoint_io import SafeCheckpointIO
from ocrnet_pl.checkpoints import (
    CheckpointError,
    differences,
    read_checkpoint,
    usable_checkpoint,
    verify_checkpoint,
    versions,
)
from ocrnet_pl.main import main
from tests.test_cli import TINY, fails

ROOT = Path(__file__).resolve().parents[1]


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
        OCRNet.from_checkpoint(path)


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
    assert re.search(r"last\.ckpt.*damaged.*going on from .*previous\.ckpt", line)
    assert read_checkpoint(tmp_path / "tiny" / "second" / "checkpoints" / "last.ckpt")["global_step"] == 4
    (folder / "previous.ckpt").unlink()
    status, message = fails(capsys, *words(tmp_path, "--version=third", "--ckpt_path", str(folder / "last.ckpt")))
    assert status == 1
    assert "damaged" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "tiny" / "third").exists()


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


class SmallFiles(Callback):
    """From the second epoch on no file may grow beyond a size that a checkpoint exceeds, like on a full disk."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**13 if trainer.current_epoch else hard, hard))


@pytest.fixture
def unlimited() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("unlimited")
def test_a_full_disk_costs_no_checkpoint_and_no_training(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"could not be written \(.*File too large\); training goes on"):
        main(words(tmp_path, "--trainer.callbacks+=tests.test_checkpoints.SmallFiles"))
    folder = tmp_path / "tiny" / "version_0" / "checkpoints"
    kept = sorted(folder.iterdir())
    assert [path.name for path in kept][-2:] == ["last.ckpt", "previous.ckpt"]
    assert len(kept) == 3
    for path in kept:
        assert read_checkpoint(path)["global_step"] == 2


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
    main(words(tmp_path, "--version=new", "--trainer.max_epochs=3", "--ckpt_path", str(folder / "last.ckpt")))
    line = next(line for line in capsys.readouterr().err.splitlines() if "Different from the run" in line)
    assert line.endswith(
        f"ocrnet_pl 0.0.1 -> {now['ocrnet_pl']}; timm 0.9.0 -> {now['timm']}; trainer.max_epochs 2 -> 3"
    )


def test_weights_of_another_network_are_refused_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = str(run / "checkpoints" / "last.ckpt")
    status, message = fails(capsys, *words(tmp_path, "--model.neck.init_args.width=12", "--ckpt_path", last))
    assert status == 1
    assert "of another shape, such as network.neck" in message
    assert message.splitlines()[-1].startswith("error: the checkpoint holds weights of another network")
    status, message = fails(capsys, *words(tmp_path, "--model.neck=null", "--ckpt_path", last))
    assert status != 0


def test_steps_inside_an_epoch_are_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"checkpoint\.every_n_steps: expected 0 or more, got -1"):
        BestCheckpoint(every_n_steps=-1)
    seen: list[int] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
            path = Path(trainer.checkpoint_callback.dirpath) / "last.ckpt"
            seen.append(read_checkpoint(path)["global_step"] if path.is_file() else 0)

    from ocrnet_pl.data.sources.synthetic import SyntheticSource
    from tests.test_task import make_data, make_task, make_trainer

    source = SyntheticSource(length=28, seed=5, size=64)
    trainer = make_trainer(
        tmp_path, callbacks=[Watch(), BestCheckpoint(every_n_steps=3)], enable_checkpointing=True, max_epochs=1
    )
    trainer.fit(make_task(source.taxonomy), make_data(source, source))
    assert seen == [0, 0, 0, 3, 3, 3, 6]
