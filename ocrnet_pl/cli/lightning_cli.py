"""The LightningCLI: subcommands, run folders, and errors in one line."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ocrnet_pl.callbacks.checkpoint_io import SafeCheckpointIO
from ocrnet_pl.callbacks.continuation import Continuation
from ocrnet_pl.callbacks.continued_predictions import ContinuedPredictions
from ocrnet_pl.callbacks.early_stopping import EarlyStopping
from ocrnet_pl.callbacks.progress import use_own_display
from ocrnet_pl.callbacks.rate_search import RateSearch
from ocrnet_pl.callbacks.same_checkpoint import SameCheckpoint
from ocrnet_pl.callbacks.same_choice import SameChoice
from ocrnet_pl.callbacks.save_config import INIT_OPTIONS, continuation, plain_config
from ocrnet_pl.callbacks.tracked_checkpoints import TrackedCheckpoints
from ocrnet_pl.cli.auto_choices import AutoChoice
from ocrnet_pl.cli.auto_option import LOOKED_UP_FOR, MEASURED_FOR, add_auto_option
from ocrnet_pl.cli.box_options import add_box_options, chosen_boxes, refuse_without_points
from ocrnet_pl.cli.checkpoint_option import describe_checkpoint, refuse_code
from ocrnet_pl.cli.command import NetworkCommand, NetworkRun, Run
from ocrnet_pl.cli.data_root import start_at_root
from ocrnet_pl.cli.earlier_predictions import EarlierPredictions, add_earlier_options
from ocrnet_pl.cli.finders import Finders
from ocrnet_pl.cli.fit_options import OptionOfFit, unused_options
from ocrnet_pl.cli.format_option import add_format_option, add_formats
from ocrnet_pl.cli.initial_weights import add_init_options, starting_weights
from ocrnet_pl.cli.library_help import describe_options
from ocrnet_pl.cli.parser import Parser
from ocrnet_pl.cli.preflight import (
    check_passes,
    check_precision,
    check_run_folder,
    check_runs_to_start,
    check_settings,
    check_training,
)
from ocrnet_pl.cli.replaced_weights import ReplacedWeights
from ocrnet_pl.cli.run_classes import RunClasses
from ocrnet_pl.cli.sections import add_sections, lay_under
from ocrnet_pl.cli.subcommands import EVALUATING, OF_LIGHTNING, OWN, SUBCOMMANDS, sentence
from ocrnet_pl.cli.what_to_predict import refuse_film, refuse_runs_inside
from ocrnet_pl.cli.written_settings import given_settings
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.data.readers import yaml_text
from ocrnet_pl.data.split_keys import SPLITS
from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.storage.checkpoints import need_entries, read_checkpoint
from ocrnet_pl.storage.run_folder import held_folder, refuse_taken, release_folder
from ocrnet_pl.storage.same_checkpoint import expects_others
from ocrnet_pl.storage.saved_network import saved_size
from ocrnet_pl.storage.secrets import secrets_in
from ocrnet_pl.structures import Taxonomy
from ocrnet_pl.tracking.wandb_tracker import MetricsTable, WandbTracker

_SETTINGS: dict[str, dict[str, Any]] = {
    # The results' table replaces Lightning's, which would list every class.
    "validate": {"verbose": False},
    "test": {"verbose": False},
    # Predictions go to files, batch by batch; a list of all of them would fill the memory.
    "predict": {"return_predictions": False},
}
"""What the command line sets of the trainer's own options."""
_STARTING_RUNS = ("cross-validate", "joint-report", "tune")


class OCRNetCLI(LightningCLI):
    """``OCRNetTask`` and ``JointDataModule`` with the project's callbacks and run folders."""

    stored_config: ClassVar[dict[str, Any] | None] = None
    """What the subcommand takes from the config in its checkpoint; the command line is laid over it."""

    _continuation: Continuation | None = None
    _replaced: ReplacedWeights | None = None
    _earlier = EarlierPredictions()
    _chosen = False
    _rate_search: RateSearch | None = None
    _table: MetricsTable

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._classes = RunClasses()
        super().__init__(*args, **kwargs)

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Return a parser that takes no abbreviated keys: argparse would take a mistyped key for one."""
        kwargs["dump_header"] = ["Run it again with: python train.py fit --config FILE"]
        return super().init_parser(**kwargs, allow_abbrev=False)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the trainer's subcommand to build a parser of, with the options that the command line sets itself.

        The command line begins with its subcommand, and the parsers of all take several times as long as that of one.
        """
        name = Parser.words[0]
        of_lightning = LightningCLI.subcommands()
        return {name: of_lightning[name] | set(_SETTINGS.get(name, {}))} if name in of_lightning else {}

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        """Add the project's own command, if it is the one; it takes the same configs."""
        name = Parser.words[0]
        super()._add_subcommands(parser, **{name: {"description": sentence(name)}} | kwargs)
        if name in OF_LIGHTNING:
            describe_checkpoint(self._subcommand_parsers[name], name)
        command = OWN.get(name)
        if command is not None:
            own = self._add_command(parser, name)
            for option in unused_options(command):
                own.add_argument(f"--{option}", action=OptionOfFit, default=None, help=argparse.SUPPRESS)
            if command.arguments is not None:
                command.arguments(own)
        if name == "predict":
            add_format_option(self._subcommand_parsers[name])
            add_box_options(self._subcommand_parsers[name])
            add_earlier_options(self._subcommand_parsers[name])
        if name in EVALUATING:
            self._subcommand_parsers[name].add_argument(
                "--trust",
                type=list[str],
                default=[],
                help="Packages of your own whose classes the checkpoint may name: they can run any code.",
            )
            if self.stored_config is not None:
                lay_under(self._subcommand_parsers[name], self.stored_config)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line; a config saved by ``fit`` may name a checkpoint, which not all commands use."""
        super().parse_arguments(parser, args)
        command = OWN.get(str(self.config["subcommand"]))
        if command is not None:
            for name in unused_options(command):
                self.config[command.name].pop(name, None)
        config = self.config[self.config["subcommand"]]
        check_settings(config)
        check_run_folder(self._resolved(Namespace(name=config["name"], version=config["version"])))
        refuse_code(config)

    def _add_command(self, parser: LightningArgumentParser, name: str) -> LightningArgumentParser:
        own = self.init_parser(description=sentence(name))
        self._add_arguments(own)
        self._subcommand_parsers[name] = own
        self._subcommand_method_arguments[name] = []
        action: Any = parser._subcommands_action
        action.add_subcommand(name, own, help=SUBCOMMANDS[name])
        return own

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run's name, the links from data to model, and the callbacks."""
        parser.add_argument("--name", type=str, default="run", help="Name of the run's folder.")
        parser.add_argument(
            "--version", type=str, default=None, help="Folder below the name; by default version_0, version_1, ..."
        )
        add_auto_option(parser)
        if Parser.words[0] in ("fit", "joint-report", "cross-validate"):
            add_init_options(parser)
        else:
            for option in INIT_OPTIONS:
                parser.add_argument(f"--{option}", action=OptionOfFit, default=None, help=argparse.SUPPRESS)
        parser.link_arguments("data", "model.taxonomy", compute_fn=self._choose_classes, apply_on="instantiate")
        parser.link_arguments("data.size", "model.input_size", apply_on="instantiate")
        # When the config is read, so that a checkpoint knows it as well. Encoders without this option get nothing.
        parser.link_arguments("data.size", "model.encoder.init_args.input_size")
        add_sections(parser)
        describe_options(parser)

    def _dump_config(self) -> None:
        """Keep the config for the hyperparameters, as Lightning does, whose way of parsing takes ten times as long."""
        if not hasattr(self, "config_dump"):
            text = self.parser.dump(self.config, skip_link_targets=False, skip_none=False)
            self.config_dump = yaml_text.own(text)[self.config["subcommand"]]

    def _builds_network(self) -> bool:
        own = OWN.get(str(self.subcommand))
        return own is None or isinstance(own, NetworkCommand)

    def _set_seed(self) -> None:
        """Seed what is random here."""
        if self._builds_network():
            super()._set_seed()

    def instantiate_classes(self) -> None:
        """Build data, network and trainer, for the subcommands that have a use for them here.

        To check the data, the sources alone are built, later and one by one; the report's runs are other processes.
        """
        if self._builds_network():
            # Lightning records the config where it is first built from: here, not where settings were measured.
            self.__dict__.pop("config_dump", None)
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Return the trainer with the run's folder and the loggers that write to it."""
        root = Path(self._get(self.config_init, "trainer")["default_root_dir"])
        name, version = self._get(self.config_init, "name"), self._get(self.config_init, "version")
        version = self._earlier.version(root / name, version)
        table = self._table = MetricsTable(root, name=name, version=version)
        given = self._get(self.config_init, "trainer").get("logger")
        others: list[Logger] = [] if not given or given is True else given if isinstance(given, list) else [given]
        for logger in others:
            if isinstance(logger, WandbTracker) and self._continuation is not None and self._continuation.tracked:
                logger.continue_run(self._continuation.tracked, self._continuation.folder)
        callbacks = self._get(self.config_init, "trainer").get("callbacks")
        # A copy: the trainer adds its own to the list.
        callbacks = list(callbacks) if isinstance(callbacks, list) else [callbacks]
        trainer = super().instantiate_trainer(logger=[table, *others], **kwargs)
        if version is not None and trainer.is_global_zero and self.subcommand != "predict":
            # By now the first process may have made it, if this is another one.
            refuse_taken(Path(table.log_dir))
        if not isinstance(trainer.strategy.checkpoint_io, SafeCheckpointIO):
            trainer.strategy.checkpoint_io = SafeCheckpointIO()
        use_own_display(trainer, callbacks)
        # The first of them, so that nothing is written before it.
        trainer.callbacks.insert(0, SameCheckpoint(self._checkpoint_path()))  # type: ignore[attr-defined]
        if self._chosen:
            # Before the config is saved and the length of the schedule is requested.
            trainer.callbacks.insert(1, SameChoice())  # type: ignore[attr-defined]
        if self.subcommand == "predict":
            trainer.callbacks.append(chosen_boxes(self.config["predict"]))  # type: ignore[attr-defined]
            if self._earlier.resume:
                trainer.callbacks.insert(1, ContinuedPredictions())  # type: ignore[attr-defined]
        if self._rate_search is not None:
            trainer.callbacks.append(self._rate_search)  # type: ignore[attr-defined]
        if self._continuation is not None:
            trainer.callbacks.append(self._continuation)  # type: ignore[attr-defined]
        if any(isinstance(logger, WandbTracker) for logger in others):
            trainer.callbacks.append(TrackedCheckpoints())  # type: ignore[attr-defined]
        return trainer

    def _checkpoint_path(self) -> str | None:
        """Return the subcommand's checkpoint, if it has one."""
        path = self.config[str(self.subcommand)].get("ckpt_path")
        return str(path) if path else None

    def _parse_ckpt_path(self) -> None:
        """Do not let the checkpoint's settings override those that were given here."""

    def before_instantiate_classes(self) -> None:
        """Start the sources' paths from ``data.root``, and read what the run starts or continues from.

        A checkpoint that is evaluated stands in for what its training started from.
        """
        config = self.config[self.config["subcommand"]]
        mode = config["early_stopping"]["mode"]
        if mode not in EarlyStopping.mode_dict:
            raise ValueError(f"early_stopping.mode: expected 'min' or 'max', got {mode!r}")
        if self.config["subcommand"] == "predict":
            refuse_film(config)
            refuse_runs_inside(config)
            add_formats(config)
            self._earlier = EarlierPredictions.asked(config)
            self.save_config_kwargs["overwrite"] = self._earlier.resume
        start_at_root(config["data"], Parser.words)
        if config.get("ckpt_path"):
            config["ckpt_path"] = self._resolved(Namespace(ckpt_path=config["ckpt_path"]))["ckpt_path"]
        path = config.get("ckpt_path")
        if self.config["subcommand"] == "fit" and not path:
            file = self._resolved(Namespace(init_from=config["init_from"]))["init_from"]
            self._classes.starting = starting_weights(file, config["init_map"], config["init_keep"])
        if config["auto"]:
            self._choose_settings(config, path)
        encoder = config["model"]["encoder"]
        starting = self._classes.starting
        if path or (encoder and starting is not None and starting.has_all_of(self._resolved(encoder))):
            self._replaced = ReplacedWeights(encoder)
        # Commands that start runs of fit leave the finders to those.
        finders = None if self.config["subcommand"] in _STARTING_RUNS else Finders(config)
        if finders and self.config["subcommand"] == "fit":
            self._search(finders, path)
        if not path or "://" in path:
            return
        if self.config["subcommand"] == "fit":
            try:
                self._continuation = continuation(config, self._parser("fit"), given_settings(Parser.words))
                self._classes.kept = self._continuation.taxonomy
            except (CheckpointError, FileNotFoundError):
                # Other processes would wait for this one: all refuse together, as soon as they can talk.
                if not expects_others(config["trainer"]["num_nodes"]):
                    raise
            return
        content = read_checkpoint(path, mmap=True)
        # Without them Lightning could restore nothing.
        need_entries(content, path, "state_dict", "pytorch-lightning_version")
        arguments = encoder and encoder.get("init_args")
        if arguments and "input_size" in arguments and "input_size" in content:
            # The one that the weights fit; whether it takes the data's is a question for the network.
            arguments["input_size"] = saved_size(content, f"checkpoint {path!r}")
        if self.config["subcommand"] == "predict":
            refuse_without_points(config, content)
            config["data"]["root"] = None
            for split in SPLITS:
                config["data"][split] = None
        self._classes.read(content, f"checkpoint {path!r}", self.config["subcommand"])

    def _search(self, finders: Finders, path: str | None) -> None:
        """Let a run begin with what the finders find, and one that continues with what it began with."""
        if path:
            finders.repeat(path)
        else:
            self._rate_search = finders.search(self._parser("fit"), self._classes.starting)

    def _choose_settings(self, config: Namespace, path: str | None) -> None:
        """Choose the settings that ``auto`` stands for, or take those of the run that a checkpoint is of."""
        name = str(self.config["subcommand"])
        choice = AutoChoice(config, Parser.words, self._parser(name), self._resolved)
        if path:
            choice.repeat(path)
        elif name in (*MEASURED_FOR, *LOOKED_UP_FOR):
            statistics = choice.from_data()
            self._chosen = name in MEASURED_FOR
            if self._chosen:
                choice.from_network()
            # The others hear of it as soon as they can talk.
            if self._chosen and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
                choice.from_measurement(statistics)
            else:
                choice.show(statistics)

    def after_instantiate_classes(self) -> None:
        """Let the network start from the weights that it was given, and a run that continues know of those it had."""
        starting = self._classes.starting
        if starting is not None:
            starting.put_into(self.model)
        if self._replaced is None or self.subcommand != "fit":
            return
        self._replaced.put_back()
        if starting is None:
            before = None if self._continuation is None else self._continuation.pretrained
            # Now, since the optimiser may be made before the checkpoint is loaded.
            self.model.network.encoder.pretrained = bool(self._replaced) if before is None else before

    def _resolved(self, config: Namespace) -> Namespace:
        """Return a config with the values of the environment variables that it refers to."""
        assert isinstance(self.parser, Parser)
        return self.parser.resolved(config)

    def _choose_classes(self, data: JointDataModule) -> Taxonomy:
        return self._classes.of(data)

    def _run_subcommand(self, subcommand: str) -> None:
        """Wait for :meth:`execute`: mistakes in building and in running are told apart."""

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        return super()._prepare_subcommand_kwargs(subcommand) | _SETTINGS.get(subcommand, {})

    def execute(self) -> None:
        """Run the subcommand in a folder of its own.

        Raises:
            FileExistsError: Another run has the version that was asked for.
            MisconfigurationException: The training could only fail later.
            DataError: There is nothing to predict on.
        """
        check_precision(self.trainer)
        check_passes(self.model)
        if self.subcommand == "fit":
            keys = {id(self._get(self.config_init, key)): key for key in self._parser("fit").callback_keys}
            check_training(self.trainer, self.model, self.datamodule, self._get(self.config_init, "trainer"), keys)
        if self.subcommand == "predict":
            self.datamodule.images_to_predict()
            # Before earlier predictions make room.
            self.model.network.check_channels(self.datamodule.predict_channels)
        # The other processes learn its name from the first; a trial run has no folder.
        trial = bool(getattr(self.trainer, "fast_dev_run", False))
        with ExitStack() as held:
            self._run_in(self._claimed(held) if self.trainer.is_global_zero and not trial else None)

    def _run_in(self, folder: Path | None) -> None:
        """Run the subcommand.

        Args:
            folder: The run's folder; None for a process that writes nothing.
        """
        try:
            if folder is not None:
                for logger in self.trainer.loggers:
                    if isinstance(logger, WandbTracker):
                        logger.hide(secrets_in(self.config))
                    if hasattr(logger, "use_folder"):
                        logger.use_folder(folder, f"{self._table.name}/{self._table.version}")
            super()._run_subcommand(str(self.subcommand))
        except BaseException:
            if folder is not None:
                release_folder(folder)
            raise

    def _claimed(self, held: ExitStack) -> Path:
        """Return the run's folder: a new one, or that of earlier predictions, which others leave alone meanwhile."""
        if self.subcommand == "predict" and isinstance(self._table.version, str):
            folder = Path(self._table.log_dir)
            if folder.is_dir():
                held.enter_context(held_folder(folder))
            if self._earlier.settle(folder, plain_config(self._parser("predict"), self.config["predict"])):
                return folder
        folder = self._table.claim()
        if self.subcommand == "predict":
            held.enter_context(held_folder(folder))
        return folder

    def run_own(self) -> int:
        """Run one of the project's own subcommands, and return the status to exit with.

        Raises:
            DataError: The data is wrong.
            ValueError: The config or the checkpoint does not fit the subcommand.
            RunError: A run of the joint report failed.
        """
        name = str(self.subcommand)
        command = OWN[name]
        config, written = self._resolved(self.config)[name], self.config[name]
        if name in _STARTING_RUNS:
            check_runs_to_start(config)
        dump = partial(self._parser(name).dump, skip_none=False, skip_validation=True)
        if isinstance(command, NetworkCommand):
            built = self.config_init[name]
            return command.run(NetworkRun(config, written, built, dump, self.trainer, self.model, self.datamodule))
        return command.run(Run(config, written, written, dump))
