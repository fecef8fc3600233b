"""The batch size and the length of a run, from the memory and the time of a few steps."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from lightning.pytorch import Trainer

from ocrnet_pl.cli.data_choices import MOST_EPOCHS, Choice
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.training.step_memory import StepMemory, advice, available_mb, by_size, largest_that_fits

_LOADED = 16
"""Number of images that are loaded to measure the time of one."""
_OVERHEAD = 1.1
"""Time of a step in a run, with averaged weights, logging and the next batch, as a multiple of the step's own."""
_EVALUATION = 0.5
"""Time of an image in validation, as a share of its time in training."""
_VALIDATIONS = 10
_VALIDATION_SHARE = 0.05
_FEWEST_STEPS = 500
_FEWEST_EPOCHS = 5
_STEPS_WORTH_A_SMALL_BATCH = 3000
"""Number of steps below which more of them teach more than more images in each."""
_SMALLEST_BATCH = 4
_GAIN = 1.5
"""Factor on the number of steps that a batch of half the size has to bring: on a GPU, it may take as long."""


class Speed(NamedTuple):
    """What a run's time depends on.

    Attributes:
        step: Seconds of a training step.
        load: Seconds to load and transform a training image in one process.
        batch: Number of images per step and process.
        workers: Number of loading processes per training process.
        processes: Number of training processes.
    """

    step: float
    load: float
    batch: int
    workers: int
    processes: int

    def steps(self, images: int) -> int:
        """Return the number of steps of an epoch."""
        return math.ceil(images / (self.batch * self.processes))

    @property
    def batch_seconds(self) -> float:
        """Seconds of a batch in a run; loading processes work while the network does."""
        loading = self.load * self.batch
        return (max(self.step, loading / self.workers) if self.workers else self.step + loading) * _OVERHEAD

    def validation(self, images: int) -> float:
        """Return the seconds of a validation."""
        own = max(self.step / self.batch * _EVALUATION, self.load / self.workers if self.workers else self.load)
        return math.ceil(images / self.processes) * own * _OVERHEAD


def length(
    speed: Speed, images: int, evaluated: int, budget: float, accumulated: int = 1, every: int | None = None
) -> tuple[list[Choice], str | None]:
    """Choose the steps and validations that fit a budget, with a validation after the last step.

    Args:
        speed: The run's speed.
        images: Number of training images.
        evaluated: Number of validation images; 0 for none.
        budget: Seconds of the run.
        accumulated: Number of batches per optimiser step.
        every: Number of epochs between two validations, of which there is at least one; None to choose.

    Returns:
        The choices, and a warning if the budget is too short for any training worth the name.
    """
    epoch, validation = speed.steps(images), speed.validation(evaluated)
    count, fits = _within(speed, evaluated, budget)
    batches = min(MOST_EPOCHS * epoch, fits)
    # The last step of an epoch may be one of fewer batches: whole epochs have a known number of steps.
    unit = 1 if accumulated == 1 else epoch
    interval = max(1, batches // (count * unit)) * unit if every is None else every * epoch
    batches = max(1, batches // interval) * interval
    steps = batches // epoch * math.ceil(epoch / accumulated) + batches % epoch
    seconds = batches * speed.batch_seconds + batches // interval * validation
    why = f"{speed.step:.3g} s per batch, with {batches // interval} validation(s) about {clock(seconds)}"
    if fits > MOST_EPOCHS * epoch:
        why += "; more is of little use"
    warning, least = None, min(_FEWEST_STEPS, _FEWEST_EPOCHS * epoch)
    if fits < least:
        warning = (
            f"auto.budget: {clock(budget)} is too short for {images} images: it holds {fits} batches, and {least}, the "
            f"least that is of use, take about {clock(least * speed.batch_seconds + validation)}; give more time, or a "
            "smaller data.size"
        )
    chosen = [Choice("trainer.max_steps", steps, why)]
    if every is None:
        chosen.append(Choice("trainer.val_check_interval", interval, f"validations take {validation:.3g} s each"))
    return chosen, warning


def _within(speed: Speed, evaluated: int, budget: float) -> tuple[int, int]:
    """Return the number of validations and of batches that fit a budget; arguments as of :func:`length`."""
    validation = speed.validation(evaluated)
    count = _VALIDATIONS if not validation else max(1, min(_VALIDATIONS, int(_VALIDATION_SHARE * budget / validation)))
    return count, max(0, int((budget - count * validation) / speed.batch_seconds))


def epochs_within(speed: Speed, images: int, evaluated: int, budget: float) -> float:
    """Return how many times a run of some seconds sees each image; arguments as of :func:`length`."""
    return min(MOST_EPOCHS, _within(speed, evaluated, budget)[1] / speed.steps(images))


def batch_of_budget(
    measured: Callable[[int], Speed], batch: int, evaluated: int, budget: float
) -> tuple[Speed, str | None]:
    """Halve the batch while a budget has few steps, as long as that makes more of them.

    At equal images, 500 steps of 4 nuclei images teach more than 250 of 8 (0.549 instead of 0.542 of box mAP), and 700
    of 4 street scenes more than 350 of 8 (a mIoU of 0.659 instead of 0.642), but 1000 of 4 not more than 500 of 8.

    Args:
        measured: Returns the speed of a run with a batch size.
        batch: The usual batch size.
        evaluated: Number of validation images; 0 for none.
        budget: Seconds of the run.

    Returns:
        The speed of a run with the chosen batch size, and why it is not the usual one.
    """

    def steps(speed: Speed) -> int:
        return _within(speed, evaluated, budget)[1]

    speed, why = measured(batch), None
    usual, needed, smaller = steps(speed), float(steps(speed)), batch // 2
    # All sizes are measured: one that another program slowed down must not hide those below it.
    while smaller >= _SMALLEST_BATCH and steps(speed) < _STEPS_WORTH_A_SMALL_BATCH:
        found, needed = measured(smaller), needed * _GAIN
        if steps(found) >= needed:
            speed, why = found, f"{steps(found)} steps in the budget instead of {usual}"
        smaller //= 2
    return speed, why


def clock(seconds: float) -> str:
    """Return a duration in the unit that suits it."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"


def fitting_batch(memory: StepMemory, sizes: list[tuple[int, int]], batch: int) -> int:
    """Return the largest batch size up to one that fits the memory at the largest size.

    Raises:
        ValueError: Not even a step of one image fits.
    """
    size = by_size(sizes)[0]
    # Other processes' memory is not this one's to take.
    found = largest_that_fits(lambda count: memory.peak(size, count), available_mb(memory.device), most=batch)
    if not found:
        raise ValueError(advice(size, 1))
    return found


def step_seconds(memory: StepMemory, data: JointDataModule, batch: int) -> float:
    """Return the mean seconds of a training step over the sizes of the batches, with random images."""
    sizes = by_size(data.training_sizes)
    return sum(memory.seconds(size, batch) for size in sizes) / len(sizes)


def load_seconds(data: JointDataModule) -> float:
    """Return the seconds to load and transform a training image in one process, from the cache if there is one."""
    seconds, loader = math.inf, data.train_dataloader()
    # The first time fills the cache.
    for _ in range(2):
        images, start = 0, time.perf_counter()
        for loaded in loader:
            images += len(loaded)
            if images >= _LOADED:
                break
        seconds = min(seconds, (time.perf_counter() - start) / max(1, images))
    return seconds


def quiet_trainer(settings: Any, **options: Any) -> Trainer:
    """Return a trainer that knows device, precision and number of processes of a run, and writes nothing.

    Args:
        settings: The run's options of its trainer.
        options: Further options of the trainer.
    """
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        return Trainer(
            accelerator=settings["accelerator"],
            devices=settings["devices"],
            num_nodes=settings["num_nodes"],
            precision=settings["precision"],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )
    finally:
        log.setLevel(before)
