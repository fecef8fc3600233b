"""The command line under torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.project import CONFIGS, ROOT

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


def over(name: str) -> tuple[str, str]:
    return "--config", str(CONFIGS / name)


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
