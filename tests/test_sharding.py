"""Weights sharded over two processes: the training of DDP, and checkpoints that one process loads."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

from ocrnet_pl.callbacks.ema import EMA
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.losses.weighting import Uncertainty
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.sharding import FullySharded, blocks
from tests.processes import run_together
from tests.test_distributed import Curve, assert_alike, mostly, renormed
from tests.test_task import PartlyLabelled, even, make_data, make_task, make_trainer


def both_ways(folder: Path) -> Any:
    """Train, validate, save and go on from the checkpoint under both strategies; return the curves and figures."""
    found: dict[str, Any] = {}
    for name in ("whole", "sharded"):
        source = PartlyLabelled(8, even, mostly)
        val = SyntheticSource(length=3, seed=6, size=64)

        def run(steps: int, resumed: Path | None = None) -> Any:
            seed_everything(0, verbose=False)
            # Three validation images, one a batch: one process has more batches than the other.
            data = make_data(source, val, batch_size=1)
            task = make_task(source.taxonomy, optimizer=functools.partial(AdamW, lr=1e-3, eps=1e-3))
            renormed(task, False)
            curve = Curve()
            strategy = FullySharded(block_parameters=1000) if name == "sharded" else DDPStrategy()
            limits = {"max_steps": steps, "max_epochs": None, "inference_mode": False, "gradient_clip_val": 10.0}
            trainer = make_trainer(folder, callbacks=[curve], strategy=strategy, devices=2, **limits)
            trainer.fit(task, data, ckpt_path=resumed, weights_only=True)
            return curve.losses, trainer, task

        losses, trainer, task = run(8)
        if name == "sharded":
            assert isinstance(task.network, FSDPModule)
            parameters = dict(task.network.named_parameters())
            assert all(isinstance(parameter, DTensor) for parameter in parameters.values())
            shares = [parameter.to_local().numel() for parameter in parameters.values()]  # type: ignore[attr-defined]
            assert sum(shares) < 0.6 * sum(parameter.numel() for parameter in parameters.values())
        figures = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
        checkpoint = folder / f"{name}.ckpt"
        trainer.save_checkpoint(checkpoint)
        later, _, _ = run(12, checkpoint)
        found[name] = losses, figures, later
    return found


def test_sharded_weights_train_like_whole_ones_and_their_checkpoint_is_whole(tmp_path: Path) -> None:
    found = run_together(tmp_path, 2, both_ways, tmp_path)
    for result in found:
        (whole, figures, later), (sharded, others, continued) = result["whole"], result["sharded"]
        assert len(whole) == 8 and len(later) == 4
        assert_alike(whole, sharded, 1e-4)
        assert_alike(later, continued, 1e-4)
        for name, value in figures.items():
            assert others[name] == pytest.approx(value, abs=1e-4, nan_ok=True), name
    one, two = (torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("whole", "sharded"))
    assert set(one["state_dict"]) == set(two["state_dict"])
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], value, rtol=1e-3, atol=1e-5)
    # In one process, without any strategy.
    source = SyntheticSource(length=3, seed=6, size=64)
    task = make_task(source.taxonomy)
    renormed(task, False)
    task.load_state_dict(two["state_dict"])
    (alone,) = make_trainer(tmp_path).validate(task, make_data(source, source), verbose=False)
    for name, value in found[0]["sharded"][1].items():
        assert alone[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name


def refused(folder: Path) -> list[str]:
    """Return what is said to settings that do not go with sharded weights."""
    source = SyntheticSource(length=4, seed=6, size=64)
    lines = []
    for strategy, options, settings in (
        (FullySharded(), {"balancing": Uncertainty()}, {}),
        (FullySharded(), {}, {"inference_mode": True}),
        (FullySharded(), {}, {"callbacks": [EMA()]}),
        (ModelParallelStrategy(), {}, {}),
        (DDPStrategy(), {}, {"sync_batchnorm": True}),
        (DDPStrategy(static_graph=True), {}, {"accumulate_grad_batches": 2}),
    ):
        devices = int(os.environ["WORLD_SIZE"])
        trainer = make_trainer(folder, strategy=strategy, devices=devices, **({"inference_mode": False} | settings))
        with pytest.raises(MisconfigurationException) as stopped:
            trainer.fit(make_task(source.taxonomy, **options), make_data(source, source))
        lines.append(str(stopped.value))
    return lines


def test_what_does_not_go_with_it_is_refused_in_one_line(tmp_path: Path) -> None:
    for lines in run_together(tmp_path, 2, refused, tmp_path):
        starts = ["model.balancing: Uncertainty", "trainer.inference_mode", "ema.decay", "trainer.strategy"]
        for line, start in zip(lines, [*starts, "trainer.sync_batchnorm", "trainer.strategy: DDP"], strict=True):
            assert line.startswith(start) and "\n" not in line, line
    with pytest.raises(MisconfigurationException, match="block_parameters is -1"):
        FullySharded(-1)


@pytest.mark.parametrize(("name", "least"), [("resnet18", 7), ("convnext_atto", 10), ("vit_tiny_patch16_224", 12)])
def test_the_blocks_hold_most_of_an_encoder(name: str, least: int) -> None:
    encoder = TimmEncoder(name)
    found = list(blocks(encoder, 20_000))
    assert len(found) >= least
    inside = [id(parameter) for block in found for parameter in block.parameters()]
    assert len(inside) == len(set(inside))
    held = sum(parameter.numel() for block in found for parameter in block.parameters())
    assert held > 0.8 * sum(parameter.numel() for parameter in encoder.parameters())
