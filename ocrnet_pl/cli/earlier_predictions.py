"""The options ``--resume`` and ``--overwrite`` of ``predict``: what becomes of the predictions that a folder has."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocrnet_pl.callbacks.continued_predictions import PREDICTIONS
from ocrnet_pl.data.readers import yaml_text
from ocrnet_pl.distributed.first_process import say
from ocrnet_pl.errors import UsageError
from ocrnet_pl.storage.checkpoints import flat_config
from ocrnet_pl.storage.ordinary_files import read_text
from ocrnet_pl.storage.run_folder import refuse_taken

if TYPE_CHECKING:
    from jsonargparse import Namespace
    from lightning.pytorch.cli import LightningArgumentParser

_CONFIG = "config.yaml"
_SUMMARY = "summary.json"
_OF_TRAINING = ("checkpoints", "metrics.csv")
_RESULTS = (PREDICTIONS, "annotations", ".parts", "disagreements.csv", "disagreements.png")
_SETTINGS = (_CONFIG, "hparams.yaml", "status.json")
_SECTIONS = ("model.", "prediction.", "annotations.", "disagreements.", "data.size", "data.predict_")
_OPTIONS = ("ckpt_path", "operating_point", "classes", "trainer.precision")
"""What predictions depend on, of which all in one folder are the same."""


@dataclass(frozen=True)
class EarlierPredictions:
    """What becomes of predictions that are there already.

    Attributes:
        resume: Whether the run goes on where it was cut off.
        overwrite: Whether they are replaced.
    """

    resume: bool = False
    overwrite: bool = False

    @classmethod
    def asked(cls, config: Namespace) -> EarlierPredictions:
        """Take the options out of the config of ``predict``, so that the files of all starts are the same.

        Raises:
            UsageError: Both are given, or it is not said what to overwrite.
        """
        asked = cls(bool(config.pop("resume", False)), bool(config.pop("overwrite", False)))
        if asked.resume and asked.overwrite:
            raise UsageError("resume, overwrite: both are given; leave out one of them")
        if asked.overwrite and config["version"] is None:
            raise UsageError("overwrite: name the run whose predictions are replaced with --version")
        return asked

    def version(self, runs: Path, given: str | None) -> str | None:
        """Return the version of the run: to go on, the newest one that has predictions unless another one is given.

        Args:
            runs: Folder of all runs of the name.
            given: The version of the command line, or None.
        """
        if not self.resume or given is not None:
            return given
        found = [folder.parent for folder in runs.glob(f"*/{PREDICTIONS}") if folder.is_dir()]
        if not found:
            say(f"resume: there are no predictions in {str(runs)!r} to go on with; this is a new run")
            return None
        return max(found, key=lambda folder: ((folder / PREDICTIONS).stat().st_mtime, folder.name)).name

    def settle(self, folder: Path, config: dict[str, Any]) -> bool:
        """Return whether a run's folder is there to be used again; it is called on the first process only.

        Args:
            folder: The folder.
            config: The config of this run, as ``config.yaml`` has it.

        Raises:
            FileExistsError: It exists, and it was not said what to do, or it is not a folder of predictions.
            UsageError: Its predictions were made in another way.
        """
        if not folder.exists() or not any(folder.iterdir()):
            return folder.exists()
        if not (self.resume or self.overwrite):
            refuse_taken(folder, "give another --version, or --resume or --overwrite")
        where = f"run folder {str(folder)!r}"
        training = [name for name in _OF_TRAINING if (folder / name).exists()]
        # A start that was cut off before the first image has left little more than its settings.
        begun = {path.name for path in folder.iterdir() if path.suffix != ".part"} <= {*_SETTINGS, _SUMMARY, *_RESULTS}
        if training or not (begun or (folder / PREDICTIONS).is_dir()):
            what = f"it has {training[0]} of another command" if training else f"it has no {PREDICTIONS}"
            raise FileExistsError(f"{where}: {what}; give another --version")
        if self.overwrite:
            for name in (*_RESULTS, _SUMMARY, *_SETTINGS):
                path = folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        else:
            _check_same(folder / _CONFIG, config, where)
            # It says how the earlier start ended.
            (folder / _SUMMARY).unlink(missing_ok=True)
        return True


def _check_same(path: Path, config: dict[str, Any], where: str) -> None:
    """Raise an error if the predictions of a folder were made in another way."""
    advice = "predict anew with --overwrite, or give another --version"
    try:
        before = dict(flat_config(yaml_text.load(read_text(path))))
    except ValueError:
        raise UsageError(f"resume: {where}: its {_CONFIG} cannot be read; {advice}") from None
    now = dict(flat_config(config))
    for key in [*now, *(key for key in before if key not in now)]:
        if not (key in _OPTIONS or key.startswith(_SECTIONS)):
            continue
        if before.get(key, "absent") != now.get(key, "absent"):
            change = f"{key} was {before.get(key, 'absent')!r:.80}, now it is {now.get(key, 'absent')!r:.80}"
            raise UsageError(f"resume: {where}: {change}; {advice}")
    checkpoint = Path(str(config.get("ckpt_path")))
    if checkpoint.is_file() and checkpoint.stat().st_mtime > path.stat().st_mtime:
        raise UsageError(f"resume: {where}: the checkpoint {str(checkpoint)!r} was written after it; {advice}")


def add_earlier_options(parser: LightningArgumentParser) -> None:
    """Add the options to the parser of ``predict``."""
    parser.add_argument(
        "--resume",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="Whether to go on in the folder of an earlier start that was cut off: the run with --version, or the "
        "newest one with predictions. Images whose files are complete are not predicted again, unless the image "
        "was changed since.",
    )
    parser.add_argument(
        "--overwrite",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="Whether the predictions in the folder of the run with --version are replaced.",
    )
