"""What ``auto`` chooses: input size, levels, scales, batch size and length, from the data and a budget."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from lightning.pytorch.utilities.seed import isolate_rng

from ocrnet_pl.cli import data_choices
from ocrnet_pl.cli.auto_option import seconds_of
from ocrnet_pl.cli.data_choices import Choice, Statistics
from ocrnet_pl.cli.image_directions import any_way_up
from ocrnet_pl.cli.measured_choices import (
    Speed,
    batch_of_budget,
    clock,
    epochs_within,
    fitting_batch,
    length,
    load_seconds,
    quiet_trainer,
    step_seconds,
)
from ocrnet_pl.cli.replaced_weights import ReplacedWeights
from ocrnet_pl.cli.source_recipes import source_recipe
from ocrnet_pl.cli.written_settings import given_settings
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.data.transforms import Transform
from ocrnet_pl.distributed.first_process import say
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.geometry import Size
from ocrnet_pl.models.base import Encoder
from ocrnet_pl.report.search_space import RATE
from ocrnet_pl.storage.checkpoints import config_to_repeat, config_value
from ocrnet_pl.training.step_memory import StepMemory

_LEVELS = ("model.detection.init_args.min_stride", "model.detection.init_args.max_stride")
_OPTIMIZER = "model.optimizer"
_FROZEN = "model.encoder.init_args.frozen_stages"
_KEYS = (
    "data.size",
    _FROZEN,
    *_LEVELS,
    RATE,
    "data.scales",
    "data.train_transforms",
    "data.cache",
    "data.batch_size",
)
_CROPS = {"data.train_transforms", "data.scales"}
_LENGTHS = {"trainer.max_epochs", "trainer.max_steps"}
_EVERY = "trainer.check_val_every_n_epoch"
_INTERVALS = {_EVERY, "trainer.val_check_interval"}


class AutoChoice:
    """Chooses the settings of one command line; what the user set is kept.

    Args:
        config: Config of the subcommand, whose settings are replaced, and whose ``auto`` becomes false.
        words: The command line.
        parser: Parser of the subcommand, which builds the network to measure.
        resolved: Returns a config with the values of the environment variables that it refers to.

    Raises:
        UsageError: The budget is no duration.
    """

    def __init__(
        self,
        config: Namespace,
        words: list[str],
        parser: LightningArgumentParser,
        resolved: Callable[[Namespace], Namespace],
    ) -> None:
        self.config = config
        self.parser = parser
        self.resolved = resolved
        self.given = given_settings(words)
        budget = None if isinstance(config["auto"], bool) else config["auto"]["budget"]
        self.budget = None if budget is None else seconds_of(budget)
        self._short = self._crops = False
        self._any_way_up: Callable[[], bool] = lambda: False
        self._whole: Namespace | None = None
        lengths = [where for key, where in self.given.items() if key in _LENGTHS]
        if self.given.get("auto.budget") == "" and lengths and all(lengths):
            # What the command line asks for overrides the length in a config, such as the one that `init` wrote, and
            # the validations at that length.
            replaced = _LENGTHS | _INTERVALS
            self.given = {key: where for key, where in self.given.items() if not where or key not in replaced}
        # What is chosen stands in the run's config, which does not choose again.
        config["auto"] = False
        self.rows: list[tuple[str, str, str]] = []

    def repeat(self, path: str) -> None:
        """Take what the run of a checkpoint chose, which the checkpoint's network and schedule fit.

        Raises:
            CheckpointError: The checkpoint cannot be read from here.
        """
        found, stored = config_to_repeat(path, f"auto: the choices in {path!r} are not read from an address")
        for key in _KEYS:
            value = config_value(stored, key)
            if value is not None and _plain(key) not in self.given and self._has(key):
                self._set(key, value)
        for keys in (_LENGTHS, _INTERVALS):
            values = {key: config_value(stored, key) for key in keys}
            # One of them says how to read the other, also where it is null.
            if not self.given.keys() & keys and any(value is not None for value in values.values()):
                for key, value in values.items():
                    self._set(key, value)
        say(f"auto: nothing is chosen again; the settings are those of {found}")

    def from_data(self) -> Statistics:
        """Choose what the data's statistics determine.

        Raises:
            DataError: There is no training set, or it cannot be read.
        """
        if self.config["data"]["train"] is None:
            raise DataError("auto: there is no data to choose settings for; set data.train")
        source = source_recipe("train", self.resolved(self.config["data"]["train"])).make()
        statistics = data_choices.measure(source)
        self._any_way_up = functools.cache(functools.partial(any_way_up, source))
        self._take(data_choices.input_size(statistics))
        for choice in data_choices.levels(statistics, self._size):
            if self._has(choice.key):
                self._take(choice)
        accelerated = torch.accelerator.is_available() and self.config.get("trainer.accelerator") != "cpu"
        self._short = data_choices.short(self.budget, accelerated)
        crops = not self.given.keys() & _CROPS
        for choice in data_choices.scales(statistics, self._size, crops=crops, cheap=self._short):
            self._take(choice)
            self._crops = choice.key == "data.train_transforms"
        if self._short and (cache := data_choices.cache(statistics)) is not None:
            self._take(cache)
        # With a budget, the time of a step decides.
        self._take(data_choices.batch_size(statistics, self._size, accelerated or self.budget is not None))
        self._without_budget(statistics, 1)
        return statistics

    def from_network(self) -> None:
        """Choose what the encoder determines: sizes that it takes, and stages that a short run does not train.

        The random numbers of the run are those that it has without.
        """
        with isolate_rng():
            built = self._built()
        if any(built.model.network.size_refusal(size) is not None for size in built.data.training_sizes):
            for choice in (
                Choice("data.train_transforms", None, "the default"),
                Choice("data.scales", [1.0], "the encoder takes no other sizes"),
            ):
                self._take(choice)
            self._crops = False
        if self._short and (frozen := self._frozen(built.model.network.encoder)) is not None:
            self._take(frozen)

    def from_measurement(self, statistics: Statistics) -> None:
        """Choose batch size and length of the run from the memory and the time of a few steps, and print all choices.

        The random numbers of the run are those that it has without.

        Raises:
            ValueError: Not even a step of one image fits the memory.
        """
        with isolate_rng():
            trainer = quiet_trainer(self.config["trainer"])
            built = self._built()
            memory = StepMemory(built.model, trainer.strategy.root_device, trainer.precision_plugin.forward_context)
            if "data.batch_size" not in self.given:
                usual = self.config["data"]["batch_size"]
                fits = fitting_batch(memory, built.data.training_sizes, usual)
                if fits < usual:
                    self._take(Choice("data.batch_size", fits, "the largest that the memory holds"))
            processes = trainer.world_size
            self._without_budget(statistics, processes)
            if self.budget is not None and not self.given.keys() & _LENGTHS:
                speed, evaluated = self._speed(memory, built.data, self.budget, processes)
                if self._augment(statistics, epochs_within(speed, statistics.images, evaluated, self.budget)):
                    speed = speed._replace(load=load_seconds(self._built().data))
                accumulated = self.config["trainer"]["accumulate_grad_batches"]
                every = self.config[_EVERY] if self.given.keys() & _INTERVALS else None
                choices, warning = length(speed, statistics.images, evaluated, self.budget, accumulated, every)
                # The steps count, not the epochs.
                self._set("trainer.max_epochs", -1)
                if every is None:
                    self._set(_EVERY, None)
                for choice in choices:
                    self._take(choice)
                if warning:
                    say(f"warning: {warning}")
            elif self.budget is not None:
                key = next(iter(self.given.keys() & _LENGTHS))
                say(f"auto.budget: not used, since {key} is set")
            self._take_rate(statistics.images, processes)
        self.show(statistics)

    def _frozen(self, encoder: Encoder) -> Choice | None:
        """Choose the stages that are not trained of a pretrained encoder; None where there are none to choose."""
        if not self._has(_FROZEN) or self.config["model"]["encoder"]["init_args"].get("weights") is None:
            return None
        # A pyramid stands on a transformer, whose layers all have one stride.
        return None if getattr(encoder, "pyramid", None) is not None else data_choices.frozen_stages(encoder.strides)

    def _take_rate(self, images: int, processes: int) -> None:
        """Choose the learning rate for the length of the run, unless the user chose an optimiser."""
        settings = self.config["trainer"]
        each = self.config["data"]["batch_size"] * processes * settings["accumulate_grad_batches"]
        lengths = (settings["max_steps"], (settings["max_epochs"] or 0) * math.ceil(images / each))
        steps = min((length for length in lengths if length > 0), default=None)
        if steps is not None and self._has(RATE):
            self._take(data_choices.learning_rate(steps))

    def _speed(self, memory: StepMemory, data: JointDataModule, budget: float, processes: int) -> tuple[Speed, int]:
        """Choose the batch size for a budget; return the speed of the run with it, and its validation images."""
        load, evaluated = load_seconds(data), 0 if data.val is None else len(data.val)
        batch, workers = self.config["data"]["batch_size"], self.config["data"]["num_workers"]

        def measured(count: int) -> Speed:
            return Speed(step_seconds(memory, data, count), load, count, workers, processes)

        if "data.batch_size" in self.given:
            return measured(batch), evaluated
        speed, why = batch_of_budget(measured, batch, evaluated, budget)
        if why is not None:
            self._take(Choice("data.batch_size", speed.batch, why))
        return speed, evaluated

    def show(self, statistics: Statistics) -> None:
        """Print what was chosen and why, on the first process."""
        budget = "" if self.budget is None else f", {clock(self.budget)}"
        height, width = statistics.size
        title = f"auto: {statistics.images} images, {width} x {height} in the median{budget}"
        _show(title, self.rows)

    def _without_budget(self, statistics: Statistics, processes: int) -> None:
        """Choose the length of a run without a budget, unless the user did."""
        if self.given.keys() & _LENGTHS:
            for key in sorted(self.given.keys() & _LENGTHS):
                self._take(Choice(key, None, ""))
            return
        if self.budget is not None:
            return
        self._take(data_choices.epochs(statistics, self.config["data"]["batch_size"] * processes))
        self._augment(statistics, self.config["trainer"]["max_epochs"])
        if not self.given.keys() & _INTERVALS:
            self._take(data_choices.validations(self.config["trainer"]["max_epochs"]))

    def _augment(self, statistics: Statistics, epochs: float) -> bool:
        """Choose the transforms of a run that sees each image so often, unless the user did; return whether it did."""
        if self.given.keys() & _CROPS:
            return False
        choice = data_choices.augmentation(statistics, epochs, self._crops, self._any_way_up)
        if choice is None:
            return False
        self._take(choice)
        return True

    def _built(self) -> Namespace:
        """Return data and network as in the run, without the encoder's weights, which cost no time in a step.

        They are built again only where a setting has changed since: reading a large data set takes a while.
        """
        if self._whole is not None:
            return self._whole
        config = self.config.clone()
        if config["model"]["encoder"]:
            ReplacedWeights(config["model"]["encoder"])
        config["model"]["compile_backend"] = config["model"]["compile_mode"] = None
        # In a folder, it would stay there.
        config["data"]["cache"], config["data"]["num_workers"] = config["data"]["cache"] is True, 0
        for key in ("logger", "callbacks", "plugins", "profiler"):
            config["trainer"][key] = None
        built: Namespace = self.parser.instantiate_classes(config)
        self._whole = built
        return built

    @property
    def _size(self) -> Size:
        size = self.config["data"]["size"]
        return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

    def _has(self, key: str) -> bool:
        """Return whether the config has what a key is an argument of, if it is one of a part's."""
        if key == RATE and any(given.startswith(_OPTIMIZER) for given in self.given.keys() - {_plain(RATE)}):
            # Another optimiser's rate is another matter.
            return False
        path, arguments, name = key.partition(".init_args.")
        part = self.config.get(path) if arguments else None
        return not arguments or (isinstance(part, Namespace) and name in (part.get("init_args") or {}))

    def _take(self, choice: Choice) -> None:
        """Set what was chosen, unless the user did, and note it for the table."""
        name = _plain(choice.key)
        if name in self.given:
            value, reason = self.config.get(choice.key), f"set by you{self.given[name]}"
        else:
            value, reason = choice.value, choice.reason
            self._set(choice.key, value)
        row = (name, _shown(value), reason)
        names = [earlier for earlier, _, _ in self.rows]
        if name in names:
            self.rows[names.index(name)] = row
        else:
            self.rows.append(row)

    def _set(self, key: str, value: Any) -> None:
        self._whole = None
        if key == "data.train_transforms" and value is not None:
            value = _transforms(value)
        self.config[key] = value
        if key == "data.size":
            encoder = self.config["model"]["encoder"]
            arguments = encoder and encoder.get("init_args")
            if arguments and "input_size" in arguments:
                arguments["input_size"] = value


def _plain(key: str) -> str:
    return key.replace(".init_args", "")


def _transforms(value: list[Any]) -> Any:
    """Return transforms as a parser has them."""
    parser = ArgumentParser()
    parser.add_argument("--transforms", type=list[Transform])
    return parser.parse_object({"transforms": value}).transforms


def _shown(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict | Namespace):
        return ", ".join(str(item["class_path"]).rpartition(".")[2] for item in value)
    if isinstance(value, list | tuple):
        return " x ".join(map(str, value)) if all(isinstance(item, int) for item in value) else str(list(value))
    return "default" if value is None else str(value)


@rank_zero_only
def _show(title: str, rows: list[tuple[str, str, str]]) -> None:
    width = max((len(name) for name, _, _ in rows), default=0)
    print("\n".join([title, *(f"  {name:{width}}  {value}  ({reason})" for name, value, reason in rows)]), flush=True)
