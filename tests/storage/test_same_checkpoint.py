"""Processes that would continue from different checkpoints refuse together, and none waits for another."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import seed_everything

import ocrnet_pl.cli.running  # noqa: F401  (what is forked has it by then)
from ocrnet_pl.callbacks.same_checkpoint import SameCheckpoint
from ocrnet_pl.cli.main import main
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.storage.same_checkpoint import check_same_checkpoint, expects_others, read_start
from tests.configs.test_configs import STEP
from tests.helpers.processes import run_together
from tests.helpers.project import CONFIGS
from tests.training.test_task import make_data, make_task, make_trainer

NAME = "last.ckpt"
ADVICE = "; give all of them the same file with --ckpt_path, on storage that they share"


def write(folder: Path, step: int = 3, weight: float = 0.0, name: str = NAME) -> Path:
    """Write what a run that goes on looks at first."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {"network.weight": torch.full((50,), weight)}
    content = {"global_step": step, "epoch": 1, "state_dict": weights, "taxonomy": {"categories": []}}
    torch.save(content, folder / name)
    return folder / name


def refusals(folder: Path) -> list[str | None]:
    """Return what is said in each case, in whose folder each process has its own."""
    dist.init_process_group("gloo")
    lines: list[str | None] = []
    for case in sorted(each for each in folder.iterdir() if each.name.startswith("case")):
        own = case / str(dist.get_rank())
        path = next(own.iterdir(), own / NAME) if own.is_dir() else None
        try:
            check_same_checkpoint(path)
            lines.append(None)
        except CheckpointError as error:
            lines.append(str(error))
    try:
        check_same_checkpoint("s3://bucket/last.ckpt" if dist.get_rank() == 0 else "s3://other/last.ckpt")
    except CheckpointError as error:
        lines.append(str(error))
    return lines


def test_different_checkpoints_are_refused_on_all_processes_in_the_same_line(tmp_path: Path) -> None:
    cases = [tmp_path / f"case{number}" for number in range(9)]
    write(cases[0] / "0")
    write(cases[0] / "1", name="other.ckpt")
    for rank in "01":
        (cases[1] / rank).mkdir(parents=True)
        shutil.copy(cases[0] / "0" / NAME, cases[1] / rank / f"copy{rank}.ckpt")
        write(cases[2] / rank, step=3 + int(rank))
        write(cases[3] / rank, weight=float(rank))
        (cases[6] / rank).mkdir(parents=True)
    for case in (4, 7, 8):
        write(cases[case] / "0")
    (cases[4] / "1").mkdir()
    write(cases[5] / "1")
    damaged = write(cases[7] / "1")
    damaged.write_bytes(damaged.read_bytes()[:500])
    torch.save([1, 2], write(cases[8] / "1"))
    first, second = run_together(tmp_path / "results", 2, refusals, tmp_path)
    assert len(first) == 10
    for case, (line, other) in enumerate(zip(first, second, strict=True)):
        assert line == other and "\n" not in (line or ""), case
    assert first[0] is None and first[1] is None
    start = "the processes do not continue from the same checkpoint (process 0: "
    for case in (2, 3, 4, 7, 8):
        assert first[case].startswith(f"{start}{str(cases[case] / '0' / NAME)!r} of step 3, epoch 1, content ")
        assert first[case].endswith(ADVICE)
    absent = f"checkpoint {str(cases[4] / '1' / NAME)!r}: no such file"
    assert f"process 1: {str(cases[2] / '1' / NAME)!r} of step 4, epoch 1" in first[2]
    contents = re.findall(r"content (\w{8})", first[3])
    assert len(contents) == 2 and contents[0] != contents[1]
    assert f"process 1: {absent}" in first[4]
    assert first[5].startswith(f"{start}no checkpoint; process 1: {str(cases[5] / '1' / NAME)!r} of step 3")
    assert first[6].count("no such file") == 2
    assert f"process 1: checkpoint {str(damaged)!r}: unreadable; it is not a checkpoint, or not complete" in first[7]
    assert "process 1: checkpoint" in first[8] and "unreadable (TypeError)" in first[8]
    assert first[9] == f"{start}'s3://bucket/last.ckpt'; process 1: 's3://other/last.ckpt'){ADVICE}"


def test_one_process_continues_from_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_same_checkpoint(tmp_path / "absent.ckpt")
    assert read_start(None) == ("no checkpoint", None, True)
    for name in ("WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    assert not expects_others() and expects_others(2)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert expects_others()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not expects_others()


def command(folder: Path, checkpoint: str) -> tuple[int, str]:
    """Continue from what has the same name in a folder of each process's own."""
    os.chdir(folder / f"node{os.environ['RANK']}")
    said = io.StringIO()
    config = ["--config", str(CONFIGS / "quickstart.yaml"), *STEP]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.default_root_dir=runs"]
    with contextlib.redirect_stderr(said), pytest.raises(SystemExit) as stopped:
        main(["fit", *config, *two, "--ckpt_path", checkpoint])
    return int(stopped.value.code or 0), said.getvalue()


SLOW = pytest.mark.slow


@pytest.mark.parametrize("second", ["absent", pytest.param("older", marks=SLOW), pytest.param("last", marks=SLOW)])
def test_the_command_line_refuses_before_anything_is_written(tmp_path: Path, second: str) -> None:
    runs = "runs/quickstart/version_0/checkpoints" if second == "last" else ""
    write(tmp_path / "node0" / runs, 7)
    (tmp_path / "node1").mkdir()
    if second == "older":
        write(tmp_path / "node1", 5)
    one = "'last.ckpt'" if second != "last" else f"'{runs}/last.ckpt'"
    two = {
        "absent": "checkpoint 'last.ckpt': no such file",
        "older": "'last.ckpt' of step 5, epoch 1",
        "last": "checkpoint 'last': no such file",
    }[second]
    asked = "last" if second == "last" else NAME
    for status, said in run_together(tmp_path / "results", 2, command, tmp_path, asked):
        assert status == 1
        (line,) = [each for each in said.splitlines() if each.startswith("error: ")]
        start = r"error: the processes do not continue from the same checkpoint \(process 0: "
        assert re.match(rf"{start}{re.escape(one)} of step 7, epoch 1, content \w+; process 1: {re.escape(two)}", line)
        assert line.endswith(ADVICE) and "Traceback" not in said
    assert not list(tmp_path.rglob("config.yaml")) and not list(tmp_path.rglob("metrics.csv"))


def fit(folder: Path) -> int:
    """Train, and continue from what the first process wrote."""
    steps = 0
    for path in (None, folder / NAME):
        seed_everything(0, verbose=False)
        source = SyntheticSource(length=4, seed=5, size=64)
        task = make_task(source.taxonomy)
        options: dict[str, Any] = {"devices": 2, "strategy": "ddp", "max_epochs": 1 if path is None else 2}
        trainer = make_trainer(folder, limit_val_batches=0, callbacks=[SameCheckpoint(path)], **options)
        trainer.fit(task, make_data(source, source, batch_size=1), ckpt_path=path, weights_only=True)
        if path is None:
            trainer.save_checkpoint(folder / NAME)
        steps = trainer.global_step
    return steps


def test_the_same_checkpoint_is_continued_from(tmp_path: Path) -> None:
    assert run_together(tmp_path / "results", 2, fit, tmp_path) == [4, 4]
