"""Weights & Biases, that never stops a run."""

from __future__ import annotations

import netrc
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_info

DEFAULT_SERVER = "https://api.wandb.ai"


def offline_reason(timeout: float = 3.0) -> str | None:
    """Return why nothing can be sent to Weights & Biases now, or None if it can.

    Args:
        timeout: Seconds to wait for the server.
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


class WandbTracker(WandbLogger):
    """Lightning's Weights & Biases logger, which goes offline by itself where it cannot send.

    Without an account or a network the run is logged to its own folder, to be sent later by ``wandb sync``; one line
    says so. It never asks a question.

    Args:
        project: Of Weights & Biases.
        entity: User or team; None for the account's default.
        group: Groups runs, for instance those of one experiment.
        tags: Of the run.
        notes: Of the run.
        log_model: Also send checkpoints.
    """

    def __init__(
        self,
        project: str = "ocrnet-pl",
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        notes: str | None = None,
        log_model: bool = False,
    ) -> None:
        reason = None if os.environ.get("WANDB_MODE") == "disabled" else offline_reason()
        if reason is not None:
            # Sending checkpoints and working offline exclude each other.
            log_model = False
            rank_zero_info(f"Weights & Biases: logging offline, since {reason}.")
        super().__init__(
            project=project,
            offline=reason is not None,
            log_model=log_model,
            entity=entity,
            group=group,
            tags=tags,
            notes=notes,
        )
        # Without effect today, and soon an error; Lightning still passes it on.
        self._wandb_init.pop("anonymous", None)

    def use_folder(self, folder: Path, name: str) -> None:
        """Keep the run's files in ``folder`` and show the run as ``name``; before the first use."""
        self._save_dir = str(folder)
        self._wandb_init["dir"] = str(folder)
        self._wandb_init["name"] = name

    def log_config(self, config: dict[str, Any]) -> None:
        """Store the run's whole configuration."""
        self.experiment.config.update(config, allow_val_change=True)
