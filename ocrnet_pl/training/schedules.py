"""The learning-rate schedule: the project's own, and how any scheduler of torch is built for a run."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, LRScheduler, OneCycleLR, PolynomialLR, ReduceLROnPlateau

from ocrnet_pl.errors import one_line
from ocrnet_pl.training.optimizers import FACTOR

SchedulerFactory = Callable[[Optimizer], LRScheduler]
"""Makes the schedule of an optimiser."""
Interval = Literal["step", "epoch"]
"""What a schedule counts: optimiser steps or epochs."""

WHOLE_RUN = -1
"""Stands for the run's planned length where a scheduler asks for a number of steps."""
_LENGTHS = ("total_steps", "total_iters", "T_max")
"""What schedulers call the number of steps until they end."""
_RATES = ("base_lr", "max_lr")
"""What torch's cyclic schedulers call rates that take the place of the optimiser's."""

NEEDS_END = (
    "trainer.max_epochs: the schedule {name} needs the end of the run; set max_epochs or max_steps, also beside "
    "max_time, or a model.scheduler that needs none, such as torch.optim.lr_scheduler.ConstantLR"
)


class WarmupCosine(LambdaLR):
    """Raises the learning rate linearly, then lowers it along a half cosine.

    Args:
        optimizer: The optimiser whose rates are set.
        total_steps: Number of steps until the end of the cosine; in a task's config, -1 stands for the whole run.
        warmup_steps: Number of steps of the linear rise; at most a third of ``total_steps`` is used, so that short
            runs still train. 0 begins at the peak.
        final_lr: Share of the peak, from 0 to 1, that is left at the end.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int = WHOLE_RUN, warmup_steps: int = 100, final_lr: float = 0.01
    ) -> None:
        if total_steps < 0:
            raise ValueError(
                f"total_steps: only a task replaces {total_steps} by the length of its run; give the number"
            )
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps: expected at least 0, got {warmup_steps}")
        if not 0 <= final_lr <= 1:
            raise ValueError(f"final_lr: expected at least 0 and at most 1, got {final_lr}")
        super().__init__(optimizer, warmup_cosine(total_steps, warmup_steps, final_lr))


def warmup_cosine(total_steps: int, warmup_steps: int, final: float) -> Callable[[int], float]:
    """Return the factor on the rates by step: it rises linearly, then falls along a half cosine.

    Args:
        total_steps: Number of steps of the run.
        warmup_steps: Number of steps of the rise; at most a third of the run is used, so that short runs still train.
        final: Share of the peak at the end.
    """
    warmup_steps = min(warmup_steps, total_steps // 3)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return final + (1 - final) * (1 + math.cos(math.pi * min(1.0, progress))) / 2

    return factor


def whole_run_options(kind: Any) -> list[str]:
    """Return the options of a scheduler that stand for the run's length unless they are given.

    Args:
        kind: A class of schedulers, or a function that returns one.
    """
    parameters = inspect.signature(kind).parameters
    return [
        name
        for name in _LENGTHS
        if name in parameters
        and (
            parameters[name].default in (parameters[name].empty, None, WHOLE_RUN)
            # torch's own default ends after five steps, too few for any training.
            or (name == "total_iters" and inspect.isclass(kind) and issubclass(kind, PolynomialLR))
        )
    ]


class Schedule:
    """Builds a run's scheduler, at its beginning or at any later step.

    Copies of a task share it: the command line's factory holds on to the parser and, by it, the trainer.

    Args:
        factory: Makes the scheduler of an optimiser.
        interval: What the scheduler counts.
    """

    def __init__(self, factory: SchedulerFactory, interval: Interval) -> None:
        self.factory = factory
        self.interval = interval
        self._kind = _kind(factory)
        self._given: dict[str, Any] = dict(factory.keywords) if isinstance(factory, partial) else {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Schedule:
        return self

    @property
    def name(self) -> str:
        """What to call the scheduler in an error."""
        return str(getattr(self._kind, "__name__", self._kind))

    def refusal(self, endless: bool) -> str | None:
        """Return in one line why no run can have this schedule; None if one can.

        Args:
            endless: Whether the run has no planned end.
        """
        if inspect.isclass(self._kind) and issubclass(self._kind, ReduceLROnPlateau):
            return (
                f"model.scheduler: {self.name} follows a figure instead of the steps, so a run that continues could "
                "not take its place; choose a scheduler that depends on the steps alone"
            )
        if endless and self._open_options():
            return NEEDS_END.format(name=self.name)
        return None

    def build(self, optimizer: Optimizer, length: float) -> LRScheduler:
        """Return the scheduler of a run that begins.

        Args:
            optimizer: Optimiser whose groups have the peak rates, and their factors for rates that the scheduler itself
                names.
            length: Planned length of the run in steps or epochs, as :attr:`interval` says; infinite if it has none.

        Raises:
            ValueError: There can be no such schedule.
        """
        if reason := self.refusal(not math.isfinite(length)):
            raise ValueError(reason)
        options: dict[str, Any] = {name: int(length) for name in self._open_options()}
        if inspect.isclass(self._kind) and issubclass(self._kind, CyclicLR | OneCycleLR):
            factors = [group.get(FACTOR, 1.0) for group in optimizer.param_groups]
            options |= {name: _scaled(self._given[name], factors) for name in _RATES if name in self._given}
        try:
            scheduler: Any = self.factory(optimizer, **options)
        except (TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise ValueError(f"model.scheduler: {self.name}: {one_line(error)}") from error
        if not isinstance(scheduler, LRScheduler):
            raise ValueError(f"model.scheduler: {self.name} returns no scheduler of torch, but {scheduler!r}")
        if isinstance(scheduler, OneCycleLR) and scheduler.total_steps < length:
            raise ValueError(
                f"model.scheduler: {self.name} ends after {scheduler.total_steps} {self.interval}s, before the run "
                f"does; set total_steps to {WHOLE_RUN} for the whole run"
            )
        return scheduler

    def build_at(self, optimizer: Optimizer, length: float, done: int) -> LRScheduler:
        """Return the scheduler of a run that continues, with the numbers that it would have come to by itself.

        Args:
            optimizer: Optimiser whose groups have the peak rates, as at the beginning.
            length: Planned length of the run in steps or epochs; infinite if it has none.
            done: Number of steps or epochs that the run has behind it.
        """
        scheduler = self.build(optimizer, length)
        if isinstance(scheduler, LambdaLR) and done:
            # Each of its rates depends on the first alone.
            scheduler.last_epoch, scheduler._step_count, done = done - 1, done, 1
        with warnings.catch_warnings():
            # The optimiser made its steps in the run before.
            warnings.filterwarnings("ignore", message=r".*`lr_scheduler\.step\(\)` before `optimizer\.step\(\)`")
            for _ in range(done):
                advance(scheduler)
        return scheduler

    def _open_options(self) -> list[str]:
        """Return the options that stand for the run's length."""
        if self._given.get("epochs") is not None and self._given.get("steps_per_epoch") is not None:
            return []
        by_default = whole_run_options(self._kind)
        return [
            name
            for name in _LENGTHS
            if (self._given[name] in (None, WHOLE_RUN) if name in self._given else name in by_default)
        ]


def advance(scheduler: LRScheduler) -> None:
    """Take a scheduler one step on; one that has come to its end stays there.

    A run that continues with batches of another size may make a step more than was planned, which torch's one-cycle
    schedule answers with an exception.
    """
    if isinstance(scheduler, OneCycleLR) and scheduler.last_epoch >= scheduler.total_steps:
        return
    scheduler.step()


def _kind(factory: Any) -> Any:
    """Return the class, or else the function, behind a factory: the command line's hold the class as an argument."""
    while isinstance(factory, partial):
        factory = next((each for each in factory.args if inspect.isclass(each)), factory.func)
    return factory


def _scaled(rates: Any, factors: list[float]) -> Any:
    """Return a rate of all groups, or those of each, with the groups' factors."""
    if not isinstance(rates, list | tuple):
        return [rates * factor for factor in factors]
    if len(rates) != len(factors):
        # The scheduler itself says what it expected.
        return rates
    return [rate * factor for rate, factor in zip(rates, factors, strict=True)]
