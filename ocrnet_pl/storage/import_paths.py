"""Where the classes stand now that earlier versions of this package kept elsewhere.

Configs and checkpoints name classes by import path. Whole configs are brought up to date by
:mod:`~ocrnet_pl.storage.earlier_settings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MOVED = {
    "ocrnet_pl.data.sources.mixture": "ocrnet_pl.data.sources.wrappers.mixture",
    "ocrnet_pl.data.sources.packed": "ocrnet_pl.data.shards.source",
    "ocrnet_pl.data.sources.partial": "ocrnet_pl.data.sources.wrappers.partial",
    "ocrnet_pl.data.sources.remapped": "ocrnet_pl.data.sources.wrappers.remapped",
    "ocrnet_pl.data.sources.split": "ocrnet_pl.data.sources.wrappers.split",
    "ocrnet_pl.data.sources.tiled": "ocrnet_pl.data.sources.wrappers.tiled",
    "ocrnet_pl.inference.tiling": "ocrnet_pl.inference.tiled_inference",
    "ocrnet_pl.losses.weighting": "ocrnet_pl.balancing.methods",
    "ocrnet_pl.tracking": "ocrnet_pl.tracking.wandb_tracker",
}
"""Modules whose classes a config can name, as they were and as they are."""


def current_path(path: str) -> str:
    """Return the import path that a class has now.

    Args:
        path: Import path of a class, such as ``ocrnet_pl.losses.weighting.FixedWeights``. Any other text is returned
            unchanged.
    """
    module, _, name = path.rpartition(".")
    return f"{_MOVED[module]}.{name}" if module in _MOVED else path


def with_current_paths(value: Any) -> Any:
    """Return parsed YAML in which all import paths are current.

    Args:
        value: Nested dictionaries, lists and scalars; it is not changed.
    """
    if isinstance(value, Mapping):
        return {key: with_current_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_current_paths(item) for item in value]
    return current_path(value) if isinstance(value, str) else value
