from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ocrnet_pl.callbacks.checkpoint import BestCheckpoint
from ocrnet_pl.callbacks.ema import EMA
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.storage.files import complete_file, write_json
from ocrnet_pl.training.task import OCRNetTask
from tests.training.test_task import make_data, make_task, make_trainer


class Recorder(Callback):
    """Keeps the live weights after every step, before the average sees them or after."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        self.weights.append(next(pl_module.parameters()).detach().clone())


def fit(tmp_path: Path, callbacks: list[Callback], task: OCRNetTask | None = None, **options: object) -> OCRNetTask:
    source, val = (SyntheticSource(length=length, seed=5, size=64) for length in (8, 2))
    torch.manual_seed(0)
    task = task or make_task(source.taxonomy)
    make_trainer(tmp_path, callbacks=callbacks, **options).fit(task, make_data(source, val))
    return task


class Walk(LightningModule):
    """Weights and statistics that go far at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1)
        self.states: list[dict[str, torch.Tensor]] = []

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        return (self.linear(self.norm(batch)) - 3.0).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_train_batch_end(self, *args: object) -> None:
        self.states.append({name: value.clone() for name, value in self.state_dict().items()})


def test_the_average_of_weights_and_statistics_follows_its_formula(tmp_path: Path) -> None:
    torch.manual_seed(0)
    walk = Walk()
    data = torch.randn(24, 2) * 5 + torch.arange(24)[:, None]
    loader = torch.utils.data.DataLoader(data, batch_size=4)  # type: ignore[arg-type]
    make_trainer(tmp_path, callbacks=[EMA(decay=0.3)], max_epochs=1).fit(walk, loader)
    average = walk.states[0]
    assert len(walk.states) == 6
    # The first update copies; the decay of the n-th is min(0.3, (1 + n) / (10 + n)), and counters are copied.
    for updates, state in enumerate(walk.states[1:], 1):
        decay = (2 / 11, 3 / 12, 0.3, 0.3, 0.3)[updates - 1]
        average = {
            name: decay * average[name] + (1 - decay) * value if value.is_floating_point() else value
            for name, value in state.items()
        }
    got = walk.state_dict()
    assert got["norm.num_batches_tracked"] == 6
    torch.testing.assert_close(got, average, rtol=1e-5, atol=0)


def test_no_average_when_switched_off(tmp_path: Path) -> None:
    recorder = Recorder()
    task = fit(tmp_path, [recorder, EMA(decay=0)], max_epochs=2)
    assert torch.equal(next(task.parameters()), recorder.weights[-1])


class FailInValidation(Callback):
    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        if not trainer.sanity_checking:
            raise RuntimeError("stop here")


def test_live_weights_come_back_when_validation_fails(tmp_path: Path) -> None:
    source = SyntheticSource(length=8, seed=5, size=64)
    torch.manual_seed(0)
    task, recorder = make_task(source.taxonomy), Recorder()
    with pytest.raises(RuntimeError, match="stop here"):
        fit(tmp_path, [recorder, EMA(decay=0.9), FailInValidation()], task)
    assert torch.equal(next(task.parameters()), recorder.weights[-1])


class FailInSecondEpoch(Callback):
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("stop here")


@pytest.mark.parametrize(
    "length",
    [{"max_epochs": 3}, pytest.param({"max_epochs": -1, "max_steps": 6}, marks=pytest.mark.slow)],
    ids=["epochs", "steps"],
)
def test_a_run_continues_exactly_from_its_last_checkpoint(tmp_path: Path, length: dict[str, int]) -> None:
    options: dict[str, object] = {"num_sanity_val_steps": 0, **length}
    whole = fit(tmp_path / "whole", [EMA(0.9)], **options)

    # The figure falls, so that the last checkpoint is not the best.
    checkpoint = BestCheckpoint(monitor="step", mode="min", save_on_exception=False)
    checkpoint.dirpath = str(tmp_path)
    with pytest.raises(RuntimeError, match="stop here"):
        fit(tmp_path / "half", [EMA(0.9), FailInSecondEpoch(), checkpoint], **options, enable_checkpointing=True)
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert last["global_step"] == 2

    source, val = (SyntheticSource(length=length, seed=5, size=64) for length in (8, 2))
    torch.manual_seed(7)
    resumed = make_task(source.taxonomy)
    trainer = make_trainer(tmp_path / "rest", callbacks=[EMA(0.9)], **options)
    trainer.fit(resumed, make_data(source, val), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    for (name, want), got in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(got, want, msg=name, rtol=0, atol=0)


def test_json_has_no_nan_and_appears_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": math.nan, "y": [1.5, math.inf]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": None, "y": [1.5, None]}
    with pytest.raises(RuntimeError), complete_file(tmp_path / "b.json") as unfinished:
        unfinished.write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
