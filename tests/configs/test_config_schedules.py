"""The overlays of configs/overlays/schedules, and configs that have the schedule under its earlier keys."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer

from ocrnet_pl.cli.main import main
from tests.helpers.project import CONFIGS

QUICKSTART = ["fit", "--config", str(CONFIGS / "quickstart.yaml")]
SMALL = [
    "--model.encoder.init_args.name=test_convnext",
    "--trainer.limit_val_batches=0",
    "--trainer.log_every_n_steps=1",
    "--data.train.init_args.length=6",
    "--data.size=64",
    "--data.num_workers=0",
    "--data.batch_size=2",
]
RATE = 8e-3


def one_cycle() -> list[float]:
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=3)
    found = []
    for _ in range(3):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


# The rates of three steps in one epoch.
OVERLAYS = {
    "overlays/schedules/polynomial.yaml": [RATE, RATE * (2 / 3) ** 0.9, RATE * (1 / 3) ** 0.9],
    "overlays/schedules/one_cycle.yaml": one_cycle(),
    "overlays/schedules/constant.yaml": [RATE] * 3,
    "overlays/schedules/step.yaml": [RATE] * 3,
}


def rates(run: Path) -> list[float]:
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    key = next(name for name in rows[0] if name.endswith("decoders"))
    return [float(row[key]) for row in rows if row[key]]


class FourSteps(Callback):
    """Ends a run after four steps."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= 4


@pytest.mark.parametrize(
    "overlay",
    [
        pytest.param(name, marks=[pytest.mark.slow] * name.endswith(("step.yaml", "one_cycle.yaml")))
        for name in OVERLAYS
    ],
)
def test_the_overlay_takes_steps_at_its_rates(tmp_path: Path, overlay: str) -> None:
    # The run has no end but the time, which the other schedules do not take; how far a busy machine comes in a time,
    # nobody knows.
    endless = "constant" in overlay
    endlessly = [
        "--trainer.max_epochs=-1",
        "--trainer.max_time=00:01:00:00",
        f"--trainer.callbacks+={__name__}.FourSteps",
    ]
    length = endlessly if endless else ["--trainer.max_epochs=1"]
    folder = f"--trainer.default_root_dir={tmp_path}"
    main([*QUICKSTART, "--config", str(CONFIGS / overlay), *SMALL, *length, folder])
    run = tmp_path / "quickstart" / "version_0"
    found = rates(run)
    assert len(found) > 3 if endless else len(found) == 3
    for rate, want in zip(found, OVERLAYS[overlay], strict=not endless):
        assert rate == pytest.approx(want, rel=1e-6)
    saved = yaml.safe_load((run / "config.yaml").read_text())["model"]["scheduler"]
    written = yaml.safe_load((CONFIGS / overlay).read_text())["model"]["scheduler"]
    assert saved["class_path"] == written["class_path"]
    assert saved["init_args"].items() >= written["init_args"].items()


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as stopped:
        main([*QUICKSTART, *words, "--print_config"])
    assert not stopped.value.code
    model: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)["model"]
    return model


def test_earlier_keys_of_the_schedule_are_todays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, line in (("a", "warmup_steps: 7"), ("b", "final_lr: 0.5")):
        (tmp_path / f"{name}.yaml").write_text(f"model:\n  {line}\n")
    files = [word for name in "ab" for word in ("--config", str(tmp_path / f"{name}.yaml"))]
    for words in (files, ["--model.warmup_steps=7", "--model.final_lr", "0.5"]):
        model = printed(capsys, *words)
        assert model["scheduler"] == {
            "class_path": "ocrnet_pl.training.schedules.WarmupCosine",
            "init_args": {"total_steps": -1, "warmup_steps": 7, "final_lr": 0.5},
        }
        assert "warmup_steps" not in model


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--model.scheduler=ConstantLR", "--model.warmup_steps=3"], "there is no option 'warmup_steps' of ConstantLR"),
        (["--model.scheduler_interval=day"], "model.scheduler_interval: expected 'step' or 'epoch', got 'day'"),
    ],
)
def test_a_wrong_schedule_is_one_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*QUICKSTART, *words])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1
    assert line in error


def test_what_a_scheduler_is_not_told_of_the_length_is_the_whole_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "--model.scheduler=CosineAnnealingLR")["scheduler"]["init_args"]["T_max"] == -1
