"""A Weights & Biases logger that never stops a run."""

from __future__ import annotations

import netrc
import os
import socket
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only, rank_zero_warn

from ocrnet_pl.distributed.first_process import tell
from ocrnet_pl.storage.csv_table import append_rows
from ocrnet_pl.storage.files import records
from ocrnet_pl.storage.run_folder import claim_folder
from ocrnet_pl.storage.secrets import hidden_words
from ocrnet_pl.tracking.wandb_checkpoints import LAST, stored_steps, versions_of
from ocrnet_pl.tracking.wandb_history import (
    STEP,
    has_item,
    kept_rows,
    kept_versions,
    last_point,
    sent_rows,
    sent_versions,
)

DEFAULT_SERVER = "https://api.wandb.ai"


def offline_reason(timeout: float = 3.0) -> str | None:
    """Return why nothing can be sent to Weights & Biases now, or None if sending is possible.

    Args:
        timeout: Time to wait for the server, in seconds.
    """
    if os.environ.get("WANDB_MODE") == "offline":
        return "WANDB_MODE is offline"
    server = urlparse(os.environ.get("WANDB_BASE_URL") or DEFAULT_SERVER)
    host = server.hostname or ""
    if not os.environ.get("WANDB_API_KEY") and not _has_login(host):
        return "there is no account (run `wandb login`, or set WANDB_API_KEY)"
    try:
        socket.create_connection((host, server.port or (443 if server.scheme == "https" else 80)), timeout).close()
    except OSError:
        return f"{host} cannot be reached"
    return None


def _has_login(host: str) -> bool:
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        return path.is_file() and netrc.netrc(str(path)).authenticators(host) is not None
    except netrc.NetrcParseError:
        return False


class MetricsTable(CSVLogger):
    """Lightning's CSV logger, which keeps what a full disk refuses until there is space again.

    Its folder is the run's.
    """

    def claim(self) -> Path:
        """Make the run's folder, which belongs to this run only; called on the first process, before the first use.

        Raises:
            FileExistsError: The requested version is taken.
            OSError: The folder cannot be made.
        """
        # The number of the next version may be taken by another run in the meantime.
        asked = self._version if isinstance(self._version, str) else None
        folder = claim_folder(Path(self.root_dir), asked)
        self._version = str(folder.relative_to(self.root_dir))
        return folder

    @rank_zero_only
    def save(self) -> None:
        """Write what was logged since the last successful write."""
        writer: Any = self.experiment
        if "://" in writer.metrics_file_path:
            super().save()
        elif writer.metrics:
            with records("metrics.csv"):
                append_rows(Path(writer.metrics_file_path), writer.metrics)
                writer.metrics = []


class WandbTracker(WandbLogger):
    """Lightning's Weights & Biases logger, which goes offline by itself if it cannot send.

    Without an account or a network, the run is logged to its own folder, to be sent later by ``wandb sync``, and one
    line says so. It never asks a question.

    Args:
        project: Name of the project in Weights & Biases.
        entity: Name of the user or team; null for the account's default.
        group: Name of a group of runs, for instance those of one experiment; null for none.
        tags: Tags of the run; null for none.
        notes: Notes on the run; null for none.
        log_model: Whether the best and the last checkpoint are stored as versions of an artifact: true at the end of
            training, "all" whenever one is written, false never.

    Raises:
        ValueError: ``log_model`` is none of these.
    """

    def __init__(
        self,
        project: str = "ocrnet-pl",
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        notes: str | None = None,
        log_model: Literal["all"] | bool = True,
    ) -> None:
        if log_model not in (True, False, "all"):
            raise ValueError(f"trainer.logger: log_model: expected true, false or all, got {log_model!r}")
        reason = None if os.environ.get("WANDB_MODE") == "disabled" else offline_reason()
        if reason is not None:
            rank_zero_info(f"Weights & Biases: logging offline because {reason}.")
        super().__init__(
            project=project,
            offline=reason is not None,
            # Lightning's own neither works offline nor says what a checkpoint was trained on.
            log_model=False,
            entity=entity,
            group=group,
            tags=tags,
            notes=notes,
        )
        self._continues: Path | None = None
        self._secrets: Collection[str] = ()
        self._stored: tuple[int, set[str]] | None = None
        self._checkpoints = log_model
        self._data: dict[str, str] = {}
        self._figures: dict[str, float] = {}
        self._versions: set[tuple[str, int]] = set()
        # This option has no effect today and will soon be an error; Lightning still passes it on.
        self._wandb_init.pop("anonymous", None)

    def use_folder(self, folder: Path, name: str) -> None:
        """Keep the run's files in ``folder`` and show the run as ``name``; before the first use."""
        self._save_dir = str(folder)
        self._wandb_init["dir"] = str(folder)
        self._wandb_init["name"] = name

    def hide(self, secrets: Collection[str]) -> None:
        """Keep credentials of the configs and the command line out of the record; call it before the first use."""
        self._secrets = secrets
        if secrets:
            import wandb

            # The difference from the last commit may contain the config.
            self._wandb_init["settings"] = wandb.Settings(disable_git=True)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run; the first use starts it."""
        if self._experiment is not None:
            return self._experiment
        # Weights & Biases records the command line.
        words = sys.argv
        sys.argv = [*words[:1], *hidden_words(words[1:], self._secrets)]
        try:
            return super().experiment
        finally:
            sys.argv = words

    def continue_run(self, run_id: str, folder: Path) -> None:
        """Continue a run, and leave out the points that it already has; call it before the first use.

        A run that was killed may have logged points after the checkpoint from which it continues. They are computed
        again, with the same values.

        Args:
            run_id: Id of the run.
            folder: Folder of the start that wrote the checkpoint, with what was logged offline.
        """
        self._id = run_id
        self._wandb_init |= {"id": run_id, "resume": "allow"}
        self._continues = folder

    @property
    def goes_on(self) -> bool:
        """Whether this is a further start of an earlier run."""
        return self._wandb_init.get("resume") == "allow" and self._id is not None

    @property
    def run_id(self) -> str | None:
        """The run's id; None before the first use."""
        return None if self._experiment is None else str(self._experiment.id)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log a point, unless the run has it already."""
        self._figures |= metrics
        self._read_stored()
        if step is not None and self._stored is not None:
            last, names = self._stored
            known: Set[str] = metrics.keys() if step < last else names if step == last else set()
            metrics = {name: value for name, value in metrics.items() if name not in known or name == "epoch"}
            if metrics.keys() <= {"epoch"}:
                return
        super().log_metrics(metrics, step)

    @rank_zero_only
    def show(self, items: Mapping[str, Callable[[], Any]], step: int) -> None:
        """Log pictures, tables and charts, unless the run has them already; what fails is said, and stops no run.

        Args:
            items: What makes each, by its name.
            step: Number of optimiser steps so far.
        """
        try:
            self._read_stored()
            last, names = self._stored or (-1, set())
            if step < last or self.experiment.disabled:
                return
            known = names if step == last else set()
            with self._staging():
                made = {name: make() for name, make in items.items() if not has_item(known, name)}
                if made:
                    self.experiment.log({**made, STEP: step})
        except Exception as error:  # Tracking must not stop a run.
            tell(f"Weights & Biases could not store {', '.join(items)}: {error}")

    def describe_data(self, fingerprints: Mapping[str, str]) -> None:
        """Store what the run is trained on, in its config and with its checkpoints.

        Args:
            fingerprints: A hash of each data set.
        """
        self._data = dict(fingerprints)
        self.experiment.config.update({"data_fingerprint": self._data}, allow_val_change=True)

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Store what was written, if every checkpoint is stored."""
        if self._checkpoints == "all":
            self._store_checkpoints(checkpoint_callback, over=False)

    def log_checkpoints(self, checkpoint: ModelCheckpoint) -> None:
        """Store the best and the last checkpoint at the end of training, unless none or all are stored.

        Args:
            checkpoint: What wrote them.
        """
        if self._checkpoints:
            self._store_checkpoints(checkpoint, over=True)

    @rank_zero_only
    def _store_checkpoints(self, checkpoint: ModelCheckpoint, over: bool) -> None:
        try:
            self._read_stored()
            run, known = self.experiment, self._versions
            if run.disabled:
                return
            versions = versions_of(checkpoint, self._figures, self._data)
            if not over and checkpoint.save_last and versions and LAST not in versions[-1].aliases:
                # The last one of the same step follows.
                return
            for version in versions:
                aliases = [alias for alias in version.aliases if (alias, version.step) not in known]
                if aliases:
                    with self._staging():
                        run.log_artifact(version.artifact(f"model-{run.id}", kept=over), aliases=aliases)
                    known |= {(alias, version.step) for alias in aliases}
        except Exception as error:  # Tracking must not stop a run.
            tell(f"Weights & Biases could not store the checkpoints: {error}")

    @contextmanager
    def _staging(self) -> Iterator[None]:
        """Keep what is logged offline in the run's folder, from where it is sent later, and not in the home folder."""
        if not self._offline or "WANDB_DATA_DIR" in os.environ:
            yield
            return
        assert self._save_dir is not None
        os.environ["WANDB_DATA_DIR"] = str(Path(self._save_dir, "wandb").resolve())
        try:
            yield
        finally:
            del os.environ["WANDB_DATA_DIR"]

    def _read_stored(self) -> None:
        """Find out what a run that is continued has already."""
        if self._continues is None:
            return
        folder, self._continues = self._continues, None
        run = self.experiment
        try:
            if self._offline:
                self._stored = last_point(kept_rows(folder, run.id))
                self._versions = stored_steps(kept_versions(folder, run.id))
            elif not run.disabled:
                address = f"{run.entity}/{run.project}/{run.id}"
                self._stored = last_point(sent_rows(address))
                self._versions = stored_steps(sent_versions(address))
        except Exception as error:  # Tracking must not stop a run.
            rank_zero_warn(f"Weights & Biases did not say which points the run has; some may be logged twice: {error}")

    def finish(self, status: int) -> None:
        """End the run, so that the next one in this process is another run.

        Args:
            status: Exit status of the process; any value but 0 counts as failed.
        """
        if self._experiment is not None:
            self._experiment.finish(exit_code=status)
            self._experiment = None

    def log_config(self, config: dict[str, Any]) -> None:
        """Store the run's whole configuration."""
        self.experiment.config.update(config, allow_val_change=True)
