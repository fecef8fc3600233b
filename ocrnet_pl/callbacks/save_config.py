"""The origin of a run: its config in its records and checkpoints, and the checkpoint from which it continues."""

from __future__ import annotations

from collections.abc import Container, Mapping
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from ocrnet_pl.callbacks.continuation import Continuation
from ocrnet_pl.callbacks.kept_shapes import keep_shapes
from ocrnet_pl.data.readers import yaml_text
from ocrnet_pl.distributed.first_process import say
from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.storage.checkpoints import CONFIG_KEY, differences, need_entries, read_checkpoint, usable_checkpoint
from ocrnet_pl.storage.earlier_settings import parts_now
from ocrnet_pl.storage.plain_values import plain_values
from ocrnet_pl.storage.saved_network import saved_taxonomy
from ocrnet_pl.structures import Taxonomy
from ocrnet_pl.tracking.wandb_tracker import WandbTracker
from ocrnet_pl.training.origin import KEPT_KEY
from ocrnet_pl.training.resume import PRETRAINED_KEY, effects

TRACKER_KEY = "wandb_run"
"""Key of a checkpoint for the id of its run in Weights & Biases."""

INIT_OPTIONS: dict[str, tuple[type, Any]] = {
    "init_from": (str, None),
    "init_map": (dict, None),
    "init_keep": (bool, False),
}
"""The options of what a run starts from, with their types and what they are without it."""

_OWN_TO_A_START = ("init_", "ckpt_path ", "version ", "trainer.default_root_dir ", "trainer.logger", "config ")
"""Settings in which every start of a run differs from the one before."""


class SaveConfig(SaveConfigCallback):
    """Saves the config in the run's folder and passes it to Weights & Biases."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Pass the config to Weights & Biases, on the first process."""
        for logger in trainer.loggers:
            if hasattr(logger, "log_config"):
                logger.log_config(deepcopy(self._plain))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the config and the tracker's run in the checkpoint."""
        checkpoint[CONFIG_KEY] = deepcopy(self._plain)
        ids = [logger.run_id for logger in trainer.loggers if isinstance(logger, WandbTracker)]
        checkpoint[TRACKER_KEY] = next((found for found in ids if found is not None), None)

    @cached_property
    def _plain(self) -> dict[str, Any]:
        """Every checkpoint has the same, and to write it takes longer than to write a small checkpoint."""
        return plain_config(self.parser, self.config)


def plain_config(parser: LightningArgumentParser, config: Namespace) -> dict[str, Any]:
    """Return a config in the form of a run's ``config.yaml``."""
    content: dict[str, Any] = yaml_text.own(parser.dump(config, skip_none=False, skip_validation=True))
    return content


def continuation(config: Namespace, parser: LightningArgumentParser, given: Container[str]) -> Continuation:
    """Return what to keep from the checkpoint from which a run continues, and print what differs from its run.

    Args:
        config: Config of ``fit``; in it, a damaged checkpoint is replaced by the newest whole one next to it.
        parser: Parser of the config.
        given: Dotted keys, without ``init_args``, that the command line and its configs set.

    Raises:
        FileNotFoundError: There is no checkpoint.
        CheckpointError: None is whole, or it is not one of this project.
    """
    path, problem = usable_checkpoint(config["ckpt_path"])
    if problem is not None:
        say(f"warning: {problem}")
        config["ckpt_path"] = str(path)
    content = read_checkpoint(path, mmap=True)
    need_entries(content, path, "global_step", "state_dict", "taxonomy")
    kept = _take_origin(config, content, path)
    parts = content.get("hyper_parameters")
    keep_shapes(config, parts_now(parts) if isinstance(parts, Mapping) else {}, given)
    now = plain_config(parser, config)
    different = [line for line in differences(content, now) if not line.startswith(_OWN_TO_A_START)]
    if different:
        say(f"Different from the run that wrote {path}: {'; '.join(effects(different))}")
    steps, pretrained = int(content["global_step"]), content.get(PRETRAINED_KEY)
    known = None if pretrained is None else bool(pretrained)
    return Continuation(path.parent.parent, steps, content.get(TRACKER_KEY), kept, known)


def classes_to_keep(content: Mapping[str, Any], where: str) -> Taxonomy | None:
    """Return a checkpoint's categories if they are more than those of the data that it was trained on, else None.

    Args:
        content: Content of the checkpoint.
        where: Name of the file for error messages.

    Raises:
        CheckpointError: Its categories are not what training writes.
    """
    config = content.get(CONFIG_KEY)
    # A run from Python has no config.
    keeps = content.get(KEPT_KEY) is True or (isinstance(config, Mapping) and config.get("init_keep") is True)
    return saved_taxonomy(content, where) if keeps else None


def _take_origin(config: Namespace, content: Mapping[str, Any], path: Path) -> Taxonomy | None:
    """Let the config say what the run that continues started from, and return the categories to keep, if there are any.

    Raises:
        CheckpointError: The checkpoint's own config is not what training writes.
    """
    if config.get("init_from"):
        say(f"init_from: not read again, since the run continues from {path}")
    where = f"checkpoint {str(path)!r}"
    saved = content.get(CONFIG_KEY)
    for option, (kind, without) in INIT_OPTIONS.items():
        value = saved.get(option, without) if isinstance(saved, Mapping) else without
        if value is not None and not isinstance(value, kind):
            raise CheckpointError(f"{where}: config.{option}: not what training writes")
        config[option] = plain_values(value, f"{where}: config.{option}")
    return classes_to_keep(content, where)
