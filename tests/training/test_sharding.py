"""Weights sharded over two processes: the training of DDP, and checkpoints that one process loads."""

from __future__ import annotations

import functools
import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import seed_everything
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer

from ocrnet_pl.balancing.methods import Uncertainty
from ocrnet_pl.callbacks.ema import EMA
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.models.necks import PathAggregationNeck
from ocrnet_pl.training.muon import Muon
from ocrnet_pl.training.sharding import FullySharded, blocks, lost_peer
from tests.distributed.test_distributed import Curve, assert_alike, mostly, renormed
from tests.helpers.processes import run_together
from tests.training.test_task import PartlyLabelled, even, make_data, make_task, make_trainer


def run(
    folder: Path,
    strategy: Strategy,
    steps: int,
    resumed: Path | None = None,
    kind: type[Optimizer] = AdamW,
    **parts: Any,
) -> tuple[Any, Any, Any]:
    """Train from the beginning or a checkpoint; return the curve, the trainer and the task."""
    seed_everything(0, verbose=False)
    source = PartlyLabelled(8, even, mostly)
    # Three validation images, one a batch: one process has more batches than the other.
    data = make_data(source, SyntheticSource(length=3, seed=6, size=64), batch_size=1)
    task = make_task(source.taxonomy, optimizer=functools.partial(kind, lr=1e-3, eps=1e-3), **parts)
    renormed(task, False)
    curve = Curve()
    limits = {"max_steps": steps, "max_epochs": None, "inference_mode": False, "gradient_clip_val": 10.0}
    trainer = make_trainer(folder, callbacks=[curve], strategy=strategy, devices=2, **limits)
    trainer.fit(task, data, ckpt_path=resumed, weights_only=True)
    return curve.losses, trainer, task


def both_ways(folder: Path) -> dict[str, Any]:
    """Train, validate, save and go on from the checkpoint under both strategies; return the curves and figures."""
    found = {}
    for name, make in (("whole", DDPStrategy), ("sharded", functools.partial(FullySharded, block_parameters=1000))):
        losses, trainer, task = run(folder, make(), 4)
        if name == "sharded":
            assert isinstance(task.network, FSDPModule)
            parameters = list(task.network.parameters())
            assert all(isinstance(parameter, DTensor) for parameter in parameters)
            held = sum(parameter.to_local().numel() for parameter in parameters)
            assert held < 0.6 * sum(parameter.numel() for parameter in parameters)
        figures = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
        checkpoint = folder / f"{name}.ckpt"
        trainer.save_checkpoint(checkpoint)
        found[name] = losses, figures, run(folder, make(), 6, checkpoint)[0]
    return found


def test_sharded_weights_train_like_whole_ones_and_their_checkpoint_is_whole(tmp_path: Path) -> None:
    found = run_together(tmp_path, 2, both_ways, tmp_path)
    for result in found:
        (whole, figures, later), (sharded, others, continued) = result["whole"], result["sharded"]
        assert len(whole) == 4 and len(later) == 2
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


def with_muon(folder: Path) -> dict[str, list[list[dict[str, float]]]]:
    """Train and go on from the checkpoint under both strategies; return the curves."""
    found = {}
    # Narrower layers are not orthogonalised.
    neck = functools.partial(PathAggregationNeck, width=16)
    for name, make in (("whole", DDPStrategy), ("sharded", functools.partial(FullySharded, block_parameters=1000))):
        losses, trainer, _ = run(folder, make(), 3, kind=Muon, neck=neck)
        assert any("momentum" in state for state in trainer.optimizers[0].state.values())
        trainer.save_checkpoint(folder / f"{name}.ckpt")
        found[name] = [losses, run(folder, make(), 5, folder / f"{name}.ckpt", Muon, neck=neck)[0]]
    return found


@pytest.mark.slow
def test_sharded_weights_step_along_the_whole_matrix(tmp_path: Path) -> None:
    for found in run_together(tmp_path, 2, with_muon, tmp_path):
        for whole, sharded in zip(found["whole"], found["sharded"], strict=True):
            assert_alike(whole, sharded, 1e-3)


def in_both_precisions(folder: Path) -> dict[bool, tuple[list[dict[str, float]], set[torch.dtype]]]:
    """Train and validate with weights gathered in float32 and in bfloat16; return the curves and the types in use."""
    found = {}
    for bf16 in (False, True):
        seed_everything(0, verbose=False)
        source = SyntheticSource(length=8, seed=6, size=64)
        small = functools.partial(AdamW, lr=1e-3, eps=1e-3)
        task = make_task(source.taxonomy, encoder=TimmEncoder("test_convnext"), optimizer=small)
        used: set[torch.dtype] = set()
        block = next(blocks(task.network.encoder, 1000))
        linear = next(part for part in block.modules() if isinstance(part, torch.nn.Linear | torch.nn.Conv2d))
        linear.register_forward_hook(lambda part, given, output, used=used: used.add(part.weight.dtype))
        curve, strategy = Curve(), FullySharded(block_parameters=1000, bf16_weights=bf16)
        limits = {"max_steps": 2, "max_epochs": None, "inference_mode": False}
        trainer = make_trainer(folder, callbacks=[curve], strategy=strategy, devices=2, **limits)
        trainer.fit(task, make_data(source, SyntheticSource(length=2, seed=6, size=64), batch_size=2))
        parameters = list(task.network.parameters())
        states = [value for state in trainer.optimizers[0].state.values() for value in state.values()]
        assert {each.dtype for each in (*parameters, *states)} == {torch.float32}
        found[bf16] = curve.losses, used
    return found


@pytest.mark.slow
def test_blocks_are_used_in_bfloat16_and_kept_in_float32(tmp_path: Path) -> None:
    for found in run_together(tmp_path, 2, in_both_precisions, tmp_path):
        (whole, types), (half, others) = found[False], found[True]
        assert types == {torch.float32} and others == {torch.bfloat16}
        assert_alike(whole, half, 2e-2)
        assert half != whole


def refused(folder: Path) -> list[str]:
    """Return what is said to settings that do not go with sharded weights."""
    source = SyntheticSource(length=4, seed=6, size=64)
    lines = []
    for strategy, options, settings in (
        (FullySharded(), {"balancing": Uncertainty()}, {}),
        (FullySharded(), {}, {"inference_mode": True}),
        (FullySharded(), {}, {"callbacks": [EMA()]}),
        # All of its blocks have batch normalisation.
        (FullySharded(1000, bf16_weights=True), {"encoder": TimmEncoder("test_resnet")}, {}),
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
        starts = [
            "model.balancing: Uncertainty",
            "trainer.inference_mode",
            "ema.decay",
            "trainer.strategy: bf16",
            "trainer.strategy",
        ]
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


def left_alone() -> str | None:
    """Lose the other process in the middle of an exchange."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=20))
    values = torch.ones(1)
    dist.all_reduce(values)
    if dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(RuntimeError) as stopped:
        dist.all_reduce(values)
    line, other = lost_peer(stopped.value), lost_peer(RuntimeError("shapes differ"))
    # What gloo says behind a cut cable.
    assert "(timeout)" in str(lost_peer(RuntimeError("Application timeout caused pair closure")))
    dist.destroy_process_group()
    assert other is None and lost_peer(stopped.value) is None
    return line


def test_a_lost_process_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"result-1\.pt"):
        run_together(tmp_path, 2, left_alone)
    line = torch.load(tmp_path / "result-0.pt", weights_only=True)
    assert line.startswith("process 0 of 2 lost another one (Connection ") and "\n" not in line
