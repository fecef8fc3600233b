"""Lightning's finders search before the run that they are for, which is the run that the found values alone make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import Namespace
from torch import nn

from ocrnet_pl.cli.finders import Finders, rates_in_proportion
from ocrnet_pl.cli.main import main
from ocrnet_pl.storage.checkpoints import read_checkpoint
from ocrnet_pl.training.optimizers import FACTOR
from ocrnet_pl.training.step_memory import MemoryGuard
from tests.helpers.tiny_run import TINY, fails

SEARCH = """
  num_sanity_val_steps: 0
  callbacks:
    - class_path: LearningRateFinder
      init_args: {num_training_steps: 14, min_lr: 1.0e-4}
    - class_path: DeviceStatsMonitor
    - class_path: BatchSizeFinder
      init_args: {steps_per_trial: 1, max_val: 6}
"""


def config(folder: Path, text: str, **changes: Any) -> Path:
    content = yaml.safe_load(text)
    content["trainer"]["default_root_dir"] = str(folder)
    content["pictures"] = {"enabled": False}
    content["model"]["optimizer"] = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
    content["data"] |= changes
    path = folder / f"{len(list(folder.glob('*.yaml')))}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with both finders."""
    root = tmp_path_factory.mktemp("searched")
    main(["fit", "--config", str(config(root, TINY + SEARCH))])
    return root / "tiny" / "version_0"


def test_the_run_is_that_of_the_found_values_bit_by_bit(searched: Path, tmp_path: Path) -> None:
    found = yaml.safe_load((searched / "config.yaml").read_text())
    rate = found["model"]["optimizer"]["init_args"]["lr"]
    assert found["data"]["batch_size"] == 6 and rate != 0.01
    # The other callback stays.
    assert [each["class_path"].rpartition(".")[2] for each in found["trainer"]["callbacks"]] == ["DeviceStatsMonitor"]
    text = TINY + "  num_sanity_val_steps: 0\n  callbacks: [{class_path: DeviceStatsMonitor}]\n"
    words = [f"--model.optimizer.init_args.lr={rate}", "--data.batch_size=6"]
    main(["fit", "--config", str(config(tmp_path, text)), *words])
    alone, after = (
        read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (tmp_path / "tiny" / "version_0", searched)
    )
    for part in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "loops", "hyper_parameters"):
        assert same(alone[part], after[part]), part


def test_the_search_is_drawn_and_leaves_nothing_else(searched: Path) -> None:
    assert (searched / "learning_rate.png").is_file()
    assert not [
        each for each in searched.parent.parent.rglob("*") if each.name.startswith((".lr_find", ".scale_batch"))
    ]
    # One step in each of two epochs: those of a search are none of the run's.
    assert read_checkpoint(searched / "checkpoints" / "last.ckpt")["global_step"] == 2


def test_a_run_that_continues_takes_its_own_values(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = searched / "checkpoints" / "last.ckpt"
    stored = read_checkpoint(last)["config"]
    again = Namespace(
        trainer=Namespace(
            callbacks=[Namespace(class_path="lightning.pytorch.callbacks.LearningRateFinder", init_args=None)]
        ),
        model=Namespace(optimizer=Namespace(class_path="torch.optim.AdamW", init_args=Namespace(lr=0.01))),
        data=Namespace(batch_size=4),
    )
    Finders(again).repeat(str(last))
    assert again["model.optimizer.init_args.lr"] == stored["model"]["optimizer"]["init_args"]["lr"]
    assert again["data.batch_size"] == 4 and again["trainer.callbacks"] is None
    assert "searches only where a run begins" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--trainer.devices=2"], "LearningRateFinder searches on one process, and this run has 2, whose batches"),
        (
            ["--model.scheduler=OneCycleLR", "--model.scheduler.init_args.max_lr=0.1"],
            "since max_lr of model.scheduler takes the place of the optimiser's rate",
        ),
        (
            ["--trainer.callbacks+=LearningRateFinder", "--trainer.callbacks.init_args.num_training_steps=3"],
            "LearningRateFinder suggests no rate, since the loss was finite at too few of its 3 rates",
        ),
    ],
)
def test_what_a_finder_cannot_do_is_said_in_one_line(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finder = "  callbacks: [{class_path: LearningRateFinder}]\n"
    alone = any("+=" in word for word in words)
    path = config(tmp_path, TINY if alone else TINY + finder)
    status, error = fails(capsys, "fit", "--config", str(path), *words)
    assert status == 1 and expected in error.splitlines()[-1]
    assert not (tmp_path / "tiny").exists()


def test_groups_step_in_proportion_to_their_factors() -> None:
    slow, fast = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    groups = [{"params": [slow], FACTOR: 0.25}, {"params": [fast]}]
    optimizer = torch.optim.SGD(groups, lr=0.4)
    for within in (True, False):
        slow.data.fill_(1.0)
        fast.data.fill_(1.0)
        slow.grad, fast.grad = torch.ones(1), torch.ones(1)
        if within:
            with rates_in_proportion():
                optimizer.step()
        else:
            optimizer.step()
        assert [group["lr"] for group in optimizer.param_groups] == [0.4, 0.4]
        assert slow.item() == pytest.approx(0.9 if within else 0.6) and fast.item() == pytest.approx(0.6)


def test_a_batch_that_would_fill_the_memory_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = iter([100.0, 140.0, 180.0])
    monkeypatch.setattr("ocrnet_pl.training.step_memory.peak_mb", lambda device: next(peaks))
    guard, network = MemoryGuard(limit=300), nn.Identity()
    network.register_forward_pre_hook(guard)
    network(torch.zeros(2, 1))
    # 2 images took 40, so 4 take 80 and 12 would take 240.
    network(torch.zeros(4, 1))
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator: can't allocate memory for a step of 12 images"):
        network(torch.zeros(12, 1))
    assert network(torch.zeros(3, 1)).shape == (3, 1)
