"""What a task keeps and writes so that another run can continue: its pace, its optimiser's settings, its schedule."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.training.resume import (
    OPTIMIZER_KEY,
    PACE_KEY,
    PARAMETERS_KEY,
    Pace,
    Settings,
    class_name,
    other_class,
    pace_of,
    parameter_names,
    prepare_states,
    restore_settings,
    settings_of,
)
from ocrnet_pl.training.schedules import Schedule, advance

_INTERVAL_KEY = "scheduler_interval"
"""Where a checkpoint holds what its schedule counts."""


class Continuing:
    """Begins a run's schedule and, in a run that continues, lets it follow the run's own settings from there on.

    Args:
        schedule: The run's.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._settings: Settings = []
        self._pace: Pace | None = None
        # The checkpoint that a run continues from, until it has begun.
        self._restored: dict[str, Any] | None = None

    def begin(self, trainer: Trainer, optimizer: Optimizer) -> LRScheduler:
        """Return the schedule of a new optimiser, whose own settings are kept.

        Args:
            trainer: Trainer of the run.
            optimizer: It has no schedule yet.

        Raises:
            ValueError: The run cannot have this schedule.
        """
        self._settings = settings_of(optimizer)
        total = trainer.estimated_stepping_batches
        if self.schedule.interval == "epoch" and math.isfinite(total):
            trainer.fit_loop.setup_data()
        return self.schedule.build(optimizer, self._length(trainer, _pace(trainer), total))

    def advance(self, trainer: Trainer, scheduler: LRScheduler) -> None:
        """Take the schedule on after an optimiser step, if that ends what it counts."""
        if self.schedule.interval == "step" or trainer.is_last_batch:
            advance(scheduler)

    def prepare(self, task: nn.Module, optimizer: Optimizer) -> None:
        """Make the checkpoint that a run continues from fit its optimiser, and warn if its moments do not.

        Args:
            task: Has the parameters.
            optimizer: The run's own.
        """
        if self._restored is None:
            return
        if (reason := prepare_states(self._restored, optimizer, task)) is not None:
            rank_zero_warn(f"the optimiser starts with fresh moments: {reason}")

    def start(self, trainer: Trainer) -> None:
        """Let a run that continues follow its own settings from the first step on.

        Raises:
            CheckpointError: What the checkpoint says of its schedule cannot be.
        """
        self._pace = _pace(trainer)
        if self._restored is None:
            return
        restored, self._restored = self._restored, None
        _leave_finished_epoch(trainer)
        before = pace_of(restored)
        total = trainer.estimated_stepping_batches
        if self._pace is not None and before is not None:
            self._pace = before.continued(self._pace.steps_per_epoch, trainer.global_step)
            if trainer.max_epochs is not None and trainer.max_epochs > 0:
                most = self._pace.total_steps(trainer.max_epochs)
                total = most if trainer.max_steps < 0 else min(most, trainer.max_steps)
        # A task of one's own may have set up another optimiser, which continues as the checkpoint has it.
        if not self._settings or not trainer.lr_scheduler_configs:
            return
        config = trainer.lr_scheduler_configs[0]
        optimizer = config.scheduler.optimizer
        restore_settings(optimizer, self._settings)
        length = self._length(trainer, self._pace, total)
        config.scheduler = self.schedule.build_at(optimizer, length, self._done(restored, trainer))

    def save(self, trainer: Trainer, checkpoint: dict[str, Any]) -> bool:
        """Add to a checkpoint what a run that continues needs; return whether this run trains at all."""
        if self._pace is None:
            return False
        checkpoint[PACE_KEY] = self._pace.to_dict()
        checkpoint[OPTIMIZER_KEY] = class_name(trainer.optimizers[0])
        checkpoint[PARAMETERS_KEY] = parameter_names(trainer.optimizers[0], trainer.lightning_module)
        checkpoint[_INTERVAL_KEY] = self.schedule.interval
        return True

    def restore(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        """Take note of the checkpoint that a run continues from.

        Raises:
            CheckpointError: Its optimiser is another, and its state cannot be left out any more.
        """
        # A strategy that shards the weights has loaded the optimiser's state before.
        if trainer.strategy.restore_checkpoint_after_setup and (
            reason := other_class(checkpoint, trainer.optimizers[0])
        ):
            raise CheckpointError(f"model.optimizer: sharded moments cannot start from zero; {reason}")
        self._restored = checkpoint

    def _length(self, trainer: Trainer, pace: Pace | None, total: float) -> float:
        """Return the run's planned length in what the schedule counts, from its optimiser steps."""
        if self.schedule.interval == "step":
            return total
        most = trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs > 0 else math.inf
        if pace is None or not math.isfinite(total):
            return most
        return min(most, math.ceil(pace.epochs_at(total)))

    def _done(self, checkpoint: dict[str, Any], trainer: Trainer) -> int:
        """Return how many steps or epochs the schedule has behind it."""
        steps = trainer.global_step
        if checkpoint.get(_INTERVAL_KEY, "step") != self.schedule.interval:
            return steps if self.schedule.interval == "step" else self._epochs(trainer)
        saved = checkpoint.get("lr_schedulers")
        done = saved[0].get("last_epoch") if isinstance(saved, list) and saved and isinstance(saved[0], dict) else None
        if done is None:
            return steps if self.schedule.interval == "step" else self._epochs(trainer)
        if type(done) is not int or not 0 <= done <= steps:
            raise CheckpointError("the checkpoint: its entry 'lr_schedulers' is not one of this project")
        return done

    def _epochs(self, trainer: Trainer) -> int:
        return trainer.current_epoch if self._pace is None else math.floor(self._pace.epochs_at(trainer.global_step))


def _pace(trainer: Trainer) -> Pace | None:
    """Return a new run's pace; None if its epochs have no end."""
    batches = trainer.num_training_batches
    return Pace(math.ceil(batches / trainer.accumulate_grad_batches)) if math.isfinite(batches) else None


def _leave_finished_epoch(trainer: Trainer) -> None:
    """Let a run that continues after the last batch of an epoch begin the next one.

    Lightning leaves such an epoch by the validation that follows its last batch, or after which the checkpoint was
    written. Without one, as where ``limit_val_batches`` has become 0, it would take another batch, which belongs to no
    epoch.
    """
    fit: Any = trainer.fit_loop
    batches, epochs = fit.epoch_loop.batch_progress.current, fit.epoch_progress.current
    if not fit.epoch_loop.restarting or not batches.completed == batches.ready >= trainer.num_training_batches:
        return
    if epochs.processed < epochs.ready:
        if fit.epoch_loop._should_check_val_fx(fit._data_fetcher):
            return
        fit.epoch_progress.increment_processed()
        fit.epoch_progress.increment_completed()
        # A step counts for the loggers when the validation after it is over.
        fit.epoch_loop._batches_that_stepped += 1
    fit.reset_restart_stage()
    fit.epoch_loop.restarting = False
