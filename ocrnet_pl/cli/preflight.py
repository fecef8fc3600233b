"""Checks before the first step of training for what would go wrong later, with one-line errors."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    EarlyStopping,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
    Timer,
    WeightAveraging,
)
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from ocrnet_pl.callbacks.ema import EMA
from ocrnet_pl.cli.initial_weights import starting_weights
from ocrnet_pl.cli.unbuilt_parts import named_part
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.errors import DataError, UsageError
from ocrnet_pl.metrics.figures import FUSED
from ocrnet_pl.storage.run_folder import check_folder_name
from ocrnet_pl.structures import Taxonomy
from ocrnet_pl.training.step_memory import by_size, random_batch
from ocrnet_pl.training.task import OCRNetTask
from ocrnet_pl.training.teacher import Teacher

_CANNOT_WORK: tuple[tuple[type[Callback], str], ...] = (
    (StochasticWeightAveraging, "the weights are averaged already, as ema.decay says"),
    (WeightAveraging, "the weights are averaged already, as ema.decay says"),
    (
        ModelPruning,
        "its masks would change the names of the weights; prune the network of a checkpoint instead",
    ),
    (BackboneFinetuning, "set frozen_stages and unfreeze_at of model.encoder, and model.encoder_lr, instead"),
)
"""Lightning's callbacks that expect another kind of task, and what does their work here."""

_LEAST = {
    "max_epochs": 1,
    "max_steps": 1,
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 0,
    "num_sanity_val_steps": 0,
    "limit_train_batches": 0,
    "limit_val_batches": 0,
}
"""The trainer's numbers that Lightning takes as they come; -1 stands for no limit of some."""
_UNLIMITED = ("max_epochs", "max_steps", "num_sanity_val_steps")
_PROCESSES_PER_CORE = 4
_LARGEST_SEED = (1 << 32) - 1
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
_OWN = ("ocrnet_pl.", "lightning.")
_PATHS = ("data.root", "data.predict_path", "trainer.default_root_dir", "init_from", "source")
"""The options that are a path or an address; the parser knows those that can only be a path."""


def check_settings(config: Namespace) -> None:
    """Raise an error for a seed that no run can have, and for a path that is empty.

    Args:
        config: The config of a subcommand.

    Raises:
        UsageError: One is such a setting.
    """
    for key in _PATHS:
        if config.get(key) == "":
            raise UsageError(f"{key}: expected a path, got ''")
    if config["trainer"].get("barebones"):
        raise UsageError(
            "trainer.barebones: a run has a log, a bar and checkpoints, which Lightning then refuses; leave it out"
        )
    if config["trainer"].get("enable_checkpointing") is False:
        raise UsageError(
            "trainer.enable_checkpointing: false does not work here; to write no checkpoints, set "
            "checkpoint.save_top_k to 0 and checkpoint.save_last to false"
        )
    if config["trainer"]["default_root_dir"] is None:
        raise UsageError("trainer.default_root_dir: expected the folder of all runs, got null; leave it out for 'runs'")
    seed = config["seed_everything"]
    if not 0 <= int(seed) <= _LARGEST_SEED:
        raise UsageError(f"seed_everything: expected false, true or a number from 0 to {_LARGEST_SEED}, got {seed}")


def check_run_folder(config: Namespace) -> None:
    """Raise an error for a run's name or version that no folder of a run can have.

    Args:
        config: The options ``name`` and ``version``, in which references to the environment have their values.

    Raises:
        UsageError: One is such a name.
    """
    check_folder_name("name", config["name"])
    if config["version"] is not None:
        check_folder_name("version", config["version"])


def check_precision(trainer: Trainer) -> None:
    """Raise an error for a precision that the batches and the losses do not support.

    Raises:
        MisconfigurationException: One line that names those that are.
    """
    if str(trainer.precision) not in PRECISIONS:
        raise MisconfigurationException(
            f"trainer.precision: {trainer.precision} does not work here; choose one of {', '.join(PRECISIONS)}"
        )


def check_classes(data: Taxonomy, checkpoint: Taxonomy) -> None:
    """Raise an error if the data has other classes than the checkpoint that is evaluated on it.

    Args:
        data: Categories of the data.
        checkpoint: Categories of the checkpoint.

    Raises:
        DataError: It has; figures would be those of classes taken for each other.
    """
    here, there = ([(c.name, c.detection, c.semantic) for c in each.categories] for each in (data, checkpoint))
    if here == there:
        return
    names, known = ([c.name for c in each.categories] for each in (data, checkpoint))
    found = [
        f"{what} {', '.join(map(repr, some[:5]))}{', ...' if len(some) > 5 else ''}"
        for what, some in (
            ("only the data has", [name for name in names if name not in known]),
            ("only the checkpoint has", [name for name in known if name not in names]),
        )
        if some
    ]
    reason = "; ".join(found) or "they have another order, or other tasks"
    raise DataError(
        f"data: its classes are not those of the checkpoint ({reason}); give the data of its training, or put the "
        "source Remapped around the source to rename them"
    )


def check_training(
    trainer: Trainer, task: OCRNetTask, data: JointDataModule, settings: Mapping[str, Any], keys: Mapping[int, str]
) -> None:
    """Raise an error for a training that would fail later, or do nothing.

    Args:
        trainer: The trainer with its callbacks, before anything has started.
        task: The task to train.
        data: The data module.
        settings: The trainer's own options, as given.
        keys: Key of a callback's options in the config, by the callback's ``id``; others are in ``trainer.callbacks``.

    Raises:
        MisconfigurationException: One line that names the option and what to do.
    """
    _check_numbers(settings)
    _check_sources(data.train, data.val, trainer.limit_val_batches)
    check_sizes(task, data)
    _check_length(trainer, task)
    _check_processes(trainer)
    try:
        task.make_optimizer()
    except ValueError as error:
        raise MisconfigurationException(f"model.optimizer: {error}") from error
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        for kind, advice in _CANNOT_WORK:
            if isinstance(callback, kind) and not isinstance(callback, EMA):
                raise MisconfigurationException(
                    f"trainer.callbacks: {type(callback).__name__} does not work here; {advice}"
                )
        if isinstance(callback, LearningRateFinder | BatchSizeFinder):
            # Those of Lightning have searched, and are gone.
            raise MisconfigurationException(
                f"trainer.callbacks: {type(callback).__name__} works by its own name alone, in a config of fit; a "
                "class of your own, or one that begins in the middle of a run, would search in its loaders"
            )
        if isinstance(callback, EarlyStopping) and callback.patience < 0:
            raise MisconfigurationException(
                f"{_place(callback, keys)}.patience: expected at least 0, got {callback.patience}"
            )
    _check_monitors(trainer, task, data, callbacks, keys)


def check_runs_to_start(config: Namespace) -> None:
    """Raise an error for what every run that a command is about to start would be refused for.

    Args:
        config: The config of the command, with environment variables resolved.

    Raises:
        MisconfigurationException: A number of the trainer is out of range, or there is no source.
        UsageError: Options for the weights to start from are given, but no file.
        FileNotFoundError: The file of these weights is gone.
        CheckpointError: It is damaged, or the checkpoint of the teacher is gone or damaged.
    """
    settings = config["trainer"]
    _check_numbers(settings)
    _check_sources(config["data"]["train"], config["data"]["val"], settings["limit_val_batches"])
    starting_weights(config.get("init_from"), config.get("init_map"), bool(config.get("init_keep")))
    teacher = named_part(Teacher, config["model"]["teacher"])
    if teacher is not None:
        teacher.read()


def check_passes(task: OCRNetTask) -> None:
    """Raise an error for passes at several scales of which the encoder does not take one.

    Raises:
        MisconfigurationException: One is of another size than it takes.
        UsageError: One would have too many pixels.
    """
    if task.multiscale is not None:
        _check_taken(task, task.multiscale.sizes(task.network.input_size))


def _check_taken(task: OCRNetTask, sizes: Iterable[tuple[int, int]]) -> None:
    for size in sizes:
        if (refusal := task.network.size_refusal(size)) is not None:
            raise MisconfigurationException(refusal)


def check_sizes(task: OCRNetTask, data: JointDataModule) -> None:
    """Raise an error for images of training of other sizes than the encoder takes; a teacher sees them as well.

    Raises:
        MisconfigurationException: One is of another size.
    """
    _check_taken(task, data.training_sizes)
    if task.teacher is None:
        return
    teacher = task.teacher.load(task.network)
    for size in data.training_sizes:
        if teacher.size_refusal(size) is not None:
            only = teacher.encoder.fixed_size
            assert only is not None
            raise MisconfigurationException(
                f"model.teacher: checkpoint {task.teacher.checkpoint!r}: its encoder takes images of "
                f"{only[0]}x{only[1]} only, not {size[0]}x{size[1]}; set data.size to {list(only)} and data.scales to "
                "[1.0], or take another teacher"
            )


def _check_numbers(settings: Mapping[str, Any]) -> None:
    for name, least in _LEAST.items():
        value = settings.get(name)
        if value is None or (value == -1 and name in _UNLIMITED):
            continue
        if value < least or not math.isfinite(value):
            unlimited = ", or -1 for no limit" if name in _UNLIMITED else ""
            raise MisconfigurationException(f"trainer.{name}: expected at least {least}{unlimited}, got {value}")
    interval = settings.get("val_check_interval")
    if isinstance(interval, int | float) and interval == 0:
        raise MisconfigurationException(
            "trainer.val_check_interval: expected more than 0; "
            "to go without validation, set trainer.limit_val_batches to 0"
        )
    if settings.get("limit_train_batches") == 0:
        raise MisconfigurationException("trainer.limit_train_batches: with 0 there is nothing to train on")


def _check_sources(train: Any, val: Any, val_batches: float | None) -> None:
    if train is None:
        raise MisconfigurationException("data.train: there is no source to train on; set data.train.class_path")
    if val is None and val_batches != 0:
        raise MisconfigurationException(
            "data.val: there is no source to validate on; set data.val.class_path, or trainer.limit_val_batches to 0"
        )


def _check_length(trainer: Trainer, task: OCRNetTask) -> None:
    if reason := task.schedule.refusal(endless=trainer.max_epochs == -1 and trainer.max_steps == -1):
        raise MisconfigurationException(reason)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        left = callback.time_remaining() if isinstance(callback, Timer) else None
        if left is not None and left <= 0:
            raise MisconfigurationException("trainer.max_time: it is over before the run begins; give it more than 0")


def _check_processes(trainer: Trainer) -> None:
    most = _PROCESSES_PER_CORE * (os.cpu_count() or 1)
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > most:
        raise MisconfigurationException(
            f"trainer.devices: {trainer.num_devices} processes on {os.cpu_count()} CPU cores would only wait for each "
            f"other; {most} are the most"
        )


def validation_figures(task: OCRNetTask) -> list[str]:
    """Return the names of all that a validation will log."""
    return [f"val/{name}" for name in task.val_metrics.names()]


@torch.no_grad()
def validation_losses(task: OCRNetTask, size: tuple[int, int]) -> list[str]:
    """Return the names of the losses that a validation will log.

    Args:
        task: The task, whose losses are computed on an image of noise to get their terms.
        size: (height, width) of a batch.
    """
    if task.validation_loss is None:
        return []
    training = task.training
    with torch.random.fork_rng(devices=[]):
        batch = random_batch(task.taxonomy, size, 1, task.network.in_channels, task.device)
        names = task.eval().validation_loss.names(batch, task(batch.images))  # type: ignore[union-attr]
    task.train(training)
    return [f"val/{name}" for name in names]


@torch.no_grad()
def training_figures(task: OCRNetTask, size: tuple[int, int]) -> list[str]:
    """Return the names of all that a training step logs.

    Args:
        task: The task, whose losses are computed on an image of noise to get their terms, a teacher's among them.
        size: (height, width) of a training batch.
    """
    training = task.training
    with torch.random.fork_rng(devices=[]):
        batch = random_batch(task.taxonomy, size, 1, task.network.in_channels, task.device)
        _, terms = task.losses(task.eval()(batch.images), batch)
    task.train(training)
    return ["loss", "train/loss", "train/images_per_s", *(f"train/loss_{name}" for name in terms)]


def _check_monitors(
    trainer: Trainer, task: OCRNetTask, data: JointDataModule, callbacks: Iterable[Callback], keys: Mapping[int, str]
) -> None:
    named = [(callback, getattr(callback, "monitor", None)) for callback in callbacks]
    # One that is not strict does without.
    monitors = [(callback, str(name)) for callback, name in named if name and getattr(callback, "strict", True)]
    known, losses = validation_figures(task), list[str]()
    if any(name.startswith("train/") for _, name in monitors):
        known += training_figures(task, by_size(data.training_sizes)[-1])
    if any(name.startswith("val/loss") for _, name in monitors):
        losses = validation_losses(task, by_size(data.training_sizes)[-1])
        known += losses
    # What others log is not known beforehand.
    others = [task, *callbacks]
    foreign = any(not type(each).__module__.startswith(_OWN) for each in others)
    rates = any(isinstance(callback, LearningRateMonitor) for callback in callbacks)
    lower = {f"val/{prefix}{each.name}" for each in task.figures if not each.higher_is_better for prefix in ("", FUSED)}
    lower |= {*losses}
    why_never = _never_validates(trainer)
    for callback, name in monitors:
        key = f"{_place(callback, keys)}.monitor"
        if name not in known and not foreign and not (rates and name.startswith("lr-")):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known[:8])}, ..."
            raise MisconfigurationException(f"{key}: this run logs no figure {name!r}; {hint}")
        if name.startswith("val/") and why_never and isinstance(callback, ModelCheckpoint) and id(callback) not in keys:
            raise MisconfigurationException(f"{key}: there will be no figure {name!r}, since {why_never}")
        mode = "min" if name in lower else "max"
        if name.startswith("val/") and name in known and getattr(callback, "mode", mode) != mode:
            raise MisconfigurationException(
                f"{_place(callback, keys)}.mode: {name!r} is better where it is "
                f"{'lower' if mode == 'min' else 'higher'}; set mode to {mode}"
            )
    if why_never and any(name.startswith("val/") for _, name in monitors):
        rank_zero_warn(f"There will be no best checkpoint and no early stopping, since {why_never}.")


def _place(callback: Callback, keys: Mapping[int, str]) -> str:
    """Return the key of a callback's options."""
    return keys.get(id(callback), f"trainer.callbacks: {type(callback).__name__}")


def _never_validates(trainer: Trainer) -> str | None:
    """Return why a run would end without a validation; None if there will be one."""
    if trainer.limit_val_batches == 0:
        return "trainer.limit_val_batches is 0"
    every = trainer.check_val_every_n_epoch
    if every is not None and trainer.max_epochs is not None and -1 < trainer.max_epochs < every:
        return f"trainer.check_val_every_n_epoch ({every}) is more than trainer.max_epochs ({trainer.max_epochs})"
    return None
