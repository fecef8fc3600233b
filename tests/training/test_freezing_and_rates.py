"""Stages that train later, and rates by layer, in runs that are broken off and continue."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from ocrnet_pl.callbacks.ema import EMA
from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.storage.checkpoints import read_checkpoint
from ocrnet_pl.training.sharding import StaticDDP
from tests.helpers.builders import TAXONOMY, TinyEncoder
from tests.helpers.processes import run_together
from tests.helpers.saved_runs import live
from tests.training.test_resume import PEAK, train
from tests.training.test_task import make_task

SWITCH, LAST = 3, 6


class Losses(Callback):
    """Keeps the loss of each step by its number."""

    def __init__(self) -> None:
        self.values: dict[int, torch.Tensor] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: object) -> None:
        self.values[trainer.global_step] = outputs["loss"].clone()


def thawing(until: dict[str, int] | None = None) -> TimmEncoder:
    torch.manual_seed(3)
    encoder = TimmEncoder("test_resnet", frozen_stages=2, unfreeze_at=until or {"step": SWITCH})
    encoder.pretrained = True
    return encoder


def test_runs_that_stop_before_at_and_after_the_change_go_on_as_if_they_had_not(tmp_path: Path) -> None:
    kept = ModelCheckpoint(tmp_path / "whole", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole = Losses()
    train(tmp_path / "whole", EMA(0.9), whole, kept, task={"encoder": thawing()}, max_steps=LAST)
    want = read_checkpoint(tmp_path / "whole" / f"step={LAST}.ckpt")
    start = read_checkpoint(tmp_path / "whole" / "step=1.ckpt")
    stem = "network.encoder.model.conv1.0.weight"
    before, after = (read_checkpoint(tmp_path / "whole" / f"step={at}.ckpt") for at in (SWITCH, SWITCH + 1))
    assert torch.equal(live(before)[stem], live(start)[stem]) and torch.equal(
        before["state_dict"][stem], live(start)[stem]
    )
    assert not torch.equal(live(after)[stem], live(start)[stem])
    for at in (SWITCH, SWITCH + 1):
        again = Losses()
        path = tmp_path / "whole" / f"step={at}.ckpt"
        train(tmp_path / f"again{at}", EMA(0.9), again, ckpt_path=path, task={"encoder": thawing()}, max_steps=LAST)
        assert list(again.values) == list(range(at + 1, LAST + 1))
        assert all(torch.equal(value, whole.values[step]) for step, value in again.values.items())
        got = read_checkpoint(tmp_path / f"again{at}" / "last.ckpt")
        for key in ("state_dict", "current_model_state"):
            assert all(torch.equal(value, got[key][name]) for name, value in want[key].items())


class Weights(Callback):
    """Keeps the weights of the end."""

    def __init__(self) -> None:
        self.values: list[torch.Tensor] = []

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.values = [weight.detach().clone() for weight in pl_module.parameters()]


def exchange(folder: Path) -> list[torch.Tensor]:
    """Train on two processes, across the change, and return the weights."""
    found, encoder = Weights(), thawing({"step": 1})
    options = {"max_epochs": 1, "devices": 2, "strategy": StaticDDP()}
    watch = train(folder, found, task={"encoder": encoder}, **options)
    assert len(watch.groups) == 3
    return found.values


class Layered(TinyEncoder):
    """Its convolutions are its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.pretrained = True

    def layer_depths(self) -> dict[str, int]:
        return {name: 3 - int(name.split(".")[1]) for name, _ in self.named_parameters()}


class Moments(Callback):
    """Keeps the first moments by the parameters' names, as the first step finds them."""

    def __init__(self) -> None:
        self.values: dict[str, torch.Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        state = trainer.optimizers[0].state
        self.values = {name: state[p]["exp_avg"].clone() for name, p in pl_module.named_parameters() if p in state}


def moments_of(path: Path, folder: Path, decay: float | None) -> tuple[dict[str, torch.Tensor], list[Any]]:
    found = Moments()
    watch = train(folder, found, ckpt_path=path, task={"encoder": Layered(), "layer_decay": decay}, max_steps=9)
    return found.values, watch.groups


def test_moments_go_with_their_weights_into_rates_by_layer(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """A run may begin, stop and change to have a rate for each layer, and keeps its moments."""
    train(tmp_path / "with", task={"encoder": Layered(), "layer_decay": 0.5}, max_steps=5)
    train(tmp_path / "without", task={"encoder": Layered()}, max_steps=5)
    old = read_checkpoint(tmp_path / "without" / "last.ckpt")
    # As an earlier version wrote it.
    del old["optimizer_parameters"]
    for group in old["optimizer_states"][0]["param_groups"]:
        group.pop("rate_factor", None)
    torch.save(old, tmp_path / "old.ckpt")
    paths = {name: tmp_path / name / "last.ckpt" for name in ("with", "without")}
    same, groups = moments_of(paths["with"], tmp_path / "1", 0.5)
    rates = {name: group["lr"] / groups[0]["decoders"]["lr"] for name, group in groups[0].items()}
    for depth in (1, 2, 3):
        for end in ("", "_no_decay"):
            assert rates[f"encoder_depth_{depth}{end}"] == pytest.approx(0.1 * 0.5**depth)
    assert all(group["weight_decay"] == (0 if "no_decay" in name else 0.05) for name, group in groups[0].items())
    off, groups = moments_of(paths["with"], tmp_path / "2", None)
    assert {*groups[0]} == {"encoder", "encoder_no_decay", "decoders", "decoders_no_decay"}
    assert same.keys() == off.keys() and all(torch.equal(value, off[name]) for name, value in same.items())
    plain, _ = moments_of(paths["without"], tmp_path / "3", None)
    for number, path in enumerate((paths["without"], tmp_path / "old.ckpt")):
        on, groups = moments_of(path, tmp_path / f"4{number}", 0.5)
        assert len(groups[0]) == 8 and groups[0]["encoder_depth_1"]["lr"] < PEAK
        assert on.keys() == plain.keys() and all(torch.equal(value, plain[name]) for name, value in on.items())
    assert not [each for each in recwarn if "fresh moments" in str(each.message)]


def test_processes_agree_across_the_change(tmp_path: Path) -> None:
    first, second = run_together(tmp_path / "results", 2, exchange, tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    state = live(read_checkpoint(tmp_path / "last.ckpt"))
    assert not torch.equal(state["network.encoder.model.conv1.0.weight"], thawing().model.conv1[0].weight)


def test_rates_that_are_set_before_the_checkpoint_is_loaded_are_not_silently_others() -> None:
    task: Any = make_task(TAXONOMY)
    task._trainer = SimpleNamespace(
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        strategy=SimpleNamespace(restore_checkpoint_after_setup=True),
        optimizers=[task.make_optimizer()],
    )
    task.on_load_checkpoint({"encoder_pretrained": False})
    with pytest.raises(CheckpointError, match=r"set task\.network\.encoder\.pretrained to True"):
        task.on_load_checkpoint({"encoder_pretrained": True})
    task.network.encoder.pretrained = True
    task.on_load_checkpoint({"encoder_pretrained": True})
