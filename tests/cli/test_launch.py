"""The launch files: their syntax, what they start, and from where a run goes on."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from ocrnet_pl.cli.initial_weights import refuse_both
from tests.helpers.project import ROOT

LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])


@pytest.fixture
def echo(tmp_path: Path) -> dict[str, str]:
    """An environment in which Python only tells its words."""
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\necho "$@"\nprintf "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT" >&2\n')
    program.chmod(0o755)
    hidden = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM") and name not in hidden}
    return kept | {"PYTHON": str(program), "RUNS": str(tmp_path / "runs"), "RUN": "mine"}


def start(script: str, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(LAUNCH / script), *words], env=environment, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_can_be_run(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert os.access(script, os.X_OK)


def test_an_attempt_goes_on_from_the_newest_checkpoint(tmp_path: Path, echo: dict[str, str]) -> None:
    first = start("attempt.sh", echo, "--config", "c.yaml").stdout
    root = tmp_path / "runs" / "mine"
    assert first.split() == [
        *["train.py", "fit", "--config", "c.yaml", "--trainer.default_root_dir", str(root)],
        *["--version", "attempt-000"],
    ]
    # The ninth has a checkpoint, the tenth died before its first, and another run's is none of ours.
    for run, number, saved in (("mine", 8, True), ("mine", 9, True), ("mine", 10, False), ("other", 40, True)):
        folder = tmp_path / "runs" / run / "quickstart" / f"attempt-{number:03d}"
        (folder / "checkpoints").mkdir(parents=True)
        if saved:
            (folder / "checkpoints" / "last.ckpt").touch()
    (root / "quickstart" / "attempt-x").mkdir()
    processes = {"RANK": "0", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
    done = start("attempt.sh", echo | processes, "--init_from", "old.ckpt")
    newest = str(root / "quickstart" / "attempt-009" / "checkpoints" / "last.ckpt")
    assert done.stdout.split()[-10:] == [
        *["--version", "attempt-011", "--ckpt_path", newest, "--init_from", "null"],
        *["--trainer.devices", "4", "--trainer.num_nodes", "2"],
    ]
    assert "continues from" in done.stderr
    refuse_both(done.stdout.split()[1:])
    under_slurm = echo | {"SLURM_PROCID": "3", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "3"}
    done = start("attempt.sh", under_slurm)
    assert done.stdout.split()[-4:] == ["--trainer.devices", "2", "--trainer.num_nodes", "3"]
    assert not done.stderr


def test_torchrun_takes_the_options(echo: dict[str, str]) -> None:
    from torch.distributed.run import get_args_parser

    settings = {"NODES": "1:2", "NODE": "0", "HEAD": "head", "LOCAL_ADDR": "10.0.0.1", "IS_HEAD": "1"}
    for script in ("one_machine.sh", "nodes_static.sh", "nodes_elastic.sh"):
        done = start(script, echo | settings, "--config", "c.yaml")
        words = done.stdout.split()
        # Time to save, within the 120 seconds that SLURM and Kubernetes give.
        assert done.stderr == "110"
        assert words[:2] == ["-m", "torch.distributed.run"]
        parsed = get_args_parser().parse_args(words[2:])
        assert parsed.no_python and parsed.training_script == "launch/attempt.sh"
        assert parsed.training_script_args == ["--config", "c.yaml"]


def test_what_is_missing_is_named(echo: dict[str, str]) -> None:
    nameless = {name: value for name, value in echo.items() if name != "RUN"}
    for script in ("attempt.sh", "one_machine.sh", "nodes_static.sh", "nodes_elastic.sh"):
        done = start(script, nameless)
        assert done.returncode and "RUN: set RUN to the name of the run" in done.stderr
    assert "HEAD: set HEAD" in start("nodes_elastic.sh", echo | {"NODES": "1:2"}).stderr


def test_a_job_of_slurm_saves_and_queues_itself_again(tmp_path: Path, echo: dict[str, str]) -> None:
    """With stand-ins for SLURM's programs: the signal reaches the processes, and their end is waited for."""
    # As SLURM does it: an srun that gets the signal itself kills its processes.
    srun = """#!/bin/bash
        echo "$RUN" ${SRUN_CPUS_PER_TASK:+cpus=$SRUN_CPUS_PER_TASK} "$@"
        [ -n "$WAITS" ] || exit 0
        trap 'kill -KILL $task; exit 137' TERM
        process $PPID &
        task=$!
        wait $task"""
    process = f"""#!/bin/bash
        trap 'sleep 0.3; echo saved; exit 143' TERM
        echo $$ > {tmp_path}/70_2.0
        kill -USR1 $1
        for i in {{1..100}}; do sleep 0.1; done"""
    for name, text in (
        ("srun", srun),
        ("process", process),
        ("scancel", f'#!/bin/bash\n[ "$1" = --signal=TERM ] && kill -TERM "$(cat {tmp_path}/$2)"\n'),
        ("scontrol", '#!/bin/bash\necho scontrol "$@"\n'),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    here = {"PATH": f"{tmp_path}:{echo['PATH']}", "SLURM_JOB_ID": "77", "SLURM_SUBMIT_DIR": str(ROOT)}
    done = start("slurm.sbatch", echo | here, "--config", "c.yaml")
    assert done.returncode == 0 and "scontrol" not in done.stdout
    assert done.stdout.split() == ["mine", "--kill-on-bad-exit=1", "launch/attempt.sh", "--config", "c.yaml"]
    array = {"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "2", "WAITS": "1", "SLURM_CPUS_PER_TASK": "8"}
    done = start("slurm.sbatch", echo | here | array, "--config", "c.yaml")
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["mine-2", "cpus=8"] and lines[0].endswith("--config c.yaml --seed_everything 2")
    assert lines[1:] == ["saved", "scontrol requeue 70_2"] and done.returncode == 143
    options = re.findall(r"^#SBATCH --(\S+)", (LAUNCH / "slurm.sbatch").read_text(), re.MULTILINE)
    assert {"requeue", "open-mode=append", "signal=B:USR1@120"} <= set(options)


def test_the_manifest_is_a_job_of_the_operator() -> None:
    job = yaml.safe_load((LAUNCH / "pytorchjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    (container,) = worker["template"]["spec"]["containers"]
    assert container["name"] == "pytorch" and container["command"][-1] == "launch/attempt.sh"
    assert int(job["spec"]["nprocPerNode"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    elastic = job["spec"]["elasticPolicy"]
    assert elastic["minReplicas"] <= worker["replicas"] == elastic["maxReplicas"]
    for word in container["args"]:
        assert not word.startswith("configs/") or (ROOT / word).is_file()
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in worker["template"]["spec"]["volumes"]}
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert set(environment) >= {"RUN", "RUNS"}
    grace = worker["template"]["spec"]["terminationGracePeriodSeconds"]
    assert 100 < int(environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < grace
