"""Checkpoints as versions of an artifact of Weights & Biases."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning.pytorch.callbacks import ModelCheckpoint

from ocrnet_pl.storage.checkpoints import CONFIG_KEY, VERSIONS_KEY, read_checkpoint
from ocrnet_pl.structures import Taxonomy
from ocrnet_pl.tracking.wandb_history import MODEL

if TYPE_CHECKING:
    import wandb

BEST, LAST = "best", "last"


class Version(NamedTuple):
    """A checkpoint to store.

    Attributes:
        path: Path of the file.
        aliases: ``best``, ``last``, or both if they are of the same step.
        metadata: What it was trained on, how far, and how good it is.
    """

    path: Path
    aliases: tuple[str, ...]
    metadata: dict[str, Any]

    @property
    def step(self) -> int:
        """Number of optimiser steps that its weights have been trained for."""
        return int(self.metadata["step"])

    def artifact(self, name: str, kept: bool) -> wandb.Artifact:
        """Return the artifact, which has ``model.ckpt`` and, if the run has one, ``config.yaml``.

        Args:
            name: Name of the artifact.
            kept: Whether the file stays as it is; if not, it is copied, because the next one replaces it.
        """
        import wandb

        artifact = wandb.Artifact(name, type=MODEL, metadata=self.metadata)
        artifact.add_file(str(self.path), name="model.ckpt", policy="immutable" if kept else "mutable")
        if self.metadata[CONFIG_KEY] is not None:
            with artifact.new_file("config.yaml", encoding="utf-8") as file:
                file.write(self.metadata[CONFIG_KEY])
        return artifact


def versions_of(checkpoint: ModelCheckpoint, figures: Mapping[str, float], data: Mapping[str, str]) -> list[Version]:
    """Return the best and the last checkpoint, the older first; one version if they are of the same step.

    Args:
        checkpoint: What wrote them.
        figures: The figures of the last validation.
        data: The fingerprint of each data set.
    """
    monitor, score = str(checkpoint.monitor), checkpoint.best_model_score
    shared = {"monitor": monitor, "data": dict(data)}
    best = _read(checkpoint.best_model_path, BEST, shared, None if score is None else float(score))
    last = _read(checkpoint.last_model_path, LAST, shared, figures.get(monitor))
    if best and last and best.step == last.step:
        # The same weights, and what continues from the last knows about the best.
        return [last._replace(aliases=(BEST, LAST), metadata=last.metadata | {"aliases": [BEST, LAST]})]
    return sorted((each for each in (best, last) if each is not None), key=lambda version: version.step)


def _read(path: str, alias: str, shared: Mapping[str, Any], score: float | None) -> Version | None:
    if not path or not Path(path).is_file():
        return None
    import yaml

    content = read_checkpoint(path, mmap=True)
    # The server limits the number of keys, so that what has many is text.
    taxonomy, config = content.get("taxonomy"), content.get(CONFIG_KEY)
    metadata = {
        **shared,
        "aliases": [alias],
        "step": int(content["global_step"]),
        "epoch": int(content["epoch"]),
        "score": None if score is None or math.isnan(score) else score,
        "categories": [category.name for category in Taxonomy.from_dict(taxonomy).categories] if taxonomy else None,
        "taxonomy": None if taxonomy is None else json.dumps(taxonomy),
        CONFIG_KEY: None if config is None else yaml.safe_dump(config, sort_keys=False),
        "versions": content.get(VERSIONS_KEY),
    }
    return Version(Path(path), (alias,), metadata)


def stored_steps(metadata: Iterator[Mapping[str, Any]]) -> set[tuple[str, int]]:
    """Return alias and step of each version of a run, from their metadata."""
    return {(alias, int(each["step"])) for each in metadata for alias in each.get("aliases", ())}
