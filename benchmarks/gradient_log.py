"""Time training steps with and without the measurement of the tasks' gradients, and with each method of balancing.

The kinds of step take turns within one run on one network, so that a machine whose speed drifts slows all of them
equally; every figure is a ratio to the plain step: the median of the ratios of neighbouring steps. The cost of the log
is the cost of a measured step, reading included, spread over the steps from one to the next. On a CPU the processor's
time counts, on a GPU the clock's. Run: ``python benchmarks/gradient_log.py --size 160 --batch 8`` (as the quickstart),
``--device cuda`` on a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor

from ocrnet_pl.balancing.methods import Balancing, DynamicWeightAverage, FixedWeights, GradNorm, PCGrad, Uncertainty
from ocrnet_pl.callbacks.gradients import GradientLog, shares_and_cosine
from ocrnet_pl.data.loading.collate import collate
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.structures import Batch
from ocrnet_pl.training.task import OCRNetTask

KINDS: dict[str, tuple[type[Balancing], bool]] = {
    "plain": (FixedWeights, False),
    "measured": (FixedWeights, True),
    "uncertainty": (Uncertainty, False),
    "dynamic weight average": (DynamicWeightAverage, False),
    "GradNorm": (GradNorm, False),
    "PCGrad": (PCGrad, False),
}


def training_step(task: OCRNetTask, batch: Batch, optimizer: torch.optim.Optimizer, precision: torch.dtype) -> None:
    """Make one step as the trainer does, without its own overhead."""
    enabled = precision != torch.float32
    with torch.autocast(batch.images.device.type, dtype=precision, enabled=enabled):
        total: Tensor
        total, _ = task.losses(task(batch.images), batch)
    task.on_before_zero_grad(optimizer)
    optimizer.zero_grad()
    total.backward()
    task.on_before_optimizer_step(optimizer)
    optimizer.step()


def main() -> None:
    """Print one row per kind of step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="mobilenetv4_conv_small")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20, help="rounds to time, at least 2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds: at least 2")
    device = torch.device(options.device)
    precision = torch.bfloat16 if options.bf16 else torch.float32
    source = SyntheticSource(length=options.batch, seed=1, size=options.size)
    batch = collate([source[i] for i in range(options.batch)]).to(device)
    torch.manual_seed(0)
    task = OCRNetTask(source.taxonomy, encoder=TimmEncoder(options.encoder)).to(device).train()
    optimizer = torch.optim.AdamW(task.network.parameters(), lr=1e-4)
    methods = {name: method().to(device) for name, (method, _) in KINDS.items()}

    # The time that the work took, not what other programs on the machine took in between.
    clock = time.process_time if device.type == "cpu" else time.perf_counter

    def timed(name: str) -> float:
        task.balancing = methods[name]
        measured = KINDS[name][1]
        task.network.split.rule = task.balancing.rule
        task.network.split.measuring = measured or task.balancing.measures_gradients
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = clock()
        training_step(task, batch, optimizer, precision)
        if measured and task.network.split.products is not None:
            shares_and_cosine(task.network.split.products).tolist()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - start

    for name in KINDS:
        timed(name)
    ratios: dict[str, list[float]] = {name: [] for name in KINDS}
    seconds: list[float] = []
    others = [name for name in KINDS if name != "plain"]
    for _ in range(options.rounds):
        for name in others:
            # Between two plain steps, so that a slow drift cancels out.
            before, own, after = timed("plain"), timed(name), timed("plain")
            seconds += [before, after]
            ratios["plain"].append(after / before)
            ratios[name].append(2 * own / (before + after))
    every = GradientLog().every_n_steps
    plain = statistics.median(seconds)
    print(
        f"{options.encoder}, {options.batch} x {options.size}, {precision}, {device}: plain step {plain * 1e3:.1f} ms"
    )
    for name, values in ratios.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"{name:<24} {middle:6.3f} of a plain step (quartiles {low:.3f} to {high:.3f})")
    cost = (statistics.median(ratios["measured"]) - 1) / every
    print(f"the log, every {every} steps: {cost:+.2%} of the training steps' time")


if __name__ == "__main__":
    main()
