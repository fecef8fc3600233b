"""Classes of the package that a config may name without their module: those of all files in these rooms."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys

_ROOMS = (
    "balancing",
    "data.shards.source",
    "data.sources",
    "data.transforms",
    "inference",
    "losses",
    "models",
    "tracking",
)


def import_rooms() -> None:
    """Import every file of the rooms whose classes a config names."""
    for room in _ROOMS:
        module = importlib.import_module(f"ocrnet_pl.{room}")
        for found in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{module.__name__}."):
            importlib.import_module(found.name)


def package_classes() -> list[str]:
    """Return the import paths of the package's own classes that have been imported."""
    return sorted(
        f"{name}.{attribute}"
        for name, module in list(sys.modules.items())
        if name.startswith("ocrnet_pl.")
        for attribute, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == name and not inspect.isabstract(value)
    )
