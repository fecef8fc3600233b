"""Classes of the package that a config may name without their module: those of all files in these rooms."""

from __future__ import annotations

import importlib
import pkgutil

_ROOMS = (
    "balancing",
    "data.shards.source",
    "data.sources",
    "data.transforms",
    "inference",
    "labelling",
    "losses",
    "metrics",
    "models",
    "tracking",
    "training.schedules",
    "training.teacher",
)


def import_rooms() -> None:
    """Import every file of the rooms whose classes a config names."""
    for room in _ROOMS:
        module = importlib.import_module(f"ocrnet_pl.{room}")
        for found in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{module.__name__}."):
            importlib.import_module(found.name)
