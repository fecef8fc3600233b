"""Lightning's ``LearningRateFinder`` and ``BatchSizeFinder``: they search before the run is built that they are for."""

from __future__ import annotations

import pkgutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.tuner.tuning import Tuner
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.seed import isolate_rng
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from ocrnet_pl.callbacks.checkpoint_io import SafeCheckpointIO
from ocrnet_pl.callbacks.rate_search import RateSearch
from ocrnet_pl.cli.initial_weights import StartingWeights
from ocrnet_pl.cli.measured_choices import quiet_trainer
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.distributed.first_process import say
from ocrnet_pl.report.search_space import RATE
from ocrnet_pl.storage.checkpoints import config_to_repeat, config_value
from ocrnet_pl.training.optimizers import FACTOR
from ocrnet_pl.training.starting import init_from
from ocrnet_pl.training.step_memory import MemoryGuard, advice, by_size, out_of_memory
from ocrnet_pl.training.task import OCRNetTask

BATCH = "data.batch_size"
_SETS = {BatchSizeFinder: BATCH, LearningRateFinder: RATE}
"""What each finder sets, in the order in which they search: the best rate depends on the batch size."""
_NEVER = 10**9
_OF_SCHEDULE = ("base_lr", "max_lr")


class Finders:
    """The finders in a config's ``trainer.callbacks``, which are taken out of it.

    The run that follows knows nothing of them: it is the run that the found values alone would have made.

    Args:
        config: Config of the subcommand; changed.
    """

    def __init__(self, config: Namespace) -> None:
        self.config = config
        self.found: dict[type, dict[str, Any]] = {}
        callbacks = config["trainer"].get("callbacks")
        several = callbacks if isinstance(callbacks, list) else [callbacks]
        kinds = [_kind(each) for each in several]
        for kind, each in zip(kinds, several, strict=True):
            if kind in _SETS:
                self.found[kind] = _arguments(each)
        if self.found:
            left = [each for kind, each in zip(kinds, several, strict=True) if kind not in _SETS]
            config["trainer"]["callbacks"] = left or None

    def __bool__(self) -> bool:
        """Return whether the config has finders."""
        return bool(self.found)

    def repeat(self, path: str) -> None:
        """Take the values of the run that a checkpoint is of, whose optimiser and epochs they belong to.

        Raises:
            CheckpointError: The checkpoint cannot be read from here.
        """
        _, stored = config_to_repeat(path, f"trainer.callbacks: what a finder found is not read from {path!r}")
        for kind in self._kinds():
            value = config_value(stored, _SETS[kind])
            if value is not None:
                self.config[_SETS[kind]] = value
                say(
                    f"{kind.__name__}: searches only where a run begins; {_shown(_SETS[kind])} is {value}, as in {path}"
                )

    def search(self, parser: LightningArgumentParser, starting: StartingWeights | None) -> RateSearch | None:
        """Search, set what was found in the config, and print it.

        The random numbers of the run are those that it has without.

        Args:
            parser: Parser of the subcommand, which builds the data and the network to search with.
            starting: Weights that the run starts from; None for its own.

        Returns:
            The callback that draws the search for the learning rate into the run's folder; None if there was none.

        Raises:
            MisconfigurationException: The search cannot be made for this run, or finds nothing.
        """
        settings, curve = self.config["trainer"], None
        if settings["fast_dev_run"]:
            say("trainer.callbacks: a trial run (fast_dev_run) searches nothing")
            return None
        processes = quiet_trainer(settings).world_size
        if processes > 1:
            first = self._kinds()[0]
            raise MisconfigurationException(
                f"trainer.callbacks: {first.__name__} searches on one process, and this run has {processes}, whose "
                "batches are larger together; search with --trainer.devices 1, then start this run without it and with "
                f"what the config.yaml of that one has as {_shown(_SETS[first])}"
            )
        for kind in self._kinds():
            options = self.found[kind]
            with isolate_rng(), _own_errors(self.config):
                if kind is BatchSizeFinder:
                    self._find_batch(parser, starting, options)
                else:
                    curve = self._find_rate(parser, starting, options)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return curve

    def _kinds(self) -> list[type]:
        return [kind for kind in _SETS if kind in self.found]

    def _find_batch(
        self, parser: LightningArgumentParser, starting: StartingWeights | None, options: dict[str, Any]
    ) -> None:
        if options.pop("batch_arg_name", "batch_size") != "batch_size":
            raise MisconfigurationException("trainer.callbacks: BatchSizeFinder.batch_arg_name: leave it out")
        config = self.config.clone()
        # What fits there fits everywhere.
        config["data"]["scales"] = [max(config["data"]["scales"])]
        built = _built(config, parser, starting)
        task, data = built.model, built.data
        before = self.config[BATCH]
        # A batch of more images than there are is one of all of them.
        assert data.train is not None
        most = min(options.pop("max_val", 8192), len(data.train))
        with _trainer(self.config["trainer"], options.get("steps_per_trial", 3)) as trainer:
            if trainer.strategy.root_device.type == "cpu":
                task.network.register_forward_pre_hook(MemoryGuard())
            tuner = Tuner(trainer)
            found = self._search_from(options.pop("init_val", 2), tuner, task, data, max_val=most, **options)
            if found >= most:
                # Lightning does not try the size that it stops at.
                found = self._search_from(most, tuner, task, data, max_val=most + 1, **options | {"max_trials": 1})
        self.config[BATCH] = found
        height, width = by_size(data.training_sizes)[0]
        say(f"BatchSizeFinder: {BATCH} {self.config[BATCH]} (it was {before}), at {height} x {width} pixels")

    @staticmethod
    def _search_from(images: int, tuner: Tuner, task: OCRNetTask, data: JointDataModule, **options: Any) -> int:
        # Lightning begins with the size that the data has where that is of all images.
        data.batch_size = images
        found = tuner.scale_batch_size(task, datamodule=data, init_val=images, **options)
        assert found is not None
        return max(1, found)

    def _find_rate(
        self, parser: LightningArgumentParser, starting: StartingWeights | None, options: dict[str, Any]
    ) -> RateSearch:
        if options.pop("attr_name", ""):
            raise MisconfigurationException("trainer.callbacks: LearningRateFinder.attr_name: leave it out")
        before = self._rate()
        config = self.config.clone()
        # It takes the place of the run's schedule, which may count in epochs.
        config["model"]["scheduler"] = Namespace(class_path="ocrnet_pl.training.schedules.WarmupCosine")
        config["model"]["scheduler_interval"] = "step"
        built = _built(config, parser, starting)
        steps, update = options.pop("num_training_steps", 100), options.pop("update_attr", True)
        with _trainer(self.config["trainer"], steps) as trainer, rates_in_proportion():
            search = Tuner(trainer).lr_find(
                built.model, datamodule=built.data, num_training=steps, update_attr=False, **options
            )
        assert search is not None
        suggested = search.suggestion()
        if suggested is None:
            raise MisconfigurationException(
                "trainer.callbacks: LearningRateFinder suggests no rate, since the loss was finite at too few of its "
                f"{len(search.results['loss'])} rates; raise num_training_steps, or lower min_lr"
            )
        # As many digits as mean anything, so that who copies what is printed has the same run.
        rate = float(f"{suggested:.3g}")
        tried = search.results["lr"]
        why = f"where the loss falls fastest on {len(tried)} steps from {tried[0]:.3g} to {tried[-1]:.3g}"
        if update:
            self.config[RATE] = rate
            say(f"LearningRateFinder: {_shown(RATE)} {rate:g} (it was {before:g}), {why}")
        else:
            say(f"LearningRateFinder: suggests {rate:g}, {why}; {_shown(RATE)} stays {before:g} (update_attr is false)")
        return RateSearch(tried, search.results["loss"], rate)

    def _rate(self) -> float:
        """Return the config's rate.

        Raises:
            MisconfigurationException: There is none, or it has no effect.
        """
        rate = _arguments(self.config["model"]["optimizer"]).get("lr")
        if not isinstance(rate, int | float):
            raise MisconfigurationException(
                "trainer.callbacks: LearningRateFinder sets the lr of model.optimizer, which has none; give "
                "model.optimizer a class with one, such as torch.optim.AdamW"
            )
        arguments = _arguments(self.config["model"]["scheduler"])
        named = next((name for name in _OF_SCHEDULE if arguments.get(name) is not None), None)
        if named is not None:
            raise MisconfigurationException(
                f"trainer.callbacks: LearningRateFinder would have no effect, since {named} of model.scheduler takes "
                "the place of the optimiser's rate; choose a schedule without it"
            )
        return float(rate)


@contextmanager
def rates_in_proportion() -> Iterator[None]:
    """Let each optimiser step at its groups' rates times their factors, as a run does.

    A search sets all groups to one rate.
    """
    kept: list[Any] = []

    def lower(optimizer: Optimizer, *_: Any) -> None:
        kept[:] = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * group.get(FACTOR, 1.0)

    def raise_again(optimizer: Optimizer, *_: Any) -> None:
        for group, rate in zip(optimizer.param_groups, kept, strict=True):
            group["lr"] = rate

    handles = register_optimizer_step_pre_hook(lower), register_optimizer_step_post_hook(raise_again)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _kind(callback: Any) -> type | None:
    """Return the class of a callback in a config."""
    path = callback.get("class_path") if isinstance(callback, Namespace | dict) else None
    kind = pkgutil.resolve_name(path) if path else None
    return kind if isinstance(kind, type) else None


def _arguments(part: Any) -> dict[str, Any]:
    """Return the arguments of a part in a config; none of anything else."""
    found = part.get("init_args") if isinstance(part, Namespace | dict) else None
    return found.as_dict() if isinstance(found, Namespace) else dict(found or {})


def _shown(key: str) -> str:
    return key.replace(".init_args", "")


def _built(config: Namespace, parser: LightningArgumentParser, starting: StartingWeights | None) -> Namespace:
    """Build data and network as the run will, for a search."""
    config["model"]["compile_backend"] = config["model"]["compile_mode"] = None
    config["data"]["cache"], config["data"]["plain_epochs"] = False, 0
    for key in ("logger", "callbacks", "plugins", "profiler"):
        config["trainer"][key] = None
    built: Namespace = parser.instantiate_classes(config)
    task: OCRNetTask = built.model
    data: JointDataModule = built.data
    if starting is not None:
        init_from(task, starting.given, starting.names)
    # Lightning makes a loader of them, but nothing is validated.
    data.val = data.val or data.train
    return built


@contextmanager
def _trainer(settings: Any, steps: int) -> Iterator[Trainer]:
    """Yield a trainer of one process that steps as the run does, and leaves nothing behind."""
    names = (
        "accumulate_grad_batches",
        "gradient_clip_val",
        "gradient_clip_algorithm",
        "limit_train_batches",
        "overfit_batches",
        "deterministic",
        "benchmark",
    )
    with tempfile.TemporaryDirectory() as folder:
        options = {name: settings[name] for name in names}
        trainer = quiet_trainer(
            settings,
            **options,
            max_epochs=-1,
            max_steps=steps,
            check_val_every_n_epoch=_NEVER,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )
        trainer.strategy.checkpoint_io = SafeCheckpointIO()
        yield trainer


@contextmanager
def _own_errors(config: Namespace) -> Iterator[None]:
    """Say in one line what to do where the memory is full."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise MisconfigurationException(f"the search of trainer.callbacks: {advice(None, None)}") from error
