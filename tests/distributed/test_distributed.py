"""Several processes do exactly what one does: the same batches, the same losses, the same figures."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.optim import SGD

from ocrnet_pl.balancing.methods import GradNorm, PCGrad, Uncertainty
from ocrnet_pl.callbacks.gradients import GradientLog
from ocrnet_pl.callbacks.guard import LossGuard
from ocrnet_pl.callbacks.stopping import GracefulStop
from ocrnet_pl.data.loading.aspect_groups import Aspects
from ocrnet_pl.data.loading.samplers import Item, MultiScaleSampler
from ocrnet_pl.data.records import Part
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.distributed.global_batch import over_all_processes
from ocrnet_pl.losses.boundary import Boundary
from ocrnet_pl.losses.detection import TutorialDetectionLoss
from ocrnet_pl.losses.pixels import Focal
from ocrnet_pl.losses.regions import Tversky
from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.metrics.boundary import BoundaryIoU
from ocrnet_pl.training.sharding import StaticDDP
from tests.helpers.metric_cases import make_case
from tests.helpers.own_metrics import CountError, FoundBoxes
from tests.helpers.processes import run_together
from tests.metrics.test_metrics import _share, metrics
from tests.training.test_task import PartlyLabelled, even, make_data, make_task, make_trainer

STEPS = 8


class SyncedBatchNorm(nn.BatchNorm2d):
    """What ``torch.nn.SyncBatchNorm`` computes, on the CPU too, where that one refuses to run."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        count = input.new_tensor([input.numel() / input.shape[1]])
        sums = torch.cat((input.sum((0, 2, 3)), input.square().sum((0, 2, 3)), count))
        if dist.is_initialized():
            sums = all_reduce(sums)
        mean, square = (sums[:-1] / sums[-1]).view(2, -1)
        variance = square - mean.square()
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * sums[-1] / (sums[-1] - 1), self.momentum)
        scale = self.weight / (variance + self.eps).sqrt()
        return input * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]


def renormed(module: nn.Module, synced: bool) -> None:
    """Replace every batch normalisation by a synchronised one, or by one without batch statistics."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            width = child.num_features
            setattr(module, name, SyncedBatchNorm(width) if synced else nn.GroupNorm(2, width))
        else:
            renormed(child, synced)


class Curve(Callback):
    """Keeps the loss and its terms at every batch."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        figures = trainer.callback_metrics
        self.losses.append({key: float(value) for key, value in figures.items() if key.startswith("train/")})


def mostly(index: int) -> bool:
    return index % 5 != 0


RECIPES: dict[str, Callable[[], dict[str, Any]]] = {
    "default": dict,
    "others": lambda: {
        "balancing": Uncertainty(),
        "detection_loss": TutorialDetectionLoss(),
        "segmentation_loss": SegmentationLoss([Focal(), Tversky(), Boundary()]),
    },
    "projected": lambda: {"balancing": PCGrad()},
    "normed": lambda: {"balancing": GradNorm()},
}


def train(folder: Path, batch_size: int, recipe: str, synced: bool = False, **settings: Any) -> Any:
    """Take some steps on images of which some have no boxes and some no masks; return the curve and the weights."""
    seed_everything(0, verbose=False)
    source = PartlyLabelled(16, even, mostly)
    # Adam would make large steps of the rounding in gradients of almost zero.
    task = make_task(source.taxonomy, optimizer=functools.partial(SGD, lr=0.05, momentum=0.9), **RECIPES[recipe]())
    renormed(task, synced)
    curve = Curve()
    defaults = {"max_steps": STEPS, "max_epochs": None, "limit_val_batches": 0, "num_sanity_val_steps": 0}
    callbacks = [curve, *settings.pop("callbacks", list)()]
    trainer = make_trainer(folder, callbacks=callbacks, **(defaults | settings))
    trainer.fit(task, make_data(source, source, batch_size=batch_size))
    return curve.losses, {name: value.detach().clone() for name, value in task.state_dict().items()}


def member(*arguments: Any, strategy: type[DDPStrategy] = DDPStrategy, **settings: Any) -> Any:
    """Train as one of several processes."""
    return train(*arguments, strategy=strategy(), devices=int(os.environ["WORLD_SIZE"]), **settings)


def assert_alike(first: Any, second: Any, tolerance: float) -> None:
    for step, (one, two) in enumerate(zip(first, second, strict=True)):
        assert set(one) == set(two)
        for name, value in one.items():
            assert two[name] == pytest.approx(value, rel=tolerance, abs=tolerance), f"{name} at step {step}"


@pytest.mark.parametrize(
    ("recipe", "count"),
    [("default", 2), *(pytest.param(*case, marks=pytest.mark.slow) for case in (("others", 2), ("default", 4)))],
)
def test_the_loss_curve_is_that_of_one_process(tmp_path: Path, recipe: str, count: int) -> None:
    """Equal batches of all processes together; the shares of boxes and of labelled pixels differ at every step."""
    synced = recipe == "default"
    alone, weights = train(tmp_path, 4, recipe, synced)
    assert len(alone) == STEPS and alone[0]["train/loss"] != alone[-1]["train/loss"]
    for losses, others in run_together(tmp_path, count, member, tmp_path, 4 // count, recipe, synced):
        assert_alike(alone, losses, 1e-4)
        for name, value in weights.items():
            torch.testing.assert_close(
                others[name], value, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
            )


def figures(folder: Path, images: int, batch_size: int) -> dict[str, float]:
    """Return what an untrained network reaches on so many images."""
    seed_everything(0, verbose=False)
    source = SyntheticSource(length=images, seed=6, size=64)
    task = make_task(source.taxonomy, metrics=[FoundBoxes, CountError, BoundaryIoU])
    task.network.postprocess.decode.score_threshold = 1e-4
    count = int(os.environ.get("WORLD_SIZE", 1))
    trainer = make_trainer(folder, devices=count, strategy="ddp" if count > 1 else "auto")
    (found,) = trainer.validate(task, make_data(source, source, batch_size=batch_size), verbose=False)
    return dict(found)


def many_figures(folder: Path) -> list[dict[str, float]]:
    return [figures(folder, images, 2) for images in (7, 2)]


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(4, marks=pytest.mark.slow)])
def test_the_figures_are_those_of_one_process(tmp_path: Path, count: int) -> None:
    """Seven images share out unevenly; two leave some processes without any."""
    alone = many_figures(tmp_path)
    assert alone[0]["val/found_boxes"] > 0 and alone[0]["val/count_error"] != alone[1]["val/count_error"]
    assert alone[0]["val/miou"] > 0 and alone[0]["val/miou"] != alone[1]["val/miou"]
    for member_figures in run_together(tmp_path, count, many_figures, tmp_path):
        for one, several in zip(alone, member_figures, strict=True):
            assert set(one) == set(several)
            for name, value in one.items():
                assert several[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name


def metric_shares(images: int, folder: Path) -> None:
    _share(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), images, str(folder))


@pytest.mark.parametrize(("count", "images"), [(3, 7), pytest.param(4, 2, marks=pytest.mark.slow)])
def test_the_metrics_are_those_of_one_process(tmp_path: Path, count: int, images: int) -> None:
    """Good and bad predictions, of which some processes have none."""
    run_together(tmp_path / "results", count, metric_shares, images, tmp_path)
    predictions, truths = make_case(8, images)
    want: dict[str, Tensor] = {}
    for metric in metrics():
        metric.update(predictions, truths)
        want |= metric.compute()
    assert 0 < want["map"] < 1 and 0 < want["pq"] < 1
    for rank in range(count):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert set(got) == set(want)
        for key, value in want.items():
            assert float(got[key]) == pytest.approx(float(value), abs=1e-6, nan_ok=True), key


class Numbers(torch.utils.data.Dataset[int]):
    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length


def steps(count: int, length: int, rank: int = 0, **options: Any) -> list[set[Item]]:
    """Return the items of one process's steps in its second epoch; together the processes take 12 a step."""
    size = 12 // count
    sampler = MultiScaleSampler(Numbers(length), size, [(64, 64), (96, 96)], num_replicas=count, rank=rank, **options)
    sampler.set_epoch(1)
    items = list(sampler)
    return [set(items[start : start + size]) for start in range(0, len(items), size)]


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("kind", ["plain", "parts", "aspects"])
def test_the_processes_together_take_the_batches_of_one(count: int, kind: str) -> None:
    options: dict[str, Any] = {}
    if kind == "parts":
        options["parts"] = [Part("a", 0, 40, 0.75), Part("b", 40, 61, 0.25)]
    if kind == "aspects":
        sizes = [[(64, 64), (96, 96)], [(32, 64), (64, 96)]]
        options["aspects"] = Aspects(np.arange(61) % 2, sizes)
    alone = steps(1, 61, **options)
    shares = [steps(count, 61, rank, **options) for rank in range(count)]
    assert len(alone) == 5 and all(len(batch) == 12 for batch in alone)
    assert [set.union(*step) for step in zip(*shares, strict=True)] == alone


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["default", "projected", "normed"])
def test_a_static_graph_trains_as_any_other(tmp_path: Path, recipe: str) -> None:
    """Accumulated gradients, a process without boxes or masks at many steps, the split measured at some steps only."""
    settings: dict[str, Any] = {"max_steps": 4, "accumulate_grad_batches": 2, "callbacks": lambda: [GradientLog(3)]}
    plain = run_together(tmp_path / "plain", 2, member, tmp_path, 1, recipe, **settings)
    static = run_together(tmp_path / "static", 2, member, tmp_path, 1, recipe, strategy=StaticDDP, **settings)
    for (losses, weights), (others, same) in zip(plain, static, strict=True):
        assert len(losses) == 8
        assert_alike(losses, others, 1e-5)
        for name, value in weights.items():
            torch.testing.assert_close(same[name], value, rtol=1e-4, atol=1e-5)
    for name, value in static[0][1].items():
        torch.testing.assert_close(
            static[1][1][name], value, rtol=0, atol=0, msg=f"{name} differs between the processes"
        )


def partly_broken() -> tuple[Tensor, Tensor, Tensor]:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    values = torch.tensor([1.0, 2.0 + rank, float("nan") if rank == 1 else 5.0], requires_grad=True)
    first, second = over_all_processes(values, values.square().sum()[None].nan_to_num())
    (first[:2].sum() * 3).backward()
    assert values.grad is not None
    return first.detach(), second.detach(), values.grad


def test_a_broken_sum_stays_where_it_broke(tmp_path: Path) -> None:
    (first, second, gradient), (broken, same, _) = run_together(tmp_path, 2, partly_broken)
    assert first.tolist() == [2, 5, 5] and broken[:2].tolist() == [2, 5] and broken[2].isnan()
    # Each process's gradient is of its own share; averaged over the processes, it is that of the whole.
    assert gradient.tolist() == [6, 6, 0]
    assert second.tolist() == same.tolist() == [30]


class Exchanges(Callback):
    """Counts the exchanges of each step, other than that of the gradients."""

    def __init__(self) -> None:
        self.calls = 0
        self.steps: list[int] = []
        send = dist.all_reduce

        def count(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            return send(*arguments, **options)

        dist.all_reduce = count

    def on_train_batch_start(self, *args: object) -> None:
        # What the start of the run exchanges does not count.
        self.calls = 0

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        self.steps.append(self.calls)


def test_losses_and_callbacks_exchange_once_a_step(tmp_path: Path) -> None:
    def counted(folder: Path) -> list[int]:
        found = Exchanges()
        callbacks = [GracefulStop(), found, LossGuard()]
        member(folder, 2, "default", strategy=StaticDDP, max_steps=4, callbacks=lambda: callbacks)
        return found.steps

    for steps in run_together(tmp_path, 2, counted, tmp_path / "run"):
        assert steps == [1] * 4


@pytest.mark.slow
def test_gradients_in_bfloat16_are_rounded_alike_on_all_processes(tmp_path: Path) -> None:
    found = []
    for name, compressed in (("whole", False), ("rounded", True)):
        strategy = functools.partial(StaticDDP, bf16_gradients=compressed)
        found.append(run_together(tmp_path / name, 2, member, tmp_path, 2, "default", strategy=strategy, max_steps=2))
    for name, weight in found[0][0][1].items():
        rounded = [weights[name] for _, weights in found[1]]
        if "running" not in name and weight.is_floating_point():
            assert torch.equal(*rounded), name
            torch.testing.assert_close(rounded[0], weight, rtol=0.05, atol=0.01)
    assert any(not torch.equal(found[0][0][1][name], value) for name, value in found[1][0][1].items())
