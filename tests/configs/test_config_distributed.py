"""The overlays of several processes, and the command line under torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from ocrnet_pl import OCRNet
from ocrnet_pl.cli.main import main
from tests.helpers.processes import run_together
from tests.helpers.project import ROOT

CONFIGS = ROOT / "configs"
SMALL = [
    "--config",
    str(CONFIGS / "quickstart.yaml"),
    "--model.encoder.init_args.name=test_convnext",
    "--data.size=64",
    "--data.num_workers=0",
    "--data.batch_size=2",
    "--data.cache=false",
    "--data.train.init_args.length=9",
    "--data.val.init_args.length=3",
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
]

BLOCKS = "--trainer.strategy.init_args.block_parameters=1000"


def fit(folder: Path, *words: str) -> None:
    os.environ["OCRNET_PL_DEBUG"] = "1"
    main(["fit", *SMALL, *words, f"--trainer.default_root_dir={folder}"])


def over(name: str) -> tuple[str, str]:
    return "--config", str(CONFIGS / name)


def test_sharded_training_leaves_a_checkpoint_for_one_process(tmp_path: Path) -> None:
    words = (
        *over("overlays/distributed/fsdp.yaml"),
        *over("overlays/distributed/bf16.yaml"),
        "--trainer.devices=2",
        BLOCKS,
    )
    run_together(tmp_path / "results", 2, fit, tmp_path, *words)
    (run,) = (tmp_path / "quickstart").iterdir()
    assert run.name == "version_0" and json.loads((run / "summary.json").read_text())["steps"] == 2
    network = OCRNet.from_checkpoint(run / "checkpoints" / "last.ckpt")
    assert all(parameter.device.type == "cpu" and parameter.numel() for parameter in network.parameters())
    assert network.predict(torch.zeros(3, 40, 60, dtype=torch.uint8))[0].semantic is not None


def test_a_static_graph_by_its_overlay(tmp_path: Path) -> None:
    words = (*over("overlays/distributed/ddp.yaml"), "--trainer.devices=2", "--trainer.accumulate_grad_batches=2")
    run_together(tmp_path / "results", 2, fit, tmp_path, *words)
    assert [path.name for path in (tmp_path / "quickstart").iterdir()] == ["version_0"]


@pytest.mark.parametrize("name", ["overlays/distributed/sync_batchnorm.yaml", "overlays/distributed/fp16.yaml"])
def test_what_needs_a_gpu_is_read(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *SMALL, *over(name), "--print_config"])
    assert not stopped.value.code
    trainer = yaml.safe_load(capsys.readouterr().out)["trainer"]
    for key, value in yaml.safe_load((CONFIGS / name).read_text())["trainer"].items():
        assert trainer[key] == value


@pytest.mark.slow
def test_processes_of_torchrun_share_a_folder_and_only_the_first_speaks(tmp_path: Path) -> None:
    words = [
        *SMALL,
        *over("overlays/distributed/ddp.yaml"),
        "--trainer.devices=2",
        f"--trainer.default_root_dir={tmp_path / 'runs'}",
    ]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--log-dir", str(tmp_path / "log")]
    command = [sys.executable, *launcher, "--redirects=3", "train.py", "fit", *words]
    for version in ("version_0", "version_1"):
        threads = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=ROOT, check=True, timeout=400, capture_output=True, env=threads)
        assert (tmp_path / "runs" / "quickstart" / version / "checkpoints" / "last.ckpt").is_file()
    assert sorted(path.name for path in (tmp_path / "runs" / "quickstart").iterdir()) == ["version_0", "version_1"]
    first = "".join(path.read_text() for path in tmp_path.glob("log/*/attempt_0/0/std*.log"))
    assert "Results (val)" in first
    second = "".join(path.read_text() for path in tmp_path.glob("log/*/attempt_0/1/std*.log"))
    # Lightning says of every process that it is there.
    others = [line for line in second.splitlines() if not line.startswith(("[rank: 1] Seed set", "Initializing"))]
    assert others == []
