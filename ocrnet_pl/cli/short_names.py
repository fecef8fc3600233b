"""Classes of the package that a config may name without their module: those of all files in these rooms."""

from __future__ import annotations

import importlib
import pkgutil

ROOMS = (
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
"""The rooms, as parts of import paths below the package."""


def import_rooms() -> None:
    """Import every file of the rooms whose classes a config names."""
    for room in ROOMS:
        module = importlib.import_module(f"ocrnet_pl.{room}")
        for found in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{module.__name__}."):
            importlib.import_module(found.name)
