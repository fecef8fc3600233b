"""Where the time of a training step goes, and how fast training is against the networks alone and against RetinaNet.

First a config's own run is profiled as ``train.py fit`` makes it, data and logging included. Then, for one batch in
memory with 100 boxes per image at each size, variants of a step take turns: encoder and decoders with a plain sum for a
loss (the limit), the whole step, in bfloat16, compiled, and torchvision's RetinaNet with the same encoder. Figures are
medians within this run. Run: ``python benchmarks/step_time.py --config configs/quickstart.yaml --compile``.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from joint_speed import TAXONOMY, medians
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import SimpleProfiler
from rich.console import Console
from rich.table import Table
from side_by_side.detectors import retinanet
from torch import Tensor

from ocrnet_pl.cli.running import build
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.structures import Batch
from ocrnet_pl.training.step_memory import random_batch
from ocrnet_pl.training.task import OCRNetTask

WARM = 5


class Durations(SimpleProfiler):
    """Keeps durations and prints nothing."""

    def summary(self) -> str:
        """Return nothing."""
        return ""


class NetworkTime(Callback):
    """Times the network's forward passes inside the training steps."""

    def __init__(self, profiler: SimpleProfiler) -> None:
        self.profiler = profiler

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch the network."""
        network: Any = pl_module.network
        network.register_forward_pre_hook(lambda *_: self.profiler.start("network"))
        network.register_forward_hook(lambda *_: self.profiler.stop("network"))


def profiled(words: list[str], steps: int) -> dict[str, float]:
    """Return the median seconds of each part of a run's training step; they add up to the step but for rounding."""
    with tempfile.TemporaryDirectory() as folder:
        quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
        length = [f"--trainer.max_steps={steps}", "--trainer.max_epochs=-1", "--trainer.limit_val_batches=0"]
        own = ["--trainer.default_root_dir", folder, "--checkpoint.save_last=false", "--pictures.enabled=false"]
        cli = build(["fit", *words, *quiet, *length, *own])
        profiler = Durations()
        trainer: Any = cli.trainer
        trainer.profiler = profiler
        trainer.callbacks.append(NetworkTime(profiler))
        cli.execute()
    spent = {name: statistics.median(own[WARM:]) for name, own in profiler.recorded_durations.items() if own[WARM:]}

    def of(ending: str) -> float:
        return next(seconds for name, seconds in spent.items() if name.endswith(ending))

    # There is a whole step between two fetches.
    fetched, batch = of("train_dataloader_next"), of("run_training_batch")
    forward, step, backward = spent["network"], of(".training_step"), of(".backward")
    hooks = sum(seconds for name, seconds in spent.items() if "on_train_batch_" in name)
    return {
        "waiting for data": fetched,
        "forward": forward,
        "losses and assignment": step - forward,
        "backward": backward,
        "optimiser, clipping, guard": batch - step - backward,
        "average, logging, other callbacks": hooks,
    }


def variants(options: argparse.Namespace, size: int) -> dict[str, Callable[[], object]]:
    """Return the functions to time at a size; each makes one step of training."""
    device = torch.device(options.device)
    batch = random_batch(TAXONOMY, (size, size), options.batch, 3, device, boxes=100)
    torch.manual_seed(0)

    def task(compiled: bool = False) -> OCRNetTask:
        backend = "inductor" if compiled else None
        return OCRNetTask(TAXONOMY, TimmEncoder(options.encoder), compile_backend=backend).to(device).train()

    eager = task()
    optimizer = eager.make_optimizer()
    found: dict[str, Callable[[], object]] = {
        "encoder and decoders alone": functools.partial(bare, eager, batch),
        "whole step": functools.partial(whole, eager, optimizer, batch, torch.float32),
        "whole step, bf16": functools.partial(whole, eager, optimizer, batch, torch.bfloat16),
    }
    if options.compile:
        compiled = task(compiled=True)
        stepper = compiled.make_optimizer()
        found["whole step, compiled"] = functools.partial(whole, compiled, stepper, batch, torch.float32)
        found["whole step, compiled, bf16"] = functools.partial(whole, compiled, stepper, batch, torch.bfloat16)
    peer: Any = retinanet(TimmEncoder(options.encoder), TAXONOMY).to(device).train()
    own = torch.optim.AdamW(peer.parameters(), lr=1e-4)
    found["RetinaNet, boxes only"] = functools.partial(detector_step, peer, own, batch)
    return found


def bare(task: OCRNetTask, batch: Batch) -> None:
    """Go forward and backward without losses."""
    output = task(batch.images)
    total: Tensor = output.semantic.mean() + output.detection.scores.mean() + output.detection.boxes.mean()
    total.backward()
    task.zero_grad()
    wait(batch)


def whole(task: OCRNetTask, optimizer: torch.optim.Optimizer, batch: Batch, precision: torch.dtype) -> None:
    """Make a whole step."""
    with torch.autocast(batch.images.device.type, dtype=precision, enabled=precision != torch.float32):
        total, _ = task.losses(task(batch.images), batch)
    optimizer.zero_grad()
    total.backward()
    torch.nn.utils.clip_grad_norm_(task.parameters(), 10.0)
    optimizer.step()
    wait(batch)


def detector_step(peer: Any, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """Make a whole step of a torchvision detector."""
    targets = [
        {"boxes": boxes, "labels": labels + peer.first_label}
        for boxes, labels in zip(batch.boxes, batch.labels, strict=True)
    ]
    losses = peer.detector(list(batch.images.float() / 255), targets)
    optimizer.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    torch.nn.utils.clip_grad_norm_(peer.parameters(), 10.0)
    optimizer.step()
    wait(batch)


def losses_share(options: argparse.Namespace, size: int) -> float:
    """Return the share of the whole step that losses and assignment take, forward, with 100 boxes per image."""
    device = torch.device(options.device)
    batch = random_batch(TAXONOMY, (size, size), options.batch, 3, device, boxes=100)
    task = OCRNetTask(TAXONOMY, TimmEncoder(options.encoder)).to(device).train()
    output = task(batch.images)

    def losses() -> None:
        task.losses(output, batch)
        wait(batch)

    step = functools.partial(whole, task, task.make_optimizer(), batch, torch.float32)
    own, all_of_it = medians([losses, step], options.rounds)
    return own / all_of_it


def wait(batch: Batch) -> None:
    """Wait until the device has finished."""
    if batch.images.is_cuda:
        torch.cuda.synchronize()


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", nargs="*", default=[], help="configs whose run is profiled")
    parser.add_argument("--set", nargs="*", default=[], help="further words of that run, such as data.root=DIR")
    parser.add_argument(
        "--steps", type=int, default=60, help=f"steps of that run, more than {WARM + 1}; the first {WARM} do not count"
    )
    parser.add_argument("--encoder", default="efficientnet_lite0")
    parser.add_argument("--sizes", type=int, nargs="*", default=[192, 256, 320])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="also compiled; needs a C++ compiler")
    options = parser.parse_args()
    if options.steps <= WARM + 1:
        parser.error(f"--steps: more than {WARM + 1}, since the first {WARM} do not count")
    if options.config:
        words = [word for path in options.config for word in ("--config", path)] + [f"--{word}" for word in options.set]
        parts = profiled(words, options.steps)
        total = sum(parts.values())
        table = Table("part of the step", "ms", "%", title=f"{' '.join(options.config)}, {options.steps} steps")
        for name, seconds in parts.items():
            table.add_row(name, f"{seconds * 1e3:.2f}", f"{100 * seconds / total:.1f}")
        Console().print(table)
    for size in options.sizes:
        found = variants(options, size)
        spent = dict(zip(found, medians(list(found.values()), options.rounds), strict=True))
        share = losses_share(options, size)
        table = Table(
            "",
            "images/s",
            "of the limit",
            title=f"{options.batch} images of {size} x {size}, 100 boxes each; losses {share:.1%} of the step",
        )
        limit = spent["encoder and decoders alone"]
        for name, seconds in spent.items():
            table.add_row(name, f"{options.batch / seconds:.1f}", f"{limit / seconds:.2f}")
        Console().print(table)


if __name__ == "__main__":
    main()
