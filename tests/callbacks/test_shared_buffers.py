"""Two processes validate one network, the one that the checkpoint holds."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim import AdamW

from ocrnet_pl.callbacks.checkpoint import BestCheckpoint
from ocrnet_pl.callbacks.ema import EMA
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.distributed.buffers import share_buffers
from ocrnet_pl.training.schedules import WarmupCosine
from ocrnet_pl.training.sharding import FullySharded
from tests.helpers.processes import run_together
from tests.training.test_task import make_data, make_task, make_trainer

VALIDATION = functools.partial(SyntheticSource, length=5, seed=6, size=64)


def statistics(module: nn.Module) -> Tensor:
    found = [buffer.flatten() for name, buffer in module.named_buffers() if "running" in name]
    assert len(found) > 10
    return torch.cat(found).clone()


class Seen(Callback):
    """Keeps the statistics after each step and those that are validated with, and what they led to."""

    def __init__(self) -> None:
        self.validated: list[Tensor] = []
        self.moved: list[Tensor] = []
        self.boxes: dict[int | str, Tensor] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        self.moved.append(statistics(pl_module))

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        if not trainer.sanity_checking:
            self.validated.append(statistics(pl_module))

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: object
    ) -> None:
        """Keep what the figures, which have steps, are made from."""
        self.boxes |= {prediction.image_id: prediction.boxes.as_subclass(Tensor) for prediction in outputs.raw}


def train(folder: Path, kind: str) -> dict[str, Any]:
    seed_everything(0, verbose=False)
    source = SyntheticSource(length=8, seed=5, size=64)
    schedule = functools.partial(WarmupCosine, warmup_steps=0)
    task = make_task(source.taxonomy, optimizer=functools.partial(AdamW, lr=1e-2), scheduler=schedule)
    task.network.postprocess.decode.score_threshold = 1e-4
    checkpoint = BestCheckpoint(monitor="step", mode="max")
    checkpoint.dirpath = str(folder / kind)
    seen, averaging = Seen(), EMA(0.5)
    # DDP's own exchange would come with the first validation step, after what looks at the network before.
    strategy = DDPStrategy(broadcast_buffers=kind != "averaged")
    options: dict[str, Any] = {"strategy": strategy, "callbacks": [seen, averaging, checkpoint]}
    if kind == "sharded":
        options |= {"strategy": FullySharded(block_parameters=1000), "callbacks": [seen, checkpoint]}
    if kind == "unvalidated":
        options["limit_val_batches"] = 0
    trainer = make_trainer(
        folder, devices=2, enable_checkpointing=True, num_sanity_val_steps=0, inference_mode=False, **options
    )
    trainer.fit(task, make_data(source, VALIDATION(), batch_size=1))
    figures = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
    # What the run leaves behind, averaged where there is an average.
    return {
        "seen": seen.validated,
        "moved": seen.moved,
        "figures": figures,
        "boxes": seen.boxes,
        "left": statistics(task),
    }


class Runs:
    """What both processes found in each kind of run; each is run once, when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: dict[str, Any] = {}

    def __getitem__(self, kind: str) -> Any:
        if kind not in self.done:
            self.done[kind] = run_together(self.folder / f"{kind}-results", 2, train, self.folder, kind)
        return self.done[kind]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("together"))


KINDS = ["averaged", pytest.param("sharded", marks=pytest.mark.slow)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_processes_validate_with_the_same_statistics(runs: Runs, kind: str) -> None:
    first, second = runs[kind]
    # They did part in training: each process normalises its own images.
    assert (first["moved"][-1] - second["moved"][-1]).norm() > 1e-3 * first["moved"][-1].norm()
    assert len(first["seen"]) == 3 and len(second["seen"]) in (2, 3)
    for one in [*first["seen"], *second["seen"], first["left"], second["left"]]:
        torch.testing.assert_close(one, first["seen"][0], rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_their_figures_are_those_of_the_checkpoint_on_one_process(runs: Runs, tmp_path: Path, kind: str) -> None:
    results = runs[kind]
    content = torch.load(runs.folder / kind / "last.ckpt", weights_only=True)
    task = make_task(VALIDATION().taxonomy)
    task.network.postprocess.decode.score_threshold = 1e-4
    task.load_state_dict(content["state_dict"])
    seen = Seen()
    (alone,) = make_trainer(tmp_path, callbacks=[seen]).validate(
        task, make_data(VALIDATION(), VALIDATION()), verbose=False
    )
    assert alone["val/miou"] > 0 and alone["val/map"] > 0
    together = results[0]["boxes"] | results[1]["boxes"]
    assert set(together) == set(seen.boxes) and len(together) == 5
    for image_id, boxes in seen.boxes.items():
        assert len(boxes) > 0
        torch.testing.assert_close(together[image_id], boxes, rtol=0, atol=1e-4)
    for result in results:
        assert set(result["figures"]) == set(alone)
        for name, value in alone.items():
            assert result["figures"][name] == pytest.approx(value, abs=1e-6, nan_ok=True), name


def test_a_run_without_validation_leaves_the_same_network_on_all(runs: Runs) -> None:
    first, second = runs["unvalidated"]
    assert not first["seen"]
    torch.testing.assert_close(first["left"], second["left"], rtol=0, atol=0)
    state = torch.load(runs.folder / "unvalidated" / "last.ckpt", weights_only=True)["state_dict"]
    saved = torch.cat([value.flatten() for name, value in state.items() if "running" in name])
    torch.testing.assert_close(first["left"], saved, rtol=0, atol=0)


def exchanged() -> tuple[list[Tensor], int]:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    buffers = [torch.full((2, 3), 1.0 + rank), torch.tensor(2.0 + rank, dtype=torch.float64), torch.tensor(7 + rank)]
    buffers += [torch.full((4,), 3.0 + rank, dtype=torch.bfloat16), torch.full((5,), rank + 0.5)[::2], torch.empty(0)]
    count, original = 0, dist.broadcast

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        return original(*arguments, **options)

    dist.broadcast = counted
    with torch.inference_mode():
        share_buffers(buffers)
    return [buffer.clone() for buffer in buffers], count


def test_one_exchange_carries_all_buffers_of_a_type(tmp_path: Path) -> None:
    for rank, (buffers, count) in enumerate(run_together(tmp_path, 2, exchanged)):
        assert count == 3
        assert [buffer.flatten()[:1].tolist() for buffer in buffers] == [[1.0], [2.0], [7 + rank], [3.0], [0.5], []]
        assert [tuple(buffer.shape) for buffer in buffers] == [(2, 3), (), (), (4,), (3,), (0,)]
    alone = torch.ones(2)
    share_buffers([alone])
    assert alone.tolist() == [1, 1]
